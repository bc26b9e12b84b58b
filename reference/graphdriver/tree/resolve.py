"""Find, and make, the directory that a member belongs into, without ever leaving the root.

A path that is there already and goes through no symlink is one openat2(2) that the kernel keeps in
the root. Elsewhere, and on kernels before 5.6, every step is one openat(2) that does not follow
symlinks, from a descriptor that is held. Either way a symlink swapped in by someone else
(CVE-2018-15664) fails the step instead of redirecting it. Symlinks are read and resolved here,
inside the root, as a container would see them. The walk goes through the directory that is written;
what is only below it is copied up on the way.
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
    "Place",
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
# Descriptors of directories that are kept open; a sorted archive comes back to few of them.
_KEPT_OPEN = 64

Follow = Callable[[bytes, bool], bool]
"""Says whether to follow the symlink at a real path; True as second argument: it is only below."""


class Make(Enum):
    """What a walk may make of the directories that are missing."""

    NOTHING = auto()
    BELOW = auto()
    """Copies of those that are below."""
    ALL = auto()


class Surroundings(Protocol):
    """What a resolver has to know of the layers below, and of who writes the directory."""

    def symlink(self, path: bytes) -> bytes | None:
        """Return the target when `path` is a symlink below, else None."""

    def is_directory(self, path: bytes) -> bool:
        """Say whether `path` is a directory below."""

    def follows(self, path: bytes, below: bool) -> bool:
        """Say whether members go through the symlink `path`; `below` says that it is only there."""

    def make_directory(self, dir_fd: int, name: bytes, path: bytes, *, instead: bool) -> None:
        """Make the missing directory `path` as `name` in `dir_fd`.

        It copies up the one below if there is one; `instead` says that something else had the name
        in the directory that is written, so that nothing of below may shine through.
        """

    def clear_the_way(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Remove a non-directory that is where a directory has to be. Raises BadArchive."""

    def entered(self, path: bytes, found: os.stat_result) -> None:
        """Take note of a directory that was there before, as it was."""


class Place(NamedTuple):
    """A directory that is open: its descriptor, and its real path from the root.

    `has_default_acl` says that what is made in it inherits an ACL.
    """

    dir_fd: int
    path: bytes
    has_default_acl: bool = False

    def child(self, name: bytes) -> bytes:
        """Return the real path of `name` here."""
        return self.path + b"/" + name if self.path else name


class Resolver:
    """Resolves directories below `root_fd`; `close` closes what it keeps open."""

    def __init__(self, root_fd: int, surroundings: Surroundings) -> None:
        self._root = Place(root_fd, b"", _has_default_acl(root_fd))
        self._root_path = _path_of(root_fd)
        self._surroundings = surroundings
        self._known: dict[bytes, Place] = {}
        self._forgotten: list[int] = []

    def directory(
        self, name: bytes, make: Make = Make.ALL, follow: Follow | None = None
    ) -> Place | None:
        """Return the directory `name`, making of what is missing what `make` says, or None.

        `follow` decides about symlinks; without it, as for members. Raises BadArchive for a loop of
        symlinks.
        """
        if self._forgotten:
            self._close_forgotten()
        if not name:
            return self._root
        known = self._known.get(name)
        if known is not None and (follow is None or known.path == name):
            return known
        found = self._walk(name, make, follow or self._surroundings.follows)
        if found is not None:
            self._remember(name, found)
        return found

    def locate(self, name: bytes, follow: Follow) -> bytes | None:
        """Return the real path of the directory `name`, here or below, making nothing."""
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
        """Drop what was resolved at or below `path`, or through a symlink: it is being replaced.

        Descriptors stay open until the next call, because the caller may be working in one.
        """
        if not path:
            self._root = self._root._replace(has_default_acl=_has_default_acl(self._root.dir_fd))
        inside = path + b"/" if path else b""
        for name, place in list(self._known.items()):
            if name != place.path or (place.path + b"/").startswith(inside):
                self._forgotten.append(self._known.pop(name).dir_fd)

    def close(self) -> None:
        """Close every descriptor."""
        self.forget()
        self._close_forgotten()

    def _close_forgotten(self) -> None:
        while self._forgotten:
            os.close(self._forgotten.pop())

    def _remember(self, name: bytes, place: Place) -> None:
        """Keep the place open, and close the oldest; also one of that name, resolved otherwise."""
        if (other := self._known.pop(name, None)) is not None:
            self._forgotten.append(other.dir_fd)
        if len(self._known) >= _KEPT_OPEN:
            oldest = next(iter(self._known))
            os.close(self._known.pop(oldest).dir_fd)
        self._known[name] = place

    def _walk(self, name: bytes, make: Make, follow: Follow) -> Place | None:
        """Go down from the nearest directory that is open; at most two descriptors at a time."""
        above, _, base = name.rpartition(b"/")
        start = self._known.get(above, self._root) if above else self._root
        if start.path != above:
            start = self._root  # resolved through a symlink, perhaps by other rules
        if start is self._root and above and (place := self._open_in_root(name)):
            return place
        todo = [base] if start is not self._root or not above else name.split(b"/")[::-1]
        here = Place(os.dup(start.dir_fd), start.path)
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
                if isinstance(step, Place):
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

    def _open_in_root(self, name: bytes) -> Place | None:
        """Let the kernel go all of the way; None where something is to be made, or read below.

        Right without a look below: what the directory that is written has, hides what is there.
        Paths through symlinks are left to the walk, which asks whether they may be followed.
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
        place = Place(descriptor, name, _has_default_acl(descriptor))
        self._surroundings.entered(name, os.fstat(descriptor))
        return place

    def _reopen(self, here: Place, path: bytes) -> Place:
        """Go to the real directory `path`, from the root: `..` on disk could be somewhere else."""
        descriptor = open_below(self._root.dir_fd, path)
        os.close(here.dir_fd)
        return Place(descriptor, path)

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

    def _step(self, here: Place, part: bytes, make: Make, follow: Follow) -> Place | bytes | None:
        """Go one step down; return where that is, a symlink's target, or None for nothing there."""
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
                self._surroundings.clear_the_way(here.dir_fd, part, path)
            self._surroundings.make_directory(here.dir_fd, part, path, instead=found is not None)
        else:
            self._surroundings.entered(path, found)
        return Place(open_directory(part, here.dir_fd), path)


def _has_default_acl(descriptor: int) -> bool:
    try:
        os.getxattr(descriptor, DEFAULT_ACL)
    except OSError:
        return False
    return True


def open_directory(name: bytes, dir_fd: int) -> int:
    """Open the directory `name`, not a symlink to one."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=dir_fd)


def open_below(root: int, path: bytes) -> int:
    """Open the directory `path`, of any length, below `root`; no part may be a symlink."""
    descriptor = os.dup(root)
    for part in path.split(b"/") if path else ():
        try:
            below = open_directory(part, descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _path_of(descriptor: int) -> bytes | None:
    """Return the path of an open directory; None where it has none, or one over PATH_MAX."""
    try:
        path = os.readlink(b"/proc/self/fd/%d" % descriptor)
    except OSError:
        return None
    return path if path.startswith(b"/") and not path.endswith(b" (deleted)") else None


def lstat_at(dir_fd: int, name: bytes) -> os.stat_result | None:
    """Return the lstat of `name` in `dir_fd`, None when there is nothing."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise
