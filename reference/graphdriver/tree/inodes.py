"""Make and remove nodes relative to a directory descriptor, with all their attributes.

The order is the kernel's: chown(2) clears setuid bits and file capabilities, so owner first, then
mode, then attributes; times last, because everything else touches them.
"""

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from graphdriver.archive.entry import Entry, Kind, exported_xattrs, is_exported
from graphdriver.archive.source import write_all
from graphdriver.errors import BadArchive
from graphdriver.linux.files import at, clear_immutable

__all__ = [
    "Attributes",
    "attributes_of",
    "copy_node",
    "make_node",
    "make_small_file",
    "remove_node",
    "set_attributes",
]

_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Levels of a tree that are removed with a descriptor open for each.
_DEEP = 100
_DEVICES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


class Attributes(NamedTuple):
    """What a node carries besides its content; owners as on disk, `mtime` in nanoseconds."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Mapping[bytes, bytes]


def attributes_of(path: bytes, found: os.stat_result) -> Attributes:
    """Return the attributes of an existing node, for a copy-up."""
    mode = stat.S_IMODE(found.st_mode)
    return Attributes(mode, found.st_uid, found.st_gid, found.st_mtime_ns, exported_xattrs(path))


def make_small_file(
    dir_fd: int, name: bytes, attributes: Attributes, read: Callable[[], bytes]
) -> None:
    """Make a file of a few KiB without attributes, as most of a layer's are.

    It is made with its mode and looked at: chown(2) and chmod(2) each change the inode once more,
    which costs a journalling file system more than anything else here.
    """
    mode, uid, gid, mtime, _ = attributes
    descriptor = os.open(name, _CREATE, mode & 0o777, dir_fd=dir_fd)
    try:
        if data := read():
            write_all(descriptor, data)
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (uid, gid):
            os.fchown(descriptor, uid, gid)
        # Less by the umask, or by the parent's default ACL.
        if made.st_mode != stat.S_IFREG | mode:
            os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime, mtime))
    finally:
        os.close(descriptor)


def make_node(
    entry: Entry,
    dir_fd: int,
    name: bytes,
    attributes: Attributes,
    fill: Callable[[int], None],
) -> None:
    """Make what `entry` describes as `name`; `fill` writes a file's data to a descriptor.

    A directory's times are for the caller to set, after its children.
    """
    if entry.kind is Kind.FILE:
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
        try:
            fill(descriptor)
            _set_by_descriptor(descriptor, attributes)
            os.utime(descriptor, ns=(attributes.mtime, attributes.mtime))
        finally:
            os.close(descriptor)
    elif entry.kind is Kind.SYMLINK:
        os.symlink(entry.linkname, name, dir_fd=dir_fd)
        _set_by_name(dir_fd, name, attributes, is_symlink=True)
    elif entry.kind is Kind.DIRECTORY:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        set_attributes(dir_fd, name, attributes)
    else:
        device = os.makedev(entry.major, entry.minor)
        if entry.kind is Kind.CHARACTER and device == 0:
            raise BadArchive(
                f"{entry.name!r} is a character device 0:0, which overlayfs takes for a deletion"
            )
        os.mknod(name, _DEVICES[entry.kind] | 0o600, device, dir_fd=dir_fd)
        _set_by_name(dir_fd, name, attributes, is_symlink=False)


def set_attributes(dir_fd: int, name: bytes, attributes: Attributes) -> None:
    """Set owner, mode and attributes of the directory `name`; what it had and should not goes."""
    descriptor = os.open(
        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd
    )
    try:
        _drop_xattrs(descriptor, attributes.xattrs)
        _set_by_descriptor(descriptor, attributes)
    finally:
        os.close(descriptor)


def copy_node(source: bytes, found: os.stat_result, dir_fd: int, name: bytes) -> None:
    """Copy the node at `source`, which is no directory, as overlay's copy-up would."""
    mode = found.st_mode
    kind = next((kind for kind, bits in _DEVICES.items() if stat.S_IFMT(mode) == bits), Kind.FILE)
    link = b""
    if stat.S_ISLNK(mode):
        kind, link = Kind.SYMLINK, os.readlink(source)
    device = found.st_rdev
    entry = Entry(name, kind, linkname=link, major=os.major(device), minor=os.minor(device))

    def fill(target: int) -> None:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            position = 0
            while count := os.sendfile(target, descriptor, position, 1 << 30):
                position += count
        finally:
            os.close(descriptor)

    make_node(entry, dir_fd, name, attributes_of(source, found), fill)


def remove_node(dir_fd: int, name: bytes) -> None:
    """Remove `name` and all below it, following nothing."""
    if not _unlink(dir_fd, name):
        _remove_tree(dir_fd, name)


def _remove_tree(dir_fd: int, name: bytes) -> None:
    """Empty the directory depth first, holding one descriptor for each level.

    What lies deeper than that is worth is moved up to the first level, where its turn comes later;
    so neither depth nor PATH_MAX sets a limit. Overlay views refuse to move lower directories
    (EXDEV); there the descriptors have to do.
    """
    stack = [(name, os.open(name, _DIRECTORY, dir_fd=dir_fd))]
    moved = 1
    try:
        while stack:
            base, descriptor = stack[-1]
            children = map(os.fsencode, _listed(descriptor, len(stack) == 1 and moved > 1))
            inner = next((child for child in children if not _unlink(descriptor, child)), None)
            if inner is None:
                stack.pop()
                os.close(descriptor)
                _rmdir(base, stack[-1][1] if stack else dir_fd)
                continue
            if len(stack) > _DEEP and moved:
                moved = _move_up(descriptor, inner, stack[0][1], moved)
                if moved:
                    continue
            stack.append((inner, os.open(inner, _DIRECTORY, dir_fd=descriptor)))
    finally:
        for _, descriptor in stack:
            os.close(descriptor)


def _listed(descriptor: int, has_grown: bool) -> list[str]:
    """List an open directory; one that has grown since it was opened is opened anew.

    btrfs lists what was there when a descriptor was opened or last rewound (Linux 6.5 and what it
    was ported back to), which keeps readdir of a growing directory from never ending.
    """
    if not has_grown:
        return os.listdir(descriptor)
    fresh = os.open(b".", _DIRECTORY, dir_fd=descriptor)
    try:
        return os.listdir(fresh)
    finally:
        os.close(fresh)


def _move_up(dir_fd: int, name: bytes, root: int, number: int) -> int:
    """Move a directory to the first free name from `number` on in `root`; 0 where it has to stay.

    A name can be taken, by the layer itself or by a removal that was cut short.
    """
    while True:
        number += 1
        try:
            os.rename(name, b".removed-%d" % number, src_dir_fd=dir_fd, dst_dir_fd=root)
        except OSError as error:
            if error.errno == 18:  # EXDEV
                return 0
            if error.errno not in (17, 20, 39):  # EEXIST, ENOTDIR, ENOTEMPTY
                raise
        else:
            return number


def _unlink(dir_fd: int, name: bytes) -> bool:
    """Unlink `name`; False when it is a directory, which stays."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        return False
    except PermissionError:
        # POSIX lets unlink(2) of a directory be EPERM; an immutable file is EPERM, too.
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return False
        if not _made_mutable(dir_fd, name if stat.S_ISREG(found.st_mode) else b"."):
            raise
        os.unlink(name, dir_fd=dir_fd)
    return True


def _rmdir(name: bytes, dir_fd: int) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except PermissionError:
        if not _made_mutable(dir_fd, name):
            raise
        os.rmdir(name, dir_fd=dir_fd)


def _made_mutable(dir_fd: int, name: bytes) -> bool:
    """Clear what chattr(1) set on `name` or its directory; False when that was not the matter."""
    cleared = False
    for one in (b".", name):
        with suppress(OSError):  # a file system without such flags
            descriptor = os.open(one, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            try:
                cleared = clear_immutable(descriptor) or cleared
            finally:
                os.close(descriptor)
    return cleared


def _set_by_descriptor(descriptor: int, attributes: Attributes) -> None:
    os.fchown(descriptor, attributes.uid, attributes.gid)
    os.fchmod(descriptor, attributes.mode)
    for key, value in attributes.xattrs.items():
        if is_exported(os.fsdecode(key)):
            os.setxattr(descriptor, key, value)


def _set_by_name(dir_fd: int, name: bytes, attributes: Attributes, *, is_symlink: bool) -> None:
    os.chown(name, attributes.uid, attributes.gid, dir_fd=dir_fd, follow_symlinks=False)
    if not is_symlink:
        # fchmodat(2) follows symlinks before 6.6; the name was made by us a moment ago, but only
        # O_PATH makes sure that it still is the same.
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", attributes.mode)
        finally:
            os.close(descriptor)
    for key, value in attributes.xattrs.items():
        if is_exported(os.fsdecode(key)):
            os.setxattr(at(dir_fd, name), key, value, follow_symlinks=False)
    os.utime(name, ns=(attributes.mtime, attributes.mtime), dir_fd=dir_fd, follow_symlinks=False)


def _drop_xattrs(descriptor: int, wanted: Mapping[bytes, bytes]) -> None:
    for key in exported_xattrs(descriptor):
        if key not in wanted:
            os.removexattr(descriptor, key)
