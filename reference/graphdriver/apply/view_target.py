"""Apply an archive through a merged view, or to a plain directory that holds the lower content too.

Deletions are deletions; what is below and what the archive placed lie in the same directory, so
this target remembers what it placed. For drivers that copy, and wherever overlay's own marks would
be wrong.
"""

import os
import stat
from pathlib import Path

from graphdriver.apply.target import DirectoryTarget
from graphdriver.tree.inodes import Attributes, set_attributes
from graphdriver.tree.resolve import Place, lstat_at, open_directory

__all__ = ["ViewTarget"]


class ViewTarget(DirectoryTarget):
    """Writes into the directory `root`; new directories without an entry belong to `owner`."""

    def __init__(self, root: Path, owner: tuple[int, int] = (0, 0)) -> None:
        super().__init__(root, self, remember=True)
        self._owner = owner

    def symlink(self, path: bytes) -> bytes | None:
        """Return None: what is below shows in the view itself."""
        return None

    def is_directory(self, path: bytes) -> bool:
        """Return False: what is below shows in the view itself."""
        return False

    def make_directory(self, dir_fd: int, name: bytes, path: bytes, instead: bool) -> None:
        """Make a directory that only its members speak of: 0755."""
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        set_attributes(dir_fd, name, Attributes(0o755, *self._owner, 0, {}))

    def whiteout(self, directory: bytes, name: bytes) -> None:
        """Delete `name`, or of a directory that this archive placed, all that it did not."""
        place = self.resolver.directory(directory, make=False)
        if place is None:
            return
        path = place.child(name)
        found = lstat_at(place.dir_fd, name)
        if found is None:
            return
        if not self.is_placed(path):
            self.discard(place.dir_fd, name, path)
        elif stat.S_ISDIR(found.st_mode):
            self._drop_below(Place(place.dir_fd, place.path), name, path)

    def opaque(self, directory: bytes) -> None:
        """Delete all in `directory` that this archive did not place."""
        place = self.resolver.directory(directory, make=False)
        if place is not None:
            self.drop_unplaced(place)

    def _drop_below(self, place: Place, name: bytes, path: bytes) -> None:
        descriptor = open_directory(name, place.dir_fd)
        try:
            self.drop_unplaced(Place(descriptor, path))
        finally:
            os.close(descriptor)
