"""Apply an archive to an overlay upper directory, as overlayfs itself would have written it.

Deletions become whiteouts (character device 0:0), directories that hide what is below get the
opaque attribute; both only where there is something below. No mount takes part, which is what makes
it fast.
"""

import os
import stat
from pathlib import Path

from graphdriver.apply.target import DirectoryTarget
from graphdriver.overlayfs.lowers import LowerTree
from graphdriver.overlayfs.marks import is_opaque, is_whiteout
from graphdriver.tree.inodes import Attributes, attributes_of, copy_node, set_attributes
from graphdriver.tree.resolve import Place, lstat_at, open_below, open_directory

__all__ = ["UpperTarget"]

# Directories of which is remembered whether what is below shows in them.
_REMEMBERED = 4096


class UpperTarget(DirectoryTarget):
    """Writes into `upper`, over `lowers`; new directories without an entry belong to `owner`."""

    def __init__(
        self,
        upper: Path,
        lowers: LowerTree,
        xattr_prefix: str = "trusted.overlay.",
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        with os.scandir(upper) as entries:
            populated = any(entries)
        super().__init__(upper, self, remember=populated)
        self._lowers = lowers
        self._prefix = xattr_prefix
        self._owner = owner
        self._root_is_opaque = False
        self._opaque: set[bytes] = set()
        # Whether what is below shows in a directory, as far as it was asked for.
        self._hidden: dict[bytes, bool] = {}

    # What lies below (resolve.Below).

    def symlink(self, path: bytes) -> bytes | None:
        """Return the target when `path` is a symlink in the lowers."""
        found = None if self._is_hidden(path) else self._lowers.lookup(path)
        if found is None or not stat.S_ISLNK(found.stat.st_mode):
            return None
        return os.readlink(found.path)

    def is_directory(self, path: bytes) -> bool:
        """Say whether `path` is a directory in the lowers."""
        return bool(self._lowers.contributors(path)) and not self._is_hidden(path)

    def make_directory(self, dir_fd: int, name: bytes, path: bytes, instead: bool) -> None:
        """Copy a lower directory up, or make one that only its members speak of: 0755."""
        found = None if instead or self._is_hidden(path) else self._lowers.lookup(path)
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        self.implied.add(path)
        if found is not None and stat.S_ISDIR(found.stat.st_mode):
            set_attributes(dir_fd, name, attributes_of(found.path, found.stat))
            self.note_time(path, found.stat.st_mtime_ns)
        else:
            set_attributes(dir_fd, name, Attributes(0o755, *self._owner, 0, {}))
            self.before_directory(Place(dir_fd, b""), name, path, replaced=instead)

    def discard(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Remove what is in the way of something else."""
        self._hidden.clear()
        super().discard(dir_fd, name, path)

    def copy_up(self, place: Place, name: bytes, path: bytes) -> bool:
        """Copy the lower non-directory `path` up; False when there is none."""
        found = None if self._is_hidden(path) else self._lowers.lookup(path)
        if found is None or stat.S_ISDIR(found.stat.st_mode):
            return False
        copy_node(found.path, found.stat, place.dir_fd, name)
        return True

    # What whiteouts become (unpack.Target).

    def whiteout(self, directory: bytes, name: bytes) -> None:
        """Hide the lower `name`; a directory of this archive with that name turns opaque."""
        place = self.resolver.directory(directory, make=False)
        if place is None:
            return
        path = place.child(name)
        found = lstat_at(place.dir_fd, name)
        if found is not None and self.is_placed(path) and not is_whiteout(found):
            if stat.S_ISDIR(found.st_mode):
                self._hide_below(place, name, path)
            return
        if found is not None:
            self.discard(place.dir_fd, name, path)
        if self._lowers.lookup(path) is not None and not self._is_hidden(path):
            self._mknod_whiteout(place.dir_fd, name)

    def opaque(self, directory: bytes) -> None:
        """Hide all that is below in `directory`; where there is none, there is nothing to hide."""
        place = self.resolver.directory(directory, make=False)
        if place is None:
            return
        if not place.path:
            self._hide_root()
            return
        above, _, base = place.path.rpartition(b"/")
        parent = self.resolver.directory(above)
        assert parent is not None
        self._hide_below(parent, base, place.path)

    def before_directory(self, place: Place, name: bytes, path: bytes, *, replaced: bool) -> None:
        """Keep the lower directory of that name from shining through where it was hidden before."""
        if (replaced or self._is_hidden(path)) and self._lowers.contributors(path):
            self._set_opaque(name, place.dir_fd, path)

    def _hide_below(self, place: Place, name: bytes, path: bytes) -> None:
        """Make the directory opaque, and drop what an earlier archive left in it."""
        if self.placed is not None:
            descriptor = open_directory(name, place.dir_fd)
            try:
                self.drop_unplaced(Place(descriptor, path))
            finally:
                os.close(descriptor)
        if self._lowers.contributors(path):
            self._set_opaque(name, place.dir_fd, path)

    def _hide_root(self) -> None:
        """Hide everything below the layer, name by name: the kernel ignores opaque upper roots."""
        self._root_is_opaque = True
        if self.placed is not None:
            self.drop_unplaced(self.root)
        for name in self._lowers.listdir(b""):
            found = lstat_at(self.root.dir_fd, name)
            if found is None:
                self._mknod_whiteout(self.root.dir_fd, name)
            elif stat.S_ISDIR(found.st_mode) and self._lowers.contributors(name):
                self._set_opaque(name, self.root.dir_fd, name)

    def _is_hidden(self, path: bytes) -> bool:
        """Say whether an opaque directory above hides the lower `path`."""
        if self._root_is_opaque:
            return True
        if not self._opaque and self.placed is None:
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
            hidden = hidden or above in self._opaque or self._was_opaque(above)
            self._hidden[above] = hidden
        return hidden

    def _was_opaque(self, path: bytes) -> bool:
        """Say whether an earlier archive has left the directory opaque."""
        if self.placed is None:
            return False
        try:
            directory = open_below(self.root.dir_fd, path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return is_opaque(directory, self._prefix)
        finally:
            os.close(directory)

    def _set_opaque(self, name: bytes, dir_fd: int, path: bytes) -> None:
        descriptor = open_directory(name, dir_fd)
        try:
            os.setxattr(descriptor, self._prefix + "opaque", b"y")
        finally:
            os.close(descriptor)
        self._opaque.add(path)
        self._hidden.clear()

    def _mknod_whiteout(self, dir_fd: int, name: bytes) -> None:
        """Make a whiteout; since 5.8 that takes no privilege."""
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd)
