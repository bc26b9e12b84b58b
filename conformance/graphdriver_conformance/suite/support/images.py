"""File systems in files in memory: their power can be cut, and their content saved and restored."""

import fcntl
import hashlib
import os
import struct
import tempfile
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from graphdriver_conformance.host.environment import umount, umount_below
from graphdriver_conformance.host.loop_devices import mount_image
from graphdriver_conformance.host.own_work import SuiteError, own_work, run_program
from graphdriver_conformance.host.recorded_file import RecordedFile
from graphdriver_conformance.host.syscalls import syncfs
from graphdriver_conformance.suite.support.disks import CannotMake

__all__ = ["FORMATS", "Format", "ImageDisk", "Survives", "copied", "digest"]

# include/uapi/linux/fs.h since 6.12; xfs and ext4 have had their own names for it since 4.11.
_FS_IOC_SHUTDOWN = 0x8004587D
_CHUNK = 1 << 16
_ZEROS = bytes(_CHUNK)


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file system: how it is created, and mounted without periodic writes."""

    type: str
    size: int
    command: tuple[str, ...]
    options: str = ""


FORMATS = {
    "ext4": Format(
        "ext4", 32 << 20, ("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4"), "commit=300"
    ),
    # The copy of a disk has the same UUID, and is mounted while the disk is still in use.
    "xfs": Format("xfs", 300 << 20, ("mkfs.xfs", "-q", "-f"), "nouuid"),
    "btrfs": Format("btrfs", 128 << 20, ("mkfs.btrfs", "-q", "-f"), "commit=300"),
    "small ext4": Format(
        "ext4",
        8 << 20,
        ("mkfs.ext4", "-q", "-F", "-m0", "-b1024", "-N256", "-O^has_journal"),
    ),
}


class Survives(Enum):
    """The unsynced changes that survive a power cut; the value is FS_IOC_SHUTDOWN's."""

    NOTHING = 2
    """The journal as it is on the disk."""
    NAMES = 1
    """The journal is committed first: names exist, but not the data that was not written back."""


class ImageDisk:
    """A file system of a format, mounted at `point`. Raises CannotMake."""

    def __init__(self, format: str, point: Path) -> None:
        self.point = point
        self._format = FORMATS[format]
        self.image = copied(_template(format))
        self._commits = 0
        try:
            self._mount()
        except BaseException:
            os.close(self.image)
            raise

    @property
    def type(self) -> str:
        """The type of the file system."""
        return self._format.type

    def sync(self) -> None:
        """Sync all mounted file systems."""
        with own_work(f"sync {self.point}"):
            descriptor = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY)
            try:
                syncfs(descriptor)
            finally:
                os.close(descriptor)

    def cut(self, survives: Survives) -> None:
        """Cut the power, and mount the remaining state. Users of the disk must have ended.

        Raises CannotMake if the file system has no such call.
        """
        try:
            descriptor = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("=I", survives.value))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CannotMake(
                f"{self._format.type} cannot be shut down ({error.strerror}); Linux 4.11 can"
            ) from error
        self.restore(self.image)

    def as_after_a_cut(self, survives: Survives) -> int:
        """Return the image that a power cut would leave now; the disk remains in use.

        Blocks that the file system has written to the disk are in the image, its memory is not.
        """
        if survives is Survives.NAMES:
            with own_work(f"commit the journal of {self.point}"):
                self._commit()
        return copied(self.image)

    def restore(self, image: int) -> None:
        """Continue with a copy of an image, mounted at the same path."""
        following = copied(image)
        self.unmount()
        os.close(self.image)
        self.image = following
        self._mount()

    def unmount(self) -> None:
        """Unmount the disk, and all that is mounted on it."""
        umount_below(self.point)
        umount(str(self.point))

    def mount_recorded(self, path: Path, image: int) -> RecordedFile:
        """Mount another image at the same path, with all its writes recorded.

        It is visible as the file `path`. Raises CannotMake.
        """
        self.unmount()
        try:
            file = RecordedFile(image, path)
        except OSError as error:
            raise CannotMake(f"writes cannot be recorded: {error}") from error
        try:
            mount_image(file.opened, self.point, self._format.type, self._format.options)
        except OSError as error:
            file.close()
            raise CannotMake(
                f"no {self._format.type} can be mounted ({error}); run as root, with loop devices"
            ) from error
        return file

    def close(self) -> None:
        """Unmount the disk, and delete its content."""
        self.unmount()
        os.close(self.image)

    def _commit(self) -> None:
        """Commit the journal, which contains all changes of metadata so far, and no data.

        fsync(2) of a file with changed metadata does that.
        """
        descriptor = os.open(self.point / "committed", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        try:
            self._commits += 1
            os.utime(descriptor, (self._commits, self._commits))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _mount(self) -> None:
        try:
            mount_image(self.image, self.point, self._format.type, self._format.options)
        except OSError as error:
            raise CannotMake(
                f"no {self._format.type} can be mounted ({error}); run as root, with loop devices"
            ) from error


def copied(image: int) -> int:
    """Return a copy in memory of a file, without its holes and what else is nothing but zeros.

    xfs fills 64 MiB with them, and an image is kept for each write of a verb.
    """
    with own_work("copy the image of a disk"):
        size = os.fstat(image).st_size
        copy = os.memfd_create("disk")
        os.ftruncate(copy, size)
        end = 0
        while (start := _data_from(image, end)) is not None:
            end = os.lseek(image, start, os.SEEK_HOLE)
            while start < end:
                chunk = os.pread(image, min(_CHUNK, end - start), start)
                if chunk != _ZEROS[: len(chunk)]:
                    os.pwrite(copy, chunk, start)
                start += len(chunk)
    return copy


def digest(image: int) -> bytes:
    """Return a digest of the data of an image."""
    found = hashlib.sha256()
    end = 0
    while (start := _data_from(image, end)) is not None:
        end = os.lseek(image, start, os.SEEK_HOLE)
        found.update(struct.pack("=QQ", start, end))
        while start < end:
            chunk = os.pread(image, min(_CHUNK, end - start), start)
            found.update(chunk)
            start += len(chunk)
    return found.digest()


def _data_from(image: int, offset: int) -> int | None:
    """Return the offset of the next data of a sparse file, None at its end."""
    try:
        return os.lseek(image, offset, os.SEEK_DATA)
    except OSError:
        return None


@cache
def _template(format: str) -> int:
    """Return the image of an empty file system; created once for each process. Raises
    CannotMake.
    """
    made = FORMATS[format]
    try:
        with tempfile.NamedTemporaryFile(prefix="graphdriver-disk-") as image:
            image.truncate(made.size)
            run_program([*made.command, image.name])
            return copied(image.fileno())
    except (OSError, SuiteError) as error:
        raise CannotMake(str(error)) from error
