"""Find, and make, the directory that a member belongs into, without ever leaving the root.

A way that is there already is one openat2(2) that the kernel keeps in the root. Elsewhere, and on
kernels before 5.6, every step is one openat(2) that does not follow symlinks, from a descriptor
that is held. Either way a symlink swapped in by someone else (CVE-2018-15664) fails the step
instead of leading it away. Symlinks are read and resolved here, inside the root, as a container
would see them. The walk goes through the upper directory; what is only below is copied up on the
way.
"""

import functools
import os
import stat
from collections.abc import Callable
from typing import NamedTuple, Protocol

from graphdriver.errors import BadArchive
from graphdriver.linux import files

__all__ = ["Below", "Place", "Resolver", "has_openat2", "lstat_at", "open_below", "open_directory"]

has_openat2 = functools.cache(files.has_openat2)

# As the kernel's MAXSYMLINKS.
_MOST_SYMLINKS = 40
# Descriptors of directories that are kept open; a sorted archive comes back to few of them.
_KEPT_OPEN = 64


class Below(Protocol):
    """What lies below the directory that is written; nothing, for a plain directory."""

    def symlink(self, path: bytes) -> bytes | None:
        """Return the target when `path` is a symlink below, else None."""

    def make_directory(self, dir_fd: int, name: bytes, path: bytes, instead: bool) -> None:
        """Make the missing directory `path` as `name` in `dir_fd`.

        It copies up the one below if there is one; `instead` says that something else had the name
        in the directory that is written, so that nothing of below may shine through.
        """

    def is_directory(self, path: bytes) -> bool:
        """Say whether `path` is a directory below."""

    def entered(self, path: bytes, found: os.stat_result) -> None:
        """Take note of a directory that was there before, as it was."""


class Place(NamedTuple):
    """A directory that is open: its descriptor, and its real path from the root."""

    dir_fd: int
    path: bytes

    def child(self, name: bytes) -> bytes:
        """Return the real path of `name` here."""
        return self.path + b"/" + name if self.path else name


class Resolver:
    """Resolves directories below `root_fd`; `close` closes what it keeps open."""

    def __init__(
        self, root_fd: int, below: Below, discard: Callable[[int, bytes, bytes], None]
    ) -> None:
        """Take `discard(dir_fd, name, path)` to remove a non-directory that is in the way."""
        self._root = Place(root_fd, b"")
        self._root_path = _path_of(root_fd)
        self._below = below
        self._discard = discard
        self._known: dict[bytes, Place] = {}
        self._forgotten: list[int] = []

    def directory(self, name: bytes, *, make: bool = True) -> Place | None:
        """Return the directory `name`, making what is missing; None, with `make` off, if absent.

        Raises BadArchive for a loop of symlinks.
        """
        if self._forgotten:
            self._close_forgotten()
        if not name:
            return self._root
        known = self._known.get(name)
        if known is None:
            known = self._walk(name, make)
            if known is not None and known.dir_fd != self._root.dir_fd:
                self._remember(name, known)
        return known

    def forget(self, path: bytes = b"") -> None:
        """Drop what was resolved at or below `path`, or through a symlink: it is being replaced.

        Descriptors stay open until the next call, because the caller may be working in one.
        """
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
        if len(self._known) >= _KEPT_OPEN:
            oldest = next(iter(self._known))
            os.close(self._known.pop(oldest).dir_fd)
        self._known[name] = place

    def _walk(self, name: bytes, make: bool) -> Place | None:
        """Go down from the nearest directory that is open; at most two descriptors at a time."""
        above, _, base = name.rpartition(b"/")
        start = self._known.get(above, self._root) if above else self._root
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
                step = self._step(here, part, make)
                if step is None:
                    os.close(here.dir_fd)
                    return None
                if isinstance(step, Place):
                    os.close(here.dir_fd)
                    here = step
                    continue
                symlinks += 1
                if symlinks > _MOST_SYMLINKS:
                    raise BadArchive(f"the way to {name[:200]!r} goes through a loop of symlinks")
                todo += step.split(b"/")[::-1]
                if step.startswith(b"/"):
                    here = self._reopen(here, b"")
        except BaseException:
            os.close(here.dir_fd)
            raise
        return here

    def _open_in_root(self, name: bytes) -> Place | None:
        """Let the kernel go all of the way; None where something is to be made, or read below.

        Right without a look below: what the directory that is written has, hides what is there.
        """
        if not has_openat2():
            return None
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY
            descriptor = files.openat2(self._root.dir_fd, name, flags, files.RESOLVE_IN_ROOT)
        except OSError:
            return None
        path = _path_of(descriptor)
        if path is None or self._root_path is None or not path.startswith(self._root_path + b"/"):
            os.close(descriptor)
            return None
        place = Place(descriptor, path[len(self._root_path) + 1 :])
        self._below.entered(place.path, os.fstat(descriptor))
        return place

    def _reopen(self, here: Place, path: bytes) -> Place:
        """Go to the real directory `path`, from the root: `..` on disk could be somewhere else."""
        descriptor = open_below(self._root.dir_fd, path)
        os.close(here.dir_fd)
        return Place(descriptor, path)

    def _step(self, here: Place, part: bytes, make: bool) -> Place | bytes | None:
        """Go one step down; return where that is, a symlink's target, or None for nothing there."""
        path = here.child(part)
        found = lstat_at(here.dir_fd, part)
        if found is not None and stat.S_ISLNK(found.st_mode):
            return os.readlink(part, dir_fd=here.dir_fd)
        if found is None:
            if target := self._below.symlink(path):
                return target
            if not make and not self._below.is_directory(path):
                return None
        if found is None or not stat.S_ISDIR(found.st_mode):
            if not make and found is not None:
                return None
            if found is not None:
                self._discard(here.dir_fd, part, path)
            self._below.make_directory(here.dir_fd, part, path, found is not None)
        else:
            self._below.entered(path, found)
        return Place(open_directory(part, here.dir_fd), path)


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
