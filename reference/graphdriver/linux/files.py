"""Calls on files that `os` does not offer: exchange of names, clones, O_PATH tricks."""

import ctypes
import os
from fcntl import ioctl

from graphdriver.linux.libc import call

__all__ = ["RENAME_EXCHANGE", "at", "ficlone", "getxattrs", "renameat2", "syncfs"]

RENAME_EXCHANGE = 2

# include/uapi/linux/fs.h: _IOW(0x94, 9, int)
_FICLONE = 0x40049409


def renameat2(source: bytes, target: bytes, flags: int, dir_fd: int = -100) -> None:
    """Rename `source` to `target`, relative to `dir_fd`; RENAME_EXCHANGE swaps them at once."""
    call("renameat2", dir_fd, source, dir_fd, target, ctypes.c_uint(flags), path=target)


def ficlone(target: int, source: int) -> None:
    """Make the file `target` share the blocks of `source`; OSError where the file system cannot."""
    ioctl(target, _FICLONE, source)


def syncfs(descriptor: int) -> None:
    """Write the whole file system of `descriptor` to its medium."""
    call("syncfs", descriptor)


def at(dir_fd: int, name: bytes) -> bytes:
    """Return a path for calls that take no descriptor (lsetxattr, llistxattr).

    The directory is pinned by its descriptor, so that nobody can swap a part of the way; the last
    component is for the call to not follow.
    """
    return b"/proc/self/fd/%d/%b" % (dir_fd, name)


def getxattrs(path: bytes | int, names: list[str]) -> dict[bytes, bytes]:
    """Read the attributes `names` of `path`, not following a symlink."""
    follow = isinstance(path, int)
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=follow) for name in names}
