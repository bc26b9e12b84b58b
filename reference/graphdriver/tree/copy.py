"""Copy a tree exactly: hard links, holes, owners, attributes and times.

Blocks are shared if the file system supports it (FICLONE), otherwise copied inside the kernel.
"""

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path

from graphdriver.linux.files import at
from graphdriver.overlayfs.format import PREFIXES
from graphdriver.tree.data import copy_data
from graphdriver.tree.descent import Descent
from graphdriver.tree.inodes import drop_acls
from graphdriver.tree.resolve import open_below
from graphdriver.tree.xattrs import listxattr

__all__ = ["copy_tree"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# The xattrs that change the content of an upper directory. origin and uuid refer to the old inodes.
_OVERLAY_XATTRS = (".opaque", ".whiteout", ".redirect", ".metacopy")


def copy_tree(
    source: Path, target: Path, *, with_overlay_xattrs: bool = False, share: bool = False
) -> None:
    """Copy the directory `source` to `target`, which must not exist.

    `with_overlay_xattrs` keeps the overlay xattrs of an upper. `share` creates hard links of all
    files except directories, for a copy in which files are replaced and never written to.
    """
    target.mkdir(0o700)
    copier = _Copier(with_overlay_xattrs, share)
    with ExitStack() as opened:
        new = os.open(target, _DIRECTORY)
        opened.callback(os.close, new)
        old = os.open(source, _DIRECTORY)
        opened.callback(os.close, old)
        drop_acls(new)
        copier.directory(old, new)


class _Copier:
    """Copies one tree; remembers the copy of each inode."""

    def __init__(self, with_overlay_xattrs: bool, share: bool) -> None:
        self._with_overlay_xattrs = with_overlay_xattrs
        self._share = share
        self._links: dict[tuple[int, int], bytes] = {}
        self._root = -1

    def directory(self, old: int, new: int) -> None:
        """Copy the entries and the attributes of the open directory `old` to `new`."""
        self._root = new
        source, target = Descent(old), Descent(new)
        stack = [(b"", os.listdir(old))]
        try:
            while stack:
                path, names = stack[-1]
                if names:
                    base = os.fsencode(names.pop())
                    if self._child(source.here.fd, target.here.fd, path, base):
                        inner = source.enter(base)
                        target.enter(base)
                        stack.append((path + base + b"/", os.listdir(inner.fd)))
                    continue
                stack.pop()
                self._finish(source.here.fd, target.here.fd)
                if stack:
                    source.leave()
                    target.leave()
        finally:
            source.close()
            target.close()

    def _child(self, old: int, new: int, path: bytes, base: bytes) -> bool:
        """Copy one file; True for a directory, which is created empty."""
        found = os.stat(base, dir_fd=old, follow_symlinks=False)
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(base, 0o700, dir_fd=new)
            return True
        if self._share and _is_shared(old, new, base):
            return False
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in self._links:
            self._link(self._links[key], new, base)
            return False
        if stat.S_ISREG(mode):
            self._file(old, new, base, found)
        else:
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(base, dir_fd=old), base, dir_fd=new)
            else:
                # mknod(2) creates sockets too; mkfifo(3) of a socket fails with EINVAL, as in
                # Docker's vfs with a socket in the parent.
                os.mknod(base, stat.S_IFMT(mode) | 0o600, found.st_rdev, dir_fd=new)
            self._attributes(old, new, base, found)
        if found.st_nlink > 1:
            self._links[key] = path + base
        return False

    def _link(self, first: bytes, new: int, base: bytes) -> None:
        """Link to the copy at `first`, a path of any length from the root."""
        directory, _, name = first.rpartition(b"/")
        opened = open_below(self._root, directory)
        try:
            os.link(name, base, src_dir_fd=opened, dst_dir_fd=new, follow_symlinks=False)
        finally:
            os.close(opened)

    def _file(self, old: int, new: int, base: bytes, found: os.stat_result) -> None:
        source = os.open(
            base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=old
        )
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            target = os.open(base, flags, 0o600, dir_fd=new)
            try:
                copy_data(source, target, found.st_size)
                self._set(source, target, found)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _finish(self, old: int, new: int) -> None:
        self._set(old, new, os.fstat(old))

    def _set(self, old: int, new: int, found: os.stat_result) -> None:
        """Set owner, mode, attributes, times: chown(2) clears setuid bits and capabilities."""
        os.fchown(new, found.st_uid, found.st_gid)
        os.fchmod(new, stat.S_IMODE(found.st_mode))
        for name in listxattr(old):
            if self._is_copied(name):
                os.setxattr(new, name, os.getxattr(old, name))
        os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))

    def _attributes(self, old: int, new: int, base: bytes, found: os.stat_result) -> None:
        os.chown(base, found.st_uid, found.st_gid, dir_fd=new, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            descriptor = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=new)
            try:
                os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IMODE(found.st_mode))
            finally:
                os.close(descriptor)
        for name in listxattr(at(old, base)):
            if self._is_copied(name):
                value = os.getxattr(at(old, base), name, follow_symlinks=False)
                os.setxattr(at(new, base), name, value, follow_symlinks=False)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(base, ns=times, dir_fd=new, follow_symlinks=False)

    def _is_copied(self, name: str) -> bool:
        if name.startswith(PREFIXES):
            return self._with_overlay_xattrs and name.endswith(_OVERLAY_XATTRS)
        return not name.startswith("security.selinux")


def _is_shared(old: int, new: int, base: bytes) -> bool:
    """Create a hard link; False if the file system, or chattr(1), does not allow it."""
    try:
        os.link(base, base, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (
            errno.EPERM,
            errno.EMLINK,
            errno.EOPNOTSUPP,
            errno.ENOSYS,
            errno.EXDEV,
        ):
            raise
        return False
    return True
