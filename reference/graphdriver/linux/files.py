"""Calls on files that `os` does not offer: exchange of names, clones, O_PATH tricks."""

import ctypes
from fcntl import ioctl

from graphdriver.linux.libc import call

__all__ = ["RENAME_EXCHANGE", "RENAME_NOREPLACE", "at", "ficlone", "getdents64", "renameat2"]

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# include/uapi/linux/fs.h: _IOW(0x94, 9, int)
_FICLONE = 0x40049409


def renameat2(source: bytes, target: bytes, flags: int, dir_fd: int = -100) -> None:
    """Rename `source` to `target`, relative to `dir_fd`; RENAME_EXCHANGE swaps them at once."""
    call("renameat2", dir_fd, source, dir_fd, target, ctypes.c_uint(flags), path=target)


def ficlone(target: int, source: int) -> None:
    """Make the file `target` share the blocks of `source`; OSError where the file system cannot."""
    ioctl(target, _FICLONE, source)


def at(dir_fd: int, name: bytes) -> bytes:
    """Return a path for calls that take no descriptor (lsetxattr, llistxattr).

    The directory is pinned by its descriptor, so that nobody can swap a part of the way; the last
    component is for the call to not follow.
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
            length = int.from_bytes(buffer.raw[at_byte + 16 : at_byte + 18], "little")
            name = buffer.raw[at_byte + 19 : at_byte + length].split(b"\0", 1)[0]
            entries.append((name, buffer.raw[at_byte + 18]))
            at_byte += length
    return [entry for entry in entries if entry[0] not in (b".", b"..")]
