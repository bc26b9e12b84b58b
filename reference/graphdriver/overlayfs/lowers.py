"""The merged view of lower directories, without a mount.

overlayfs's lookup in Python: topmost first, a whiteout or a non-directory ends the search, an
opaque directory ends the merging (Documentation/filesystems/overlayfs.rst). Read-only. Redirects
and metacopy are not followed; a driver whose mounts have them compares views instead.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from graphdriver.overlayfs.format import TRUSTED, attribute, is_opaque, is_whiteout, opaque_value

__all__ = ["Found", "LowerTree"]

# Paths are kept shorter than PATH_MAX, 4096, minus the longest name.
_LONG = 3800
# The number of directories whose contributors are cached; a walk needs those of its path.
_REMEMBERED = 4096


class Found(NamedTuple):
    """The file of a path in the topmost layer that contains it: its location, and its lstat."""

    path: bytes
    stat: os.stat_result


class _Descriptor:
    """Closed when no longer referenced."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _Deep(bytes):
    """A path below a directory that is kept open, because one from the root would exceed
    PATH_MAX.
    """

    start: _Descriptor

    @classmethod
    def opened(cls, path: bytes) -> "_Deep":
        """Return a short path to the directory `path`."""
        number = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return cls.below(b"/proc/self/fd/%d" % number, _Descriptor(number))

    @classmethod
    def below(cls, path: bytes, start: _Descriptor) -> "_Deep":
        """Return `path`, relative to the descriptor `start`."""
        deep = cls(path)
        deep.start = start
        return deep


class LowerTree:
    """The lower directories `lowers`, topmost first; `xattr_prefix`: of overlay xattrs."""

    def __init__(self, lowers: Sequence[Path | bytes], xattr_prefix: str = TRUSTED) -> None:
        self._prefix = xattr_prefix
        roots: list[bytes] = []
        for lower in map(os.fsencode, lowers):
            roots.append(lower)
            if is_opaque(lower, xattr_prefix):
                break
        self._contributors: dict[bytes, tuple[bytes, ...]] = {b"": tuple(roots)}

    def __bool__(self) -> bool:
        """Whether there are lower directories."""
        return bool(self._contributors[b""])

    def lookup(self, name: bytes) -> Found | None:
        """Return the file at `name` (relative; b"" is the root), without following symlinks."""
        if not name:
            roots = self._contributors[b""]
            return Found(roots[0], os.lstat(roots[0])) if roots else None
        directory, _, base = name.rpartition(b"/")
        return self.lookup_in(self.contributors(directory), base)

    def lookup_in(self, contributors: Sequence[bytes], base: bytes) -> Found | None:
        """Return the file `base` in the merge of the directories `contributors`."""
        for directory in contributors:
            path = _join(directory, base)
            try:
                found = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if self._is_deletion(path, found) else Found(path, found)
        return None

    def contributors(self, name: bytes) -> tuple[bytes, ...]:
        """Return the directories that are merged at `name`, topmost first; () if it is not a
        directory.
        """
        missing = []
        while (known := self._contributors.get(name)) is None:
            missing.append(name)
            name = name.rpartition(b"/")[0]
        for name in reversed(missing):
            known = self._merged(known, name.rpartition(b"/")[2])
            if len(self._contributors) >= _REMEMBERED:
                self._contributors = {b"": self._contributors[b""]}
            self._contributors[name] = known
        return known

    def _merged(self, parents: Sequence[bytes], base: bytes) -> tuple[bytes, ...]:
        """Return the directories that are merged at `base` in the merge of `parents`."""
        merged: list[bytes] = []
        for parent in parents:
            path = _join(parent, base)
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(found.st_mode):
                break
            merged.append(path if len(path) < _LONG else _Deep.opened(path))
            if is_opaque(path, self._prefix):
                break
        return tuple(merged)

    def listdir(self, name: bytes) -> dict[bytes, Found]:
        """Return the entries of the merged directory `name`; {} if it is not a directory."""
        return self.list_merged(self.contributors(name))

    def list_merged(self, contributors: Sequence[bytes]) -> dict[bytes, Found]:
        """Return the entries of the merge of the directories `contributors`."""
        seen: set[bytes] = set()
        present: dict[bytes, Found] = {}
        for directory in contributors:
            marked = opaque_value(directory, self._prefix) == b"x"
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name in seen:
                        continue
                    seen.add(entry.name)
                    found = entry.stat(follow_symlinks=False)
                    if is_whiteout(found) or (marked and self._is_deletion(entry.path, found)):
                        continue
                    present[entry.name] = Found(_join(directory, entry.name), found)
        return present

    def _is_deletion(self, path: bytes, found: os.stat_result) -> bool:
        """Return whether a file is a whiteout; since 6.7 it may be an empty file with an xattr."""
        if found.st_size or not stat.S_ISREG(found.st_mode):
            return is_whiteout(found)
        return attribute(path, self._prefix + "whiteout") is not None


def _join(directory: bytes, base: bytes) -> bytes:
    path = directory + b"/" + base
    return _Deep.below(path, directory.start) if isinstance(directory, _Deep) else path
