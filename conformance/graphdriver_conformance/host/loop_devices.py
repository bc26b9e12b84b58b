"""Files as block devices (drivers/block/loop.c), without mount(8) and losetup(8).

The kernel frees a device when it is no longer open or mounted.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphdriver_conformance.host.syscalls import mount

__all__ = ["loop_device", "mount_image"]

# include/uapi/linux/loop.h
_SET_FD, _SET_STATUS64, _GET_FREE = 0x4C00, 0x4C04, 0x4C82
_AUTOCLEAR = 4
_INFO = struct.Struct("=5Q4I176x")  # loop_info64; the ninth value is lo_flags
_MOST_TRIES = 100


@contextmanager
def loop_device(image: int) -> Iterator[str]:
    """Attach the file behind a descriptor to a device for the block. Raises OSError.

    A mount of the device that is made in the block keeps it after the block.
    """
    path, descriptor = _attach(image)
    try:
        # Freed at the last close, also if this process is killed before it mounts.
        fcntl.ioctl(descriptor, _SET_STATUS64, _flags(_AUTOCLEAR))
        yield path
    finally:
        os.close(descriptor)


def mount_image(image: int, point: Path, type: str, options: str) -> None:
    """Mount the file system in a file. Raises OSError."""
    with loop_device(image) as device:
        mount(device, point, type, 0, options)


def _attach(image: int) -> tuple[str, int]:
    """Return a device that is attached to the file, and its descriptor."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_MOST_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _SET_FD, image)
            except OSError as error:
                os.close(descriptor)
                if error.errno != errno.EBUSY:  # another process has attached the device meanwhile
                    raise
            else:
                return path, descriptor
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "other processes take every free loop device")


def _flags(flags: int) -> bytes:
    return _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags)
