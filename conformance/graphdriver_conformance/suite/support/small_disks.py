"""Disks that can be filled to the last block or inode, and emptied again."""

import errno
import itertools
import os
import shutil
from enum import Enum
from pathlib import Path
from typing import Protocol

from graphdriver_conformance.host.environment import umount, umount_below
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.host.syscalls import MountFlag, fallocate, mount
from graphdriver_conformance.suite.support.disks import CannotMake
from graphdriver_conformance.suite.support.images import ImageDisk

__all__ = ["Resource", "SmallDisk", "small_disk"]

_EXT4_BLOCK = 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Resource(Enum):
    """The resources of a disk that can be used up."""

    BLOCKS = "blocks"
    INODES = "inodes"


class SmallDisk(Protocol):
    """A file system that is mounted at `point`."""

    point: Path

    def used(self) -> int:
        """Return the numbers of used blocks and inodes."""

    def leave(self, resource: Resource, count: int) -> None:
        """Leave `free` blocks or inodes free."""

    def free_space(self) -> None:
        """Make room again."""

    def close(self) -> None:
        """Unmount the disk, and all that is mounted on it."""


def small_disk(type: str, point: Path) -> SmallDisk:
    """Create a tmpfs or an ext4. Raises CannotMake."""
    return _Tmpfs(point) if type == "tmpfs" else _Ext4(point)


class _Tmpfs:
    """A tmpfs is filled by reducing its size."""

    _ROOM = 4096

    def __init__(self, point: Path) -> None:
        self.point = point
        try:
            mount("tmpfs", point, "tmpfs", 0, f"mode=0755,{self._sizes(self._ROOM, self._ROOM)}")
        except OSError as error:
            raise CannotMake(f"no tmpfs can be mounted: {error}") from error

    def used(self) -> int:
        return sum(self._used())

    def leave(self, resource: Resource, count: int) -> None:
        blocks, inodes = self._used()
        if resource is Resource.BLOCKS:
            self._resize(blocks + count, self._ROOM)
        else:
            self._resize(self._ROOM, inodes + count)

    def free_space(self) -> None:
        self._resize(self._ROOM, self._ROOM)

    def close(self) -> None:
        _umount(self.point)

    def _resize(self, blocks: int, inodes: int) -> None:
        with own_work(f"resize {self.point}"):
            mount("tmpfs", self.point, "tmpfs", MountFlag.REMOUNT, self._sizes(blocks, inodes))

    def _used(self) -> tuple[int, int]:
        found = os.statvfs(self.point)
        return found.f_blocks - found.f_bfree, found.f_files - found.f_ffree

    @staticmethod
    def _sizes(blocks: int, inodes: int) -> str:
        # 0 would be no limit.
        return f"nr_blocks={max(1, blocks)},nr_inodes={max(1, inodes)}"


class _Ext4:
    """An ext4 is filled with a file, or with empty ones, in a directory of its own."""

    def __init__(self, point: Path) -> None:
        self._disk = ImageDisk("small ext4", point)
        self.point = point
        self._filling = point / "filling"

    def used(self) -> int:
        found = os.statvfs(self.point)
        return found.f_blocks - found.f_bfree + found.f_files - found.f_ffree

    def leave(self, resource: Resource, count: int) -> None:
        with own_work(f"fill {self.point}"):
            self._filling.mkdir()
            if resource is Resource.BLOCKS:
                self._take_blocks(count)
            else:
                self._take_inodes(count)

    def free_space(self) -> None:
        with own_work(f"empty {self.point}"):
            if self._filling.exists():
                shutil.rmtree(self._filling)

    def close(self) -> None:
        self._disk.close()

    def _take_blocks(self, left: int) -> None:
        """Fill it with files; where free blocks are scattered, one or two fewer may be left."""
        chunk, was_synced = 1 << 20, False
        for number in itertools.count():
            with open(os.open(self._filling / str(number), _NEW), "wb") as filling:
                length = 0
                while (free := os.statvfs(self.point).f_bavail - left) > 0:
                    chunk = min(chunk, free)
                    try:
                        fallocate(filling.fileno(), 0, length, chunk * _EXT4_BLOCK)
                        length += chunk * _EXT4_BLOCK
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        if chunk > 1:
                            chunk //= 2
                        elif length:
                            break
                        elif was_synced:
                            raise
                        else:
                            # Blocks of a deleted file are free after a commit of the journal.
                            was_synced = True
                            self._disk.sync()
                else:
                    return

    def _take_inodes(self, left: int) -> None:
        for number in range(os.statvfs(self.point).f_favail - left):
            os.close(os.open(self._filling / str(number), _NEW))


def _umount(point: Path) -> None:
    umount_below(point)
    umount(str(point))
