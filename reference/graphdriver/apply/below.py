"""The lower layers of the directory that an archive is written to, and hiding their files.

`NothingBelow` for a plain directory or a view, which shows the lower content itself; `LowersBelow`
for an overlay upper directory, where deletions become whiteouts (character device 0:0) and
directories that hide lower entries get the opaque xattr.
"""

import os
import stat
from typing import Protocol

from graphdriver.overlayfs.format import TRUSTED, is_opaque
from graphdriver.overlayfs.lowers import Found, LowerTree
from graphdriver.tree.resolve import lstat_at, open_below, open_directory

__all__ = ["Below", "LowersBelow", "NothingBelow"]

# The number of directories for which is cached whether lower entries are visible in them.
_REMEMBERED = 4096


class Below(Protocol):
    """The layers below the written directory. Paths are real, from its root."""

    def lookup(self, path: bytes) -> Found | None:
        """Return the visible lower file at `path`, None if there is none."""

    def is_directory(self, path: bytes) -> bool:
        """Return whether a lower directory is visible at `path`."""

    def hide(self, dir_fd: int, name: bytes) -> None:
        """Hide the lower file `name` in `dir_fd`; the upper has no file of that name."""

    def hide_all(self, directory: int, path: bytes) -> None:
        """Hide all lower entries of the open directory `path`."""

    def hide_root(self) -> None:
        """Hide all lower files."""

    def made(self, dir_fd: int, name: bytes, path: bytes, *, replaced: bool) -> None:
        """Record a new directory; `replaced` means that another file had its name."""

    def removed(self) -> None:
        """Record that a file was removed from the written directory."""


class NothingBelow:
    """No lower layers: the directory itself contains all visible files."""

    def lookup(self, path: bytes) -> Found | None:
        """Return None."""
        return None

    def is_directory(self, path: bytes) -> bool:
        """Return False."""
        return False

    def hide(self, dir_fd: int, name: bytes) -> None:
        """Do nothing."""

    def hide_all(self, directory: int, path: bytes) -> None:
        """Do nothing."""

    def hide_root(self) -> None:
        """Do nothing."""

    def made(self, dir_fd: int, name: bytes, path: bytes, *, replaced: bool) -> None:
        """Do nothing."""

    def removed(self) -> None:
        """Do nothing."""


class LowersBelow:
    """Lower directories below the upper directory that is open as `upper`.

    `populated` means that earlier archives may have left opaque directories in it.
    """

    def __init__(
        self, lowers: LowerTree, upper: int, xattr_prefix: str = TRUSTED, *, populated: bool
    ) -> None:
        self._lowers = lowers
        self._upper = upper
        self._prefix = xattr_prefix
        self._populated = populated
        self._root_is_opaque = False
        self._opaque: set[bytes] = set()
        # Whether lower entries are hidden in a directory, as far as it was queried.
        self._hidden: dict[bytes, bool] = {}

    def lookup(self, path: bytes) -> Found | None:
        """Return the file of the lowers at `path`, unless an opaque directory hides it."""
        return None if self._is_hidden(path) else self._lowers.lookup(path)

    def is_directory(self, path: bytes) -> bool:
        """Return whether the lowers have a visible directory at `path`."""
        return bool(self._lowers.contributors(path)) and not self._is_hidden(path)

    def hide(self, dir_fd: int, name: bytes) -> None:
        """Create a whiteout; since 5.8 this needs no privilege."""
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd)

    def hide_all(self, directory: int, path: bytes) -> None:
        """Make a directory opaque if there are lower directories."""
        if self._lowers.contributors(path):
            os.setxattr(directory, self._prefix + "opaque", b"y")
            self._opaque.add(path)
            self._hidden.clear()

    def hide_root(self) -> None:
        """Hide all entries by name: the kernel ignores the opaque xattr of the upper root."""
        self._root_is_opaque = True
        for name in self._lowers.listdir(b""):
            found = lstat_at(self._upper, name)
            if found is None:
                self.hide(self._upper, name)
            elif stat.S_ISDIR(found.st_mode):
                self._hide_all_in(self._upper, name, name)

    def made(self, dir_fd: int, name: bytes, path: bytes, *, replaced: bool) -> None:
        """Keep the lower directory of that name hidden if it was hidden before."""
        if replaced or self._is_hidden(path):
            self._hide_all_in(dir_fd, name, path)

    def removed(self) -> None:
        """Forget hidden directories: an opaque directory may have been removed."""
        self._hidden.clear()

    def _hide_all_in(self, dir_fd: int, name: bytes, path: bytes) -> None:
        if not self._lowers.contributors(path):
            return
        directory = open_directory(name, dir_fd)
        try:
            self.hide_all(directory, path)
        finally:
            os.close(directory)

    def _is_hidden(self, path: bytes) -> bool:
        """Return whether an opaque directory above hides the lower `path`."""
        if self._root_is_opaque:
            return True
        if not self._opaque and not self._populated:
            return False
        unknown = []
        above = path.rpartition(b"/")[0]
        while above and above not in self._hidden:
            unknown.append(above)
            above = above.rpartition(b"/")[0]
        hidden = bool(above) and self._hidden[above]
        if len(self._hidden) > _REMEMBERED:
            self._hidden.clear()
        for above in reversed(unknown):
            hidden = hidden or self._is_opaque(above)
            self._hidden[above] = hidden
        return hidden

    def _is_opaque(self, path: bytes) -> bool:
        if not self._populated and path not in self._opaque:
            return False
        try:
            directory = open_below(self._upper, path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return is_opaque(directory, self._prefix)
        finally:
            os.close(directory)
