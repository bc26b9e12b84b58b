"""Find or create the parent directory of a member, without leaving the root.

An existing path without symlinks is resolved with one openat2(2), which the kernel confines to the
root. Otherwise, and on kernels before 5.6, every component is one openat(2) that does not follow
symlinks, relative to an open descriptor. In both cases a symlink that another process puts in place
(CVE-2018-15664) makes the call fail instead of redirecting it. Symlinks are read and resolved here,
relative to the root, as in a container. The walk uses the upper directory; directories that exist
only in lower layers are copied up.
"""

import errno
import functools
import os
import stat
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from graphdriver.errors import BadArchive
from graphdriver.linux import files
from graphdriver.tree.xattrs import DEFAULT_ACL

__all__ = [
    "Follow",
    "Make",
    "ResolvedDirectory",
    "Resolver",
    "Surroundings",
    "has_openat2",
    "lstat_at",
    "open_below",
    "open_directory",
]

has_openat2 = functools.cache(files.has_openat2)

# As the kernel's MAXSYMLINKS.
_MOST_SYMLINKS = 40
# The number of directories that are kept open; a sorted archive uses few of them repeatedly.
_KEPT_OPEN = 64

Follow = Callable[[bytes, bool], bool]
"""Returns whether to follow the symlink at a path; the second argument: it is in a lower layer."""


class Make(Enum):
    """The missing directories that a walk may create."""

    NOTHING = auto()
    BELOW = auto()
    """Copies of lower directories."""
    ALL = auto()


class Surroundings(Protocol):
    """The resolver's interface to the lower layers, and to the writer of the upper directory."""

    def symlink(self, path: bytes) -> bytes | None:
        """Return the target if `path` is a symlink in the lower layers, else None."""

    def is_directory(self, path: bytes) -> bool:
        """Return whether `path` is a directory in the lower layers."""

    def follows(self, path: bytes, below: bool) -> bool:
        """Return whether members may follow the symlink `path`; `below`: it is only in a lower
        layer.
        """

    def make_directory(self, dir_fd: int, name: bytes, path: bytes, *, instead: bool) -> None:
        """Create the missing directory `path` as `name` in `dir_fd`.

        It copies up the lower directory if there is one; `instead` means that another file had the
        name in the upper directory, so that the lower directory must stay hidden.
        """

    def remove_obstacle(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Remove a non-directory in the place of a directory. Raises BadArchive."""

    def entered(self, path: bytes, found: os.stat_result) -> None:
        """Record a directory that existed before, with its metadata."""


class ResolvedDirectory(NamedTuple):
    """An open directory: its descriptor, and its path from the root without symlinks.

    `has_default_acl` means that new files in it inherit an ACL.
    """

    dir_fd: int
    path: bytes
    has_default_acl: bool = False

    def child(self, name: bytes) -> bytes:
        """Return the real path of `name` here."""
        return self.path + b"/" + name if self.path else name


class Resolver:
    """Resolves directories below `root_fd`; `close` closes the directories that are kept open."""

    def __init__(self, root_fd: int, surroundings: Surroundings) -> None:
        self._root = ResolvedDirectory(root_fd, b"", _has_default_acl(root_fd))
        self._root_path = _path_of(root_fd)
        self._surroundings = surroundings
        self._known: dict[bytes, ResolvedDirectory] = {}
        self._forgotten: list[int] = []

    def directory(
        self, name: bytes, make: Make = Make.ALL, follow: Follow | None = None
    ) -> ResolvedDirectory | None:
        """Return the directory `name`, creating missing ones according to `make`, or None.

        It stays open at least until the next call. `follow` decides about symlinks; the default is
        the rule for members. Raises BadArchive for a loop of symlinks.
        """
        if self._forgotten:
            self._close_forgotten()
        if not name:
            return self._root
        known = self._known.get(name)
        if known is not None and (follow is None or known.path == name):
            return known
        found = self._walk(name, make, follow or self._surroundings.follows)
        if found is not None and (follow is None or found.path == name):
            self._remember(name, found)
        elif found is not None:
            # Members may not be allowed to follow the symlinks on this path.
            self._forgotten.append(found.dir_fd)
        return found

    def locate(self, name: bytes, follow: Follow) -> bytes | None:
        """Return the real path of the directory `name`, upper or lower, creating nothing."""
        todo = name.split(b"/")[::-1]
        here, path, symlinks = os.dup(self._root.dir_fd), b"", 0
        try:
            while todo:
                part = todo.pop()
                if part in (b"", b"."):
                    continue
                if part == b"..":
                    path = path.rpartition(b"/")[0]
                    here = self._replace(here, self._open_if_there(path))
                    continue
                child = path + b"/" + part if path else part
                found = lstat_at(here, part) if here >= 0 else None
                target = self._surroundings.symlink(child) if found is None else None
                if found is not None and stat.S_ISLNK(found.st_mode):
                    target = os.readlink(part, dir_fd=here)
                if target is not None:
                    symlinks += 1
                    if symlinks > _MOST_SYMLINKS or not follow(child, found is None):
                        return None
                    todo += target.split(b"/")[::-1]
                    if target.startswith(b"/"):
                        path = b""
                        here = self._replace(here, os.dup(self._root.dir_fd))
                    continue
                if found is None and not self._surroundings.is_directory(child):
                    return None
                if found is not None and not stat.S_ISDIR(found.st_mode):
                    return None
                path = child
                here = self._replace(here, open_directory(part, here) if found else -1)
            return path
        finally:
            self._replace(here, -1)

    def forget(self, path: bytes = b"") -> None:
        """Forget resolved paths at or below `path`, or through a symlink that is being replaced.

        Descriptors stay open until the next call, because the caller may be using one.
        """
        if not path:
            self._root = self._root._replace(has_default_acl=_has_default_acl(self._root.dir_fd))
        inside = path + b"/" if path else b""
        for name, resolved in list(self._known.items()):
            if name != resolved.path or (resolved.path + b"/").startswith(inside):
                self._forgotten.append(self._known.pop(name).dir_fd)

    def close(self) -> None:
        """Close every descriptor."""
        self.forget()
        self._close_forgotten()

    def _close_forgotten(self) -> None:
        while self._forgotten:
            os.close(self._forgotten.pop())

    def _remember(self, name: bytes, resolved: ResolvedDirectory) -> None:
        """Keep the directory open, and close the oldest one, and one with the same name."""
        if (other := self._known.pop(name, None)) is not None:
            self._forgotten.append(other.dir_fd)
        if len(self._known) >= _KEPT_OPEN:
            oldest = next(iter(self._known))
            os.close(self._known.pop(oldest).dir_fd)
        self._known[name] = resolved

    def _walk(self, name: bytes, make: Make, follow: Follow) -> ResolvedDirectory | None:
        """Walk from the nearest open directory; at most two descriptors at a time."""
        above, _, base = name.rpartition(b"/")
        start = self._known.get(above, self._root) if above else self._root
        if start.path != above:
            start = self._root  # resolved through a symlink, possibly by other rules
        if start is self._root and above and (resolved := self._open_in_root(name)):
            return resolved
        todo = [base] if start is not self._root or not above else name.split(b"/")[::-1]
        here = ResolvedDirectory(os.dup(start.dir_fd), start.path)
        symlinks = 0
        try:
            while todo:
                part = todo.pop()
                if part in (b"", b"."):
                    continue
                if part == b"..":  # of a symlink's target; the root is its own parent
                    here = self._reopen(here, here.path.rpartition(b"/")[0])
                    continue
                step = self._step(here, part, make, follow)
                if step is None:
                    os.close(here.dir_fd)
                    return None
                if isinstance(step, ResolvedDirectory):
                    os.close(here.dir_fd)
                    here = step
                    continue
                symlinks += 1
                if symlinks > _MOST_SYMLINKS:
                    raise BadArchive(f"the path {name[:200]!r} goes through a loop of symlinks")
                todo += step.split(b"/")[::-1]
                if step.startswith(b"/"):
                    here = self._reopen(here, b"")
        except BaseException:
            os.close(here.dir_fd)
            raise
        return here._replace(has_default_acl=_has_default_acl(here.dir_fd))

    def _open_in_root(self, name: bytes) -> ResolvedDirectory | None:
        """Let the kernel resolve the whole path; None if directories must be created or lowers
        read.

        Correct without the lowers, because entries of the upper hide those of lowers. Paths with
        symlinks are left to the walk, which decides whether they may be followed.
        """
        if not has_openat2():
            return None
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY
            descriptor = files.openat2(self._root.dir_fd, name, flags, files.RESOLVE_IN_ROOT)
        except OSError:
            return None
        path = _path_of(descriptor)
        if path is None or self._root_path is None or path != self._root_path + b"/" + name:
            os.close(descriptor)
            return None
        resolved = ResolvedDirectory(descriptor, name, _has_default_acl(descriptor))
        self._surroundings.entered(name, os.fstat(descriptor))
        return resolved

    def _reopen(self, here: ResolvedDirectory, path: bytes) -> ResolvedDirectory:
        """Open the directory `path` from the root: `..` on disk could be another directory."""
        descriptor = open_below(self._root.dir_fd, path)
        os.close(here.dir_fd)
        return ResolvedDirectory(descriptor, path)

    def _open_if_there(self, path: bytes) -> int:
        try:
            return open_below(self._root.dir_fd, path)
        except (FileNotFoundError, NotADirectoryError):
            return -1

    @staticmethod
    def _replace(descriptor: int, new: int) -> int:
        if descriptor >= 0:
            os.close(descriptor)
        return new

    def _step(
        self, here: ResolvedDirectory, part: bytes, make: Make, follow: Follow
    ) -> ResolvedDirectory | bytes | None:
        """Resolve one component; return its directory, a symlink's target, or None if it is
        missing.
        """
        path = here.child(part)
        found = lstat_at(here.dir_fd, part)
        if found is not None and stat.S_ISLNK(found.st_mode) and follow(path, False):
            return os.readlink(part, dir_fd=here.dir_fd)
        if found is None:
            target = self._surroundings.symlink(path)
            if target and follow(path, True):
                return target
            if make is Make.NOTHING:
                return None
            if make is Make.BELOW and (target or not self._surroundings.is_directory(path)):
                return None
        if found is None or not stat.S_ISDIR(found.st_mode):
            if found is not None:
                if make is not Make.ALL:
                    return None
                self._surroundings.remove_obstacle(here.dir_fd, part, path)
            self._surroundings.make_directory(here.dir_fd, part, path, instead=found is not None)
        else:
            self._surroundings.entered(path, found)
        return ResolvedDirectory(open_directory(part, here.dir_fd), path)


def _has_default_acl(descriptor: int) -> bool:
    try:
        os.getxattr(descriptor, DEFAULT_ACL)
    except OSError:
        return False
    return True


def open_directory(name: bytes, dir_fd: int) -> int:
    """Open the directory `name`, without following a symlink."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=dir_fd)


def open_below(root: int, path: bytes) -> int:
    """Open the directory `path`, of any length, below `root`; no component may be a symlink."""
    descriptor = os.dup(root)
    for part in path.split(b"/") if path else ():
        try:
            below = open_directory(part, descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _path_of(descriptor: int) -> bytes | None:
    """Return the path of an open directory; None if it has none, or one over PATH_MAX."""
    try:
        path = os.readlink(b"/proc/self/fd/%d" % descriptor)
    except OSError:
        return None
    return path if path.startswith(b"/") and not path.endswith(b" (deleted)") else None


def lstat_at(dir_fd: int, name: bytes) -> os.stat_result | None:
    """Return the lstat of `name` in `dir_fd`, None if it does not exist."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise
