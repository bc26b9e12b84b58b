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

from graphdriver.overlayfs.marks import TRUSTED, attribute, is_opaque, is_whiteout, opaque_mark

__all__ = ["Found", "LowerTree"]

# Paths are kept shorter than PATH_MAX, 4096, less the longest name.
_LONG = 3800
# Directories whose contributors are remembered; a walk needs those on its way, not all.
_REMEMBERED = 4096


class Found(NamedTuple):
    """What a name leads to in the topmost layer that has it: where it lies, and its lstat."""

    path: bytes
    stat: os.stat_result


class _Descriptor:
    """Closes itself when nobody needs it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _Deep(bytes):
    """A path below a directory that is kept open, as one from the root would exceed PATH_MAX."""

    start: _Descriptor

    @classmethod
    def opened(cls, path: bytes) -> "_Deep":
        """Return a short path to the directory `path`."""
        number = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return cls.below(b"/proc/self/fd/%d" % number, _Descriptor(number))

    @classmethod
    def below(cls, path: bytes, start: _Descriptor) -> "_Deep":
        """Return `path`, which leads through the descriptor `start`."""
        deep = cls(path)
        deep.start = start
        return deep


class LowerTree:
    """The lower directories `lowers`, topmost first; `xattr_prefix` is that of overlay's marks."""

    def __init__(self, lowers: Sequence[Path | bytes], xattr_prefix: str = TRUSTED) -> None:
        self._prefix = xattr_prefix
        roots: list[bytes] = []
        for lower in map(os.fsencode, lowers):
            roots.append(lower)
            if is_opaque(lower, xattr_prefix):
                break
        self._contributors: dict[bytes, tuple[bytes, ...]] = {b"": tuple(roots)}

    def __bool__(self) -> bool:
        """Whether there is any lower directory."""
        return bool(self._contributors[b""])

    def lookup(self, name: bytes) -> Found | None:
        """Return what `name` (relative; b"" the root) is below, following no symlink."""
        if not name:
            roots = self._contributors[b""]
            return Found(roots[0], os.lstat(roots[0])) if roots else None
        directory, _, base = name.rpartition(b"/")
        return self.lookup_in(self.contributors(directory), base)

    def lookup_in(self, contributors: Sequence[bytes], base: bytes) -> Found | None:
        """Return what `base` is in the merge of the directories `contributors`."""
        for directory in contributors:
            path = _join(directory, base)
            try:
                found = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if self._is_deletion(path, found) else Found(path, found)
        return None

    def contributors(self, name: bytes) -> tuple[bytes, ...]:
        """Return the directories that are merged at `name`, topmost first; () for no directory."""
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
        """Return what is merged at `base` in the merge of the directories `parents`."""
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
        """Return what the merged directory `name` holds; {} for no directory."""
        return self.list_merged(self.contributors(name))

    def list_merged(self, contributors: Sequence[bytes]) -> dict[bytes, Found]:
        """Return what the merge of the directories `contributors` holds."""
        seen: set[bytes] = set()
        present: dict[bytes, Found] = {}
        for directory in contributors:
            marked = opaque_mark(directory, self._prefix) == b"x"
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
        """Say whether a node is a whiteout: of either kind, since 6.7 may be an empty file, too."""
        if found.st_size or not stat.S_ISREG(found.st_mode):
            return is_whiteout(found)
        return attribute(path, self._prefix + "whiteout") is not None


def _join(directory: bytes, base: bytes) -> bytes:
    path = directory + b"/" + base
    return _Deep.below(path, directory.start) if isinstance(directory, _Deep) else path
