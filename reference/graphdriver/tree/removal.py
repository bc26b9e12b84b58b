"""Remove trees of any depth, without following symlinks, independent of chattr(1) flags."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from graphdriver.linux.files import RESOLVE_NO_XDEV, clear_immutable, openat2
from graphdriver.linux.mounts import detach, mountinfo
from graphdriver.tree.resolve import has_openat2

__all__ = ["remove_file_tree", "remove_unmounted"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# The number of levels that are removed with an open descriptor for each.
_DEEP = 100

# A name in a directory, and whether it is a directory itself.
_Listed = tuple[str, bool]


def remove_file_tree(dir_fd: int, name: bytes) -> None:
    """Remove `name` and its tree, without following symlinks."""
    if not _unlink(dir_fd, name):
        _remove_tree(dir_fd, name, _enter)


def remove_unmounted(dir_fd: int, name: str, directory: Path) -> None:
    """Remove `name` and its tree; mounts in it are unmounted, and never entered.

    `directory` is the path of `dir_fd`. The mount table, which may be long, is read only if there
    is a mount, and on kernels without RESOLVE_NO_XDEV (before 5.6).
    """
    if has_openat2():
        try:
            _remove_tree(dir_fd, os.fsencode(name), _enter_in_mount)
        except NotADirectoryError:
            if _unlink(dir_fd, os.fsencode(name)):
                return
        except OSError as error:
            # Entering a mount is EXDEV, removing a mount point is EBUSY.
            if error.errno not in (errno.EXDEV, errno.EBUSY):
                raise
        else:
            return
    for point in (*(one.point for one in reversed(mountinfo(directory / name))), directory / name):
        detach(point)
    remove_file_tree(dir_fd, os.fsencode(name))


def _enter(name: bytes, dir_fd: int) -> int:
    return os.open(name, _DIRECTORY, dir_fd=dir_fd)


def _enter_in_mount(name: bytes, dir_fd: int) -> int:
    return openat2(dir_fd, name, _DIRECTORY, RESOLVE_NO_XDEV)


def _remove_tree(dir_fd: int, name: bytes, enter: Callable[[bytes, int], int]) -> None:
    """Empty the directory depth first, with one descriptor for each level.

    Directories below the limit are moved up to the first level and removed later, so that neither
    depth nor PATH_MAX is a limit. Overlay views refuse to move lower directories (EXDEV); there
    descriptors are used for all levels. Empty directories are not opened.
    """
    first = enter(name, dir_fd)
    stack: list[tuple[bytes, int, list[_Listed]]] = [(name, first, [])]
    moved = 1
    try:
        stack[0][2].extend(_list(first))
        while stack:
            base, descriptor, names = stack[-1]
            inner = _remove_flat(descriptor, names)
            if inner is None:
                above = stack[-2][1] if len(stack) > 1 else dir_fd
                if _rmdir(base, above):
                    stack.pop()
                    os.close(descriptor)
                elif grown := _listed_again(descriptor):  # by moved directories, or by others
                    names += grown
                else:
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), base)
                continue
            if len(stack) > _DEEP and moved:
                moved = _move_up(descriptor, inner, first, moved)
                if moved:
                    continue
            entered = enter(inner, descriptor)
            stack.append((inner, entered, []))
            stack[-1][2].extend(_list(entered))
    finally:
        for _, descriptor, _ in stack:
            os.close(descriptor)


def _remove_flat(descriptor: int, names: list[_Listed]) -> bytes | None:
    """Remove files and empty directories from `names`; return the first other directory."""
    while names:
        name, is_directory = names.pop()
        child = os.fsencode(name)
        if (is_directory or not _unlink(descriptor, child)) and not _rmdir(child, descriptor):
            return child
    return None


def _list(descriptor: int) -> Iterator[_Listed]:
    """List an open directory; the types come with the names, so none is unlinked to find out."""
    with os.scandir(descriptor) as entries:
        for entry in entries:
            yield entry.name, entry.is_dir(follow_symlinks=False)


def _listed_again(descriptor: int) -> list[_Listed]:
    """List an open directory that has grown since it was opened.

    btrfs lists the entries at the time when a descriptor was opened or last rewound (Linux 6.5 and
    backports), so that readdir of a growing directory ends.
    """
    fresh = os.open(b".", _DIRECTORY, dir_fd=descriptor)
    try:
        return list(_list(fresh))
    finally:
        os.close(fresh)


def _move_up(dir_fd: int, name: bytes, root: int, number: int) -> int:
    """Move a directory to the first free name from `number` on in `root`; 0 if it cannot be moved.

    A name can be in use, by the layer itself or by an interrupted removal.
    """
    while True:
        number += 1
        try:
            os.rename(name, b".removed-%d" % number, src_dir_fd=dir_fd, dst_dir_fd=root)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return 0
            if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY):
                raise
        else:
            return number


def _unlink(dir_fd: int, name: bytes) -> bool:
    """Unlink `name`; False if it is a directory, which is kept."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        return False
    except PermissionError:
        # POSIX allows EPERM for unlink(2) of a directory; an immutable file is EPERM, too.
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return False
        if not _made_mutable(dir_fd, name if stat.S_ISREG(found.st_mode) else b"."):
            raise
        os.unlink(name, dir_fd=dir_fd)
    return True


def _rmdir(name: bytes, dir_fd: int) -> bool:
    """Remove an empty directory; False if it is not empty."""
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except PermissionError:
        if not _made_mutable(dir_fd, name):
            raise
        return _rmdir(name, dir_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _made_mutable(dir_fd: int, name: bytes) -> bool:
    """Clear chattr(1) flags of `name` or its directory; False if there were none."""
    cleared = False
    for one in (b".", name):
        with suppress(OSError):  # a file system without such flags
            descriptor = os.open(one, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            try:
                cleared = clear_immutable(descriptor) or cleared
            finally:
                os.close(descriptor)
    return cleared
