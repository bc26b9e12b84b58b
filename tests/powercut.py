"""Power cuts: an ext4 on a loop device that loses its unwritten data, and is mounted again."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphdriver.linux.architecture import ioctl_read

__all__ = ["CUTS", "cut_power", "end_power", "mounted_disk", "start_again"]

# include/uapi/linux/fs.h, FS_IOC_SHUTDOWN: no more of the cached data is written to the disk.
_SHUTDOWN = ioctl_read("X", 125, 4)

CUTS = [1, 2]
"""Flags: the journal is written first, so that names survive but data does not; only synced data
survives."""


@contextmanager
def mounted_disk(directory: Path) -> Iterator[Path]:
    """Mount an ext4 in `directory` that writes no data by itself during a test."""
    image, mounted = directory / "image", directory / "disk"
    with image.open("wb") as made:
        made.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mounted.mkdir()
    _mount(mounted)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-R", "-l", mounted], check=True)


def cut_power(disk: Path, flag: int) -> None:
    """Cut the power, and mount the disk again."""
    end_power(disk, flag)
    start_again(disk)


def end_power(disk: Path, flag: int) -> None:
    """Write no more data to the disk: every call on it fails from now on."""
    descriptor = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("i", flag))
    finally:
        os.close(descriptor)


def start_again(disk: Path) -> None:
    """Mount the disk as it is; no process may have files on it open."""
    subprocess.run(["umount", "-R", disk], check=True)
    _mount(disk)


def _mount(disk: Path) -> None:
    subprocess.run(["mount", "-o", "loop,commit=300", disk.parent / "image", disk], check=True)
