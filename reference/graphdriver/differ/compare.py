"""Say whether two nodes hold the same, whatever their inodes.

The kernel's copy-up leaves a whole copy behind for a mere open for writing; such a copy is no
change. And an edit can keep size and mtime (moby #51518, #21555), so equal metadata proves nothing:
then the bytes are compared.
"""

import errno
import os
import stat

from graphdriver.contract import ChangeKind
from graphdriver.tree.xattrs import exported_xattrs

__all__ = ["report", "same_directory", "same_node"]

_PIECE = 1 << 18


def same_node(new: bytes, new_stat: os.stat_result, old: bytes, old_stat: os.stat_result) -> bool:
    """Say whether the non-directories `new` and `old` are the same in an archive's eyes."""
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
    """Say whether two directories have the same mode, owner and attributes.

    Their times and sizes change with their children and say nothing of their own.
    """
    return (
        new_stat.st_mode == old_stat.st_mode
        and new_stat.st_uid == old_stat.st_uid
        and new_stat.st_gid == old_stat.st_gid
        and _same_xattrs(new, old)
    )


def report(kinds: dict[bytes, ChangeKind], name: bytes, kind: ChangeKind) -> None:
    """Note a change, and that its parents have changed with it."""
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
    """Compare where either has data: two files of 1 TiB of nothing are equal at once."""
    position = 0
    while position < size:
        position = min(_next_data(new_fd, position, size), _next_data(old_fd, position, size))
        piece = os.pread(new_fd, _PIECE, position)
        if piece != os.pread(old_fd, _PIECE, position):
            return False
        if not piece:
            break
        position += len(piece)
    return True


def _next_data(descriptor: int, position: int, size: int) -> int:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole follows
            return size
        raise
