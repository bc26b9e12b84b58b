"""File system calls that `os` lacks: exchange of names, clones, lookups confined to a root."""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl

from graphdriver.linux.architecture import ioctl_read, ioctl_write, syscall_number
from graphdriver.linux.libc import AT_FDCWD, call, syscall

__all__ = [
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_XDEV",
    "at",
    "cleaning_up",
    "clear_immutable",
    "ficlone",
    "getdents64",
    "has_openat2",
    "keep_reserve",
    "openat2",
    "renameat2",
    "syncfs",
]

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_IN_ROOT = 0x10
_OPEN_HOW = struct.Struct("=QQQ")
_OPENAT2 = syscall_number(437)  # since 5.6

# include/uapi/linux/fs.h
_INT, _LONG = struct.Struct("i"), struct.calcsize("l")
_FICLONE = ioctl_write(0x94, 9, _INT.size)
# Declared with a long, they read and write an int. chattr(1) calls these flags i and a.
_GETFLAGS, _SETFLAGS = ioctl_read("f", 1, _LONG), ioctl_write("f", 2, _LONG)
_IMMUTABLE, _APPEND = 0x10, 0x20


_RESERVE = 3
_reserve: list[int] = []


def keep_reserve() -> None:
    """Keep descriptors back for cleaning up. Raises OSError where there are not as many."""
    while len(_reserve) < _RESERVE:
        _reserve.append(os.open("/", os.O_PATH | os.O_CLOEXEC))


def cleaning_up(work: Callable[[], None]) -> None:
    """Do `work`; once more with the reserve when the process has used all its other descriptors.

    Raises what `work` raises.
    """
    try:
        work()
    except OSError as error:
        if error.errno != errno.EMFILE or not _reserve:
            raise
        while _reserve:
            os.close(_reserve.pop())
        try:
            work()
        finally:
            with suppress(OSError):
                keep_reserve()


def renameat2(source: bytes, target: bytes, flags: int, dir_fd: int = AT_FDCWD) -> None:
    """Rename `source` to `target`, relative to `dir_fd`; RENAME_EXCHANGE exchanges them
    atomically.
    """
    call("renameat2", dir_fd, source, dir_fd, target, ctypes.c_uint(flags), path=target)


def openat2(dir_fd: int, path: bytes, flags: int, resolve: int) -> int:
    """Open `path`; RESOLVE_IN_ROOT makes `dir_fd` the root of all symlinks in it.

    RESOLVE_NO_XDEV fails with EXDEV at a mount, also a bind mount of the same file system.

    A process that replaces a directory by a symlink cannot redirect it outside (CVE-2018-15664).
    Raises OSError; EAGAIN means that such a race occurred and the call can be repeated.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    size = ctypes.c_size_t(len(how))
    return syscall("openat2", _OPENAT2, dir_fd, path, how, size, path=path)


def has_openat2() -> bool:
    """Return whether openat2(2) exists: not before 5.6, nor if an old seccomp profile blocks it."""
    try:
        os.close(openat2(AT_FDCWD, b"/", os.O_PATH, RESOLVE_IN_ROOT))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def clear_immutable(descriptor: int) -> bool:
    """Clear the flags that prevent even root from removing a file; False if none was set."""
    flags: int = _INT.unpack_from(ioctl(descriptor, _GETFLAGS, bytes(_LONG)))[0]
    kept = flags & ~(_IMMUTABLE | _APPEND)
    if kept != flags:
        ioctl(descriptor, _SETFLAGS, _INT.pack(kept).ljust(_LONG, b"\0"))
    return kept != flags


def ficlone(target: int, source: int) -> None:
    """Let the file `target` share the blocks of `source`; OSError if the file system cannot."""
    ioctl(target, _FICLONE, source)


def syncfs(descriptor: int) -> None:
    """Sync a file system; `descriptor` is open on any file of it."""
    call("syncfs", descriptor)


def at(dir_fd: int, name: bytes) -> bytes:
    """Return a path for calls that take no descriptor (lsetxattr, llistxattr).

    The directory is fixed by its descriptor, so that no other process can replace a component; the
    last component must not be followed by the call.
    """
    return b"/proc/self/fd/%d/%b" % (dir_fd, name)


def getdents64(descriptor: int) -> list[tuple[bytes, int]]:
    """Return names and d_types of an open directory; type 0 means that the file system has none."""
    buffer = ctypes.create_string_buffer(1 << 15)
    entries: list[tuple[bytes, int]] = []
    while size := call("getdents64", descriptor, buffer, ctypes.c_size_t(len(buffer))):
        at_byte = 0
        while at_byte < size:
            # struct linux_dirent64: d_ino, d_off (8 each), d_reclen (2), d_type (1), d_name
            length = int.from_bytes(buffer.raw[at_byte + 16 : at_byte + 18], sys.byteorder)
            name = buffer.raw[at_byte + 19 : at_byte + length].split(b"\0", 1)[0]
            entries.append((name, buffer.raw[at_byte + 18]))
            at_byte += length
    return [entry for entry in entries if entry[0] not in (b".", b"..")]
