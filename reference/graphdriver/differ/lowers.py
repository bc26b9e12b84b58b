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

__all__ = ["Found", "LowerTree", "is_opaque", "is_whiteout"]

# Directories whose contributors are remembered; a walk needs those on its way, not all.
_REMEMBERED = 4096


class Found(NamedTuple):
    """What a name leads to in the topmost layer that has it: where it lies, and its lstat."""

    path: bytes
    stat: os.stat_result


class LowerTree:
    """The lower directories `lowers`, topmost first; `xattr_prefix` is that of overlay's marks."""

    def __init__(
        self, lowers: Sequence[Path | bytes], xattr_prefix: str = "trusted.overlay."
    ) -> None:
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
            path = directory + b"/" + base
            try:
                found = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if is_whiteout(found) else Found(path, found)
        return None

    def contributors(self, name: bytes) -> tuple[bytes, ...]:
        """Return the directories that are merged at `name`, topmost first; () for no directory."""
        known = self._contributors.get(name)
        if known is not None:
            return known
        directory, _, base = name.rpartition(b"/")
        merged: list[bytes] = []
        for parent in self.contributors(directory):
            path = parent + b"/" + base
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(found.st_mode):
                break
            merged.append(path)
            if is_opaque(path, self._prefix):
                break
        if len(self._contributors) >= _REMEMBERED:
            roots = self._contributors[b""]
            self._contributors.clear()
            self._contributors[b""] = roots
        self._contributors[name] = tuple(merged)
        return self._contributors[name]

    def listdir(self, name: bytes) -> dict[bytes, Found]:
        """Return what the merged directory `name` holds; {} for no directory."""
        return self.list_merged(self.contributors(name))

    def list_merged(self, contributors: Sequence[bytes]) -> dict[bytes, Found]:
        """Return what the merge of the directories `contributors` holds."""
        seen: set[bytes] = set()
        present: dict[bytes, Found] = {}
        for directory in contributors:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name in seen:
                        continue
                    seen.add(entry.name)
                    found = entry.stat(follow_symlinks=False)
                    if not is_whiteout(found):
                        present[entry.name] = Found(entry.path, found)
        return present


def is_whiteout(found: os.stat_result) -> bool:
    """Say whether an lstat is that of overlay's whiteout, a character device 0:0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: bytes | int, xattr_prefix: str) -> bool:
    """Say whether a directory hides what lies below it; `x` (6.8) marks xwhiteouts, not opacity."""
    try:
        follow = isinstance(path, int)
        return os.getxattr(path, xattr_prefix + "opaque", follow_symlinks=follow) == b"y"
    except OSError as error:
        if error.errno in (61, 95, 1):  # ENODATA, EOPNOTSUPP, EPERM
            return False
        raise
