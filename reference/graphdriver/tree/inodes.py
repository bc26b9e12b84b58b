"""Create inodes relative to a directory descriptor, with all their attributes.

The order is required by the kernel: chown(2) clears setuid bits and file capabilities, so owner
first, then mode, then xattrs; times last, because all other calls change them.
"""

import os
import stat
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from graphdriver.linux.files import at
from graphdriver.tree.data import copy_data, write_all
from graphdriver.tree.xattrs import DEFAULT_ACL, NO_XATTRS, exported_xattrs, is_exported

__all__ = [
    "Attributes",
    "attributes_of",
    "copy_up",
    "drop_acls",
    "make_file",
    "make_small_file",
    "make_special",
    "make_symlink",
    "set_attributes",
]

_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Attributes(NamedTuple):
    """The metadata of an inode; owners as on disk, `mtime` in nanoseconds."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Mapping[bytes, bytes]


def attributes_of(path: bytes, found: os.stat_result) -> Attributes:
    """Return the attributes of an existing inode, for a copy-up."""
    mode = stat.S_IMODE(found.st_mode)
    return Attributes(mode, found.st_uid, found.st_gid, found.st_mtime_ns, exported_xattrs(path))


def make_small_file(
    dir_fd: int,
    name: bytes,
    attributes: Attributes,
    read: Callable[[], bytes],
    drop_acl: bool = False,
) -> None:
    """Create a file of a few KiB without xattrs, as most files of a layer are.

    It is created with its mode and checked with fstat: chown(2) and chmod(2) each change the inode
    once more, which is the most expensive operation on a journalling file system. `drop_acl`
    removes the ACL that it inherits in a directory with a default ACL.
    """
    mode, uid, gid, mtime, _ = attributes
    descriptor = os.open(name, _CREATE, mode & 0o777, dir_fd=dir_fd)
    try:
        if data := read():
            write_all(descriptor, data)
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (uid, gid):
            os.fchown(descriptor, uid, gid)
        if drop_acl:
            _drop_xattrs(descriptor, NO_XATTRS)
        # Reduced by the umask, or by the parent's default ACL.
        if drop_acl or made.st_mode != stat.S_IFREG | mode:
            os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime, mtime))
    finally:
        os.close(descriptor)


def make_file(
    dir_fd: int,
    name: bytes,
    attributes: Attributes,
    fill: Callable[[int], None],
    drop_acl: bool = False,
) -> None:
    """Create a file; `fill` writes its data, `drop_acl` removes an inherited ACL."""
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
    try:
        fill(descriptor)
        if drop_acl:
            _drop_xattrs(descriptor, attributes.xattrs)
        _set_by_descriptor(descriptor, stat.S_IFREG, attributes)
        os.utime(descriptor, ns=(attributes.mtime, attributes.mtime))
    finally:
        os.close(descriptor)


def make_symlink(dir_fd: int, name: bytes, target: bytes, attributes: Attributes) -> None:
    """Create a symlink to `target`."""
    os.symlink(target, name, dir_fd=dir_fd)
    _set_by_name(dir_fd, name, stat.S_IFLNK, attributes)


def make_special(
    dir_fd: int,
    name: bytes,
    kind: int,
    device: int,
    attributes: Attributes,
    drop_acl: bool = False,
) -> None:
    """Create a device or a fifo; `kind` is its S_IFMT, `drop_acl` removes an inherited ACL."""
    os.mknod(name, kind | 0o600, device, dir_fd=dir_fd)
    if drop_acl:
        _drop_xattrs(at(dir_fd, name), attributes.xattrs)
    _set_by_name(dir_fd, name, kind, attributes)


def set_attributes(dir_fd: int, name: bytes, attributes: Attributes) -> None:
    """Set owner, mode and xattrs of the directory `name`; remove its other xattrs."""
    descriptor = os.open(
        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd
    )
    try:
        _drop_xattrs(descriptor, attributes.xattrs)
        _set_by_descriptor(descriptor, stat.S_IFDIR, attributes)
    finally:
        os.close(descriptor)


def copy_up(source: bytes, found: os.stat_result, dir_fd: int, name: bytes) -> None:
    """Copy the file at `source`, which is not a directory, as overlayfs does in a copy-up."""
    attributes = attributes_of(source, found)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        make_symlink(dir_fd, name, os.readlink(source), attributes)
    elif kind == stat.S_IFREG:
        fill = partial(_copy_from, source, found.st_size)
        make_file(dir_fd, name, attributes, fill, drop_acl=True)
    else:
        make_special(dir_fd, name, kind, found.st_rdev, attributes, drop_acl=True)


def _copy_from(source: bytes, size: int, target: int) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy_data(descriptor, target, size)
    finally:
        os.close(descriptor)


def _set_by_descriptor(descriptor: int, kind: int, attributes: Attributes) -> None:
    os.fchown(descriptor, attributes.uid, attributes.gid)
    os.fchmod(descriptor, attributes.mode)
    for key, value in attributes.xattrs.items():
        if _can_have(kind, key):
            _set_xattr(descriptor, key, value)


def _set_by_name(dir_fd: int, name: bytes, kind: int, attributes: Attributes) -> None:
    os.chown(name, attributes.uid, attributes.gid, dir_fd=dir_fd, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        # fchmodat(2) follows symlinks before 6.6; the name was created just before, but only O_PATH
        # guarantees that it is still the same inode.
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", attributes.mode)
        finally:
            os.close(descriptor)
    for key, value in attributes.xattrs.items():
        if _can_have(kind, key):
            _set_xattr(at(dir_fd, name), key, value)
    os.utime(name, ns=(attributes.mtime, attributes.mtime), dir_fd=dir_fd, follow_symlinks=False)


def _set_xattr(path: bytes | int, key: bytes, value: bytes) -> None:
    """Set an attribute of `path` (not followed) or a descriptor. Raises OSError that names it."""
    try:
        os.setxattr(path, key, value, follow_symlinks=isinstance(path, int))
    except OSError as error:
        shown = f"{error.strerror}: attribute {os.fsdecode(key)} of {len(value)} bytes"
        raise OSError(error.errno, shown) from None


def _can_have(kind: int, key: bytes) -> bool:
    """Return whether the xattr belongs to a layer, and the inode type supports it; xattr(7).

    Unsupported ones are omitted, as in Docker.
    """
    if not is_exported(os.fsdecode(key)):
        return False
    if key == DEFAULT_ACL:
        return kind == stat.S_IFDIR
    if key.startswith(b"user."):
        return kind in (stat.S_IFREG, stat.S_IFDIR)
    return kind != stat.S_IFLNK or not key.startswith(b"system.")


def _drop_xattrs(path: bytes | int, wanted: Mapping[bytes, bytes]) -> None:
    """Remove the xattrs of `path` (not followed) or a descriptor that are not `wanted`."""
    for key in exported_xattrs(path):
        if key not in wanted:
            os.removexattr(path, key, follow_symlinks=isinstance(path, int))


def drop_acls(directory: int) -> None:
    """Remove the ACLs that a new directory has inherited, so that new files in it have none."""
    for key in exported_xattrs(directory):
        os.removexattr(directory, key)
