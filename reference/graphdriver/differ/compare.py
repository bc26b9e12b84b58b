"""Compare the content of two inodes.

The kernel's copy-up creates a complete copy when a file is only opened for writing; such a copy is
not a change. And an edit can keep size and mtime (moby #51518, #21555), so with equal metadata the
bytes are compared.
"""

import errno
import os
import stat

from graphdriver.contract import ChangeKind
from graphdriver.tree.xattrs import exported_xattrs

__all__ = ["report", "same_directory", "same_file"]

_CHUNK_SIZE = 1 << 18


def same_file(new: bytes, new_stat: os.stat_result, old: bytes, old_stat: os.stat_result) -> bool:
    """Return whether the non-directories `new` and `old` are equal in an archive."""
    if (
        new_stat.st_mode != old_stat.st_mode
        or new_stat.st_uid != old_stat.st_uid
        or new_stat.st_gid != old_stat.st_gid
        or new_stat.st_size != old_stat.st_size
        or new_stat.st_mtime_ns // 1_000_000_000 != old_stat.st_mtime_ns // 1_000_000_000
        or new_stat.st_rdev != old_stat.st_rdev
    ):
        return False
    if (new_stat.st_dev, new_stat.st_ino) == (old_stat.st_dev, old_stat.st_ino):
        return True
    if stat.S_ISLNK(new_stat.st_mode):
        return os.readlink(new) == os.readlink(old) and _same_xattrs(new, old)
    if not _same_xattrs(new, old):
        return False
    return not stat.S_ISREG(new_stat.st_mode) or _same_bytes(new, old, new_stat.st_size)


def same_directory(
    new: bytes, new_stat: os.stat_result, old: bytes, old_stat: os.stat_result
) -> bool:
    """Return whether two directories have the same mode, owner and xattrs.

    Their times and sizes change with their entries and are not part of the comparison.
    """
    return (
        new_stat.st_mode == old_stat.st_mode
        and new_stat.st_uid == old_stat.st_uid
        and new_stat.st_gid == old_stat.st_gid
        and _same_xattrs(new, old)
    )


def report(kinds: dict[bytes, ChangeKind], name: bytes, kind: ChangeKind) -> None:
    """Record a change, and that its parent directories have changed."""
    kinds[name] = kind
    above = name.rpartition(b"/")[0]
    while above and above not in kinds:
        kinds[above] = ChangeKind.MODIFY
        above = above.rpartition(b"/")[0]


def _same_xattrs(new: bytes, old: bytes) -> bool:
    return exported_xattrs(new) == exported_xattrs(old)


def _same_bytes(new: bytes, old: bytes, size: int) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    new_fd = os.open(new, flags)
    try:
        old_fd = os.open(old, flags)
        try:
            return _same_data(new_fd, old_fd, size)
        finally:
            os.close(old_fd)
    finally:
        os.close(new_fd)


def _same_data(new_fd: int, old_fd: int, size: int) -> bool:
    """Compare only segments with data: two files with 1 TiB holes are compared immediately."""
    position = 0
    while position < size:
        position = min(_next_data(new_fd, position, size), _next_data(old_fd, position, size))
        chunk = os.pread(new_fd, _CHUNK_SIZE, position)
        if chunk != os.pread(old_fd, _CHUNK_SIZE, position):
            return False
        if not chunk:
            break
        position += len(chunk)
    return True


def _next_data(descriptor: int, position: int, size: int) -> int:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # the rest is a hole
            return size
        raise
