"""The target of an archive: members are placed in order, markers are applied after the last one.

A member replaces an existing file, a hard link may refer to a lower file, and markers do not affect
members of their own archive, in any order (rulings 14 to 16, 21, 31 to 33).
"""

import os
import stat
from functools import partial
from pathlib import Path

from graphdriver.apply.below import Below, LowersBelow, NothingBelow
from graphdriver.apply.markers import Hidden, Markers
from graphdriver.apply.placed import PlacedMembers
from graphdriver.archive.entry import DIRECTORY, FILE, HARDLINK, Entry, Kind
from graphdriver.archive.reader import Member, Reader
from graphdriver.errors import BadArchive
from graphdriver.overlayfs.format import TRUSTED, is_whiteout
from graphdriver.overlayfs.lowers import LowerTree
from graphdriver.tree.descent import Descent
from graphdriver.tree.inodes import (
    Attributes,
    attributes_of,
    copy_up,
    make_file,
    make_small_file,
    make_special,
    make_symlink,
    set_attributes,
)
from graphdriver.tree.removal import remove_file_tree
from graphdriver.tree.resolve import (
    Make,
    ResolvedDirectory,
    Resolver,
    lstat_at,
    open_directory,
)
from graphdriver.tree.xattrs import DEFAULT_ACL

__all__ = ["Target", "upper_target", "view_target"]

_FORMATS = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Files up to this size are read and written in one piece.
_SMALL = 1 << 16


def view_target(root: Path, owner: tuple[int, int] = (0, 0)) -> "Target":
    """Return the target for a merged view, or a plain directory with the lower content.

    Deletions remove files. For drivers that copy, and where overlay xattrs would be wrong. Implied
    directories are owned by `owner`.
    """
    return Target(os.open(root, _OPEN), NothingBelow(), owner, was_empty=False)


def upper_target(
    upper: Path,
    lowers: LowerTree,
    xattr_prefix: str = TRUSTED,
    owner: tuple[int, int] = (0, 0),
) -> "Target":
    """Return the target for an overlay upper directory, written as overlayfs would write it.

    Marks are created only over lower files. No mount is needed, which makes it fast.
    """
    with os.scandir(upper) as entries:
        populated = any(entries)
    descriptor = os.open(upper, _OPEN)
    below = LowersBelow(lowers, descriptor, xattr_prefix, populated=populated)
    return Target(descriptor, below, owner, was_empty=not populated)


class _Surroundings:
    """The resolver's interface: the lower layers, and the placed members and markers."""

    def __init__(
        self,
        below: Below,
        placed: PlacedMembers,
        hidden: Hidden,
        owner: tuple[int, int],
    ) -> None:
        self._below = below
        self._placed = placed
        self._hidden = hidden
        self._owner = owner
        # Symlinks from before the archive that members have followed.
        self.passed: set[bytes] = set()

    def symlink(self, path: bytes) -> bytes | None:
        """Return the target if `path` is a symlink in the lower layers."""
        found = self._below.lookup(path)
        if found is None or not stat.S_ISLNK(found.stat.st_mode):
            return None
        return os.readlink(found.path)

    def is_directory(self, path: bytes) -> bool:
        """Return whether `path` is a directory in the lower layers."""
        return self._below.is_directory(path)

    def follows(self, path: bytes, below: bool) -> bool:
        """Let members follow symlinks, except those that an earlier marker hides."""
        if not below and self._placed.is_placed(path):
            return True
        if self._hidden and self._hidden.covers(path):
            return False
        self.passed.add(path)
        return True

    def make_directory(self, dir_fd: int, name: bytes, path: bytes, *, instead: bool) -> None:
        """Copy a lower directory up, or create an implied one: 0755."""
        found = None if instead else self._below.lookup(path)
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        self._placed.imply(path)
        if found is not None and stat.S_ISDIR(found.stat.st_mode):
            set_attributes(dir_fd, name, attributes_of(found.path, found.stat))
            self._placed.note_time(path, found.stat.st_mtime_ns)
        else:
            set_attributes(dir_fd, name, self.implied)
            self._below.made(dir_fd, name, path, replaced=instead)

    def remove_obstacle(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Remove a non-directory of earlier layers. Raises BadArchive if it is a member."""
        found = lstat_at(dir_fd, name)
        if found and not is_whiteout(found) and self._placed.is_placed(path):
            raise BadArchive(f"{path!r} is no directory in the archive, but has members below it")
        remove_file_tree(dir_fd, name)

    def entered(self, path: bytes, found: os.stat_result) -> None:
        """Let an implied directory keep its mtime."""
        self._placed.keep_time(path, found)

    @property
    def implied(self) -> Attributes:
        """The attributes of implied directories."""
        return Attributes(0o755, *self._owner, 0, {})


class Target:
    """The directory open as `root`, over `below`; `was_empty` means that it had no entries
    before.
    """

    def __init__(
        self, root: int, below: Below, owner: tuple[int, int] = (0, 0), *, was_empty: bool
    ) -> None:
        self._root = ResolvedDirectory(root, b"")
        self._below = below
        self._placed = PlacedMembers(was_empty=was_empty)
        self._note = self._placed.place
        self.markers = Markers()
        self._surroundings = _Surroundings(below, self._placed, self.markers.written, owner)
        self._passed = self._surroundings.passed
        self.resolver = Resolver(root, self._surroundings)
        # Files of earlier layers that are targets of hard links: they count once.
        self._linked: set[bytes] = set()

    def place(self, member: Member, attributes: Attributes, reader: Reader) -> int:
        """Place a member; return the added bytes, minus those of the replaced file."""
        entry = member.entry
        if not entry.name:
            return self._place_root(entry, attributes)
        directory, _, base = entry.name.rpartition(b"/")
        parent = self.resolver.directory(directory)
        assert parent is not None
        path = parent.child(base)
        again = self._note(path)
        if self._passed and path in self._passed:
            self.resolver.forget(path)
        kind = entry.kind
        if kind is DIRECTORY:
            return -self._place_directory(parent, base, path, attributes, again)
        if kind is HARDLINK:
            return self._place_link(entry, parent, base, path, again)
        try:
            return _make(member, parent, base, attributes, reader)
        except FileExistsError:
            # Rare: a check before would be a system call for every file.
            freed = self._make_room(parent, base, path, again)
            return _make(member, parent, base, attributes, reader) - freed

    def finish(self) -> None:
        """Apply the markers, then set the mtimes of directories, which markers change."""
        if self.markers.written:
            self._apply_markers()
        for path, mtime in self._placed.times():
            directory, _, base = path.rpartition(b"/")
            # Parents first, while their descriptors are open: utime(2) of a child does not change
            # its parent's mtime.
            parent = self.resolver.directory(directory, Make.NOTHING, _follow_nothing)
            found = lstat_at(parent.dir_fd, base or b".") if parent else None
            if parent and found and stat.S_ISDIR(found.st_mode):
                times = (mtime, mtime)
                os.utime(base or b".", ns=times, dir_fd=parent.dir_fd, follow_symlinks=False)

    def close(self) -> None:
        """Release descriptors."""
        self.resolver.close()
        if self._root.dir_fd >= 0:
            os.close(self._root.dir_fd)
            self._root = ResolvedDirectory(-1, b"")

    # Members.

    def _place_root(self, entry: Entry, attributes: Attributes) -> int:
        if entry.kind is not DIRECTORY:
            raise BadArchive(f"the layer's root is a {entry.kind.name.lower()} in the archive")
        set_attributes(self._root.dir_fd, b".", attributes)
        self._placed.note_time(b"", attributes.mtime)
        if DEFAULT_ACL in attributes.xattrs:
            self.resolver.forget()  # new files in it inherit from now on
        return 0

    def _place_directory(
        self,
        parent: ResolvedDirectory,
        base: bytes,
        path: bytes,
        attributes: Attributes,
        again: bool,
    ) -> int:
        """Create a directory, or set the attributes of the existing one; return the removed
        bytes.
        """
        found, freed = lstat_at(parent.dir_fd, base), 0
        if found is None or not stat.S_ISDIR(found.st_mode):
            if found is not None:
                freed = self._make_room(parent, base, path, again)
            os.mkdir(base, 0o700, dir_fd=parent.dir_fd)
            self._below.made(parent.dir_fd, base, path, replaced=found is not None)
        set_attributes(parent.dir_fd, base, attributes)
        self._placed.note_time(path, attributes.mtime)
        if DEFAULT_ACL in attributes.xattrs:
            self.resolver.forget(path)  # new files in it inherit from now on
        return freed

    def _place_link(
        self, entry: Entry, parent: ResolvedDirectory, base: bytes, path: bytes, again: bool
    ) -> int:
        source, name, found = self._link_source(entry)
        # Creating the parents of one path may have closed the descriptor of the other.
        source_path, source_fd = source.child(name), os.dup(source.dir_fd)
        try:
            if source_path == path:
                raise BadArchive(f"{entry.name!r} is a hard link to itself")
            if source_path.startswith(path + b"/"):
                raise BadArchive(
                    f"{entry.name!r} is a hard link to {entry.linkname!r}, which it replaces"
                )
            parent = self.resolver.directory(entry.name.rpartition(b"/")[0]) or parent
            freed = self._make_room(parent, base, path, again)
            os.link(
                name, base, src_dir_fd=source_fd, dst_dir_fd=parent.dir_fd, follow_symlinks=False
            )
        finally:
            os.close(source_fd)
        if self._passed and path in self._passed:
            self.resolver.forget(path)  # the last lookup of its directory followed it again
        if self._placed.is_placed(source_path) or source_path in self._linked:
            return -freed
        self._linked.add(source_path)
        return found.st_size - freed

    def _link_source(self, entry: Entry) -> tuple[ResolvedDirectory, bytes, os.stat_result]:
        """Return the path of a hard link's target; a lower file is copied up."""
        directory, _, name = entry.linkname.rpartition(b"/")
        source = self.resolver.directory(directory, Make.BELOW, _follow_all) if name else None
        found = lstat_at(source.dir_fd, name) if source else None
        if source and found is None:
            lower = self._below.lookup(source.child(name))
            if lower is not None and not stat.S_ISDIR(lower.stat.st_mode):
                copy_up(lower.path, lower.stat, source.dir_fd, name)
                self._placed.copy(source.child(name))
                found = lstat_at(source.dir_fd, name)
        if source is None or found is None or is_whiteout(found):
            raise BadArchive(
                f"{entry.name!r} is a hard link to {entry.linkname!r}, which is not there"
            )
        if stat.S_ISDIR(found.st_mode):
            raise BadArchive(f"{entry.name!r} is a hard link to the directory {entry.linkname!r}")
        return source, name, found

    def _make_room(self, parent: ResolvedDirectory, base: bytes, path: bytes, again: bool) -> int:
        """Remove the file with the name; return its bytes, if `again` those of this archive."""
        found = lstat_at(parent.dir_fd, base)
        if found is None:
            return 0
        freed = 0
        if stat.S_ISDIR(found.st_mode):
            freed = self._bytes_below(parent, base, path)
        elif again and found.st_nlink == 1:
            freed = found.st_size
        self._discard(parent.dir_fd, base, path)
        return freed

    def _bytes_below(self, parent: ResolvedDirectory, base: bytes, path: bytes) -> int:
        """Return the bytes of this archive's files in a directory."""
        total = 0
        directory = open_directory(base, parent.dir_fd)
        walk = Descent(directory)
        try:
            todo = [(path, os.listdir(directory))]
            while todo:
                above, names = todo[-1]
                if not names:
                    todo.pop()
                    if todo:
                        walk.leave()
                    continue
                child = os.fsencode(names.pop())
                name = above + b"/" + child
                found = lstat_at(walk.here.fd, child)
                if found and stat.S_ISDIR(found.st_mode):
                    todo.append((name, os.listdir(walk.enter(child).fd)))
                elif found and found.st_nlink == 1 and self._placed.is_placed(name):
                    total += found.st_size
        finally:
            walk.close()
            os.close(directory)
        return total

    def _discard(self, dir_fd: int, name: bytes, path: bytes) -> None:
        remove_file_tree(dir_fd, name)
        self.resolver.forget(path)
        self._placed.forget_time(path)
        self._below.removed()

    # Markers.

    def _apply_markers(self) -> None:
        """Hide the paths of the markers, directories before their entries."""
        hidden = self.markers.hidden(self._locate_for_marker)
        for path in sorted(self._passed):
            if hidden.covers(path):
                raise BadArchive(
                    f"a member goes through the symlink {path!r}, which a later whiteout deletes",
                    "put the whiteouts of an archive before its other members",
                )
        self.resolver.forget()
        for path in sorted(hidden.whiteouts | hidden.opaque):
            if path in hidden.whiteouts:
                self._hide(path)
            if path in hidden.opaque:
                self._hide_all(path)

    def _locate_for_marker(self, directory: bytes) -> tuple[bytes | None, list[bytes]]:
        """Return the real path of a marker's directory, and the symlinks in it."""
        through: list[bytes] = []

        def follow(path: bytes, below: bool) -> bool:
            through.append(path)
            return below or not self._placed.is_placed(path)

        return self.resolver.locate(directory, follow), through

    def _hide(self, path: bytes) -> None:
        """Hide the lower `path`; an existing directory of this archive becomes opaque."""
        directory, _, name = path.rpartition(b"/")
        shows = self._below.lookup(path) is not None
        make = Make.BELOW if shows else Make.NOTHING
        parent = self.resolver.directory(directory, make, _follow_nothing)
        if parent is None:
            return
        found = lstat_at(parent.dir_fd, name)
        if found is not None and is_whiteout(found):
            return
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._drop_below(parent, name, path)
            if not self._is_kept(parent, name, path):
                found = None
        elif found is not None and not self._placed.is_placed(path):
            self._discard(parent.dir_fd, name, path)
            found = None
        if found is None and shows:
            self._below.hide(parent.dir_fd, name)

    def _hide_all(self, path: bytes) -> None:
        """Hide all lower entries of the directory `path`, if it exists."""
        if not path:
            self._drop_unplaced(self._root)
            self._below.hide_root()
            return
        make = Make.BELOW if self._below.is_directory(path) else Make.NOTHING
        parent = self.resolver.directory(path, make, _follow_nothing)
        if parent is not None:
            self._drop_unplaced(parent)
            self._below.hide_all(parent.dir_fd, path)

    def _drop_below(self, parent: ResolvedDirectory, name: bytes, path: bytes) -> None:
        """Hide all lower entries of the directory `name`, and remove files that are not members."""
        directory = open_directory(name, parent.dir_fd)
        try:
            self._drop_unplaced(ResolvedDirectory(directory, path))
            self._below.hide_all(directory, path)
        finally:
            os.close(directory)

    def _drop_unplaced(self, parent: ResolvedDirectory) -> None:
        """Remove files below `parent` that are not members of this archive."""
        if self._placed.holds_all:
            return
        walk = Descent(parent.dir_fd)
        todo = [(parent.path, b"", os.listdir(parent.dir_fd))]
        try:
            while todo:
                above, base, names = todo[-1]
                if names:
                    child = os.fsencode(names.pop())
                    name = above + b"/" + child if above else child
                    found = lstat_at(walk.here.fd, child)
                    if found is None:
                        continue
                    if stat.S_ISDIR(found.st_mode):
                        todo.append((name, child, os.listdir(walk.enter(child).fd)))
                    elif is_whiteout(found) or not self._placed.is_placed(name):
                        self._discard(walk.here.fd, child, name)
                    continue
                todo.pop()
                if todo:
                    walk.leave()
                    self._is_kept(ResolvedDirectory(walk.here.fd, todo[-1][0]), base, above)
        finally:
            walk.close()

    def _is_kept(self, parent: ResolvedDirectory, name: bytes, path: bytes) -> bool:
        """Return whether a directory stays in which all files except members are hidden.

        An implied directory exists for its members only: it loses its attributes of earlier layers,
        and is removed without members.
        """
        if self._placed.is_placed(path):
            return True
        directory = open_directory(name, parent.dir_fd)
        try:
            is_empty = not os.listdir(directory)
        finally:
            os.close(directory)
        if is_empty:
            self._discard(parent.dir_fd, name, path)
            return False
        set_attributes(parent.dir_fd, name, self._surroundings.implied)
        self._placed.forget_time(path)
        return True


def _follow_all(path: bytes, below: bool) -> bool:
    return True


def _follow_nothing(path: bytes, below: bool) -> bool:
    return False


def _make(
    member: Member, parent: ResolvedDirectory, base: bytes, attributes: Attributes, reader: Reader
) -> int:
    """Create a file that is neither directory nor hard link; return its bytes. Raises
    FileExistsError.
    """
    entry = member.entry
    dir_fd, _, inherits = parent
    if entry.kind is not FILE:
        _make_special(entry, parent, base, attributes)
        return len(entry.linkname)
    if member.stored > _SMALL or member.segments is not None or attributes.xattrs:
        make_file(dir_fd, base, attributes, partial(_write, member, reader), inherits)
    else:
        make_small_file(dir_fd, base, attributes, reader.read, inherits)
    return entry.size


def _make_special(
    entry: Entry, parent: ResolvedDirectory, base: bytes, attributes: Attributes
) -> None:
    if entry.kind is Kind.SYMLINK:
        make_symlink(parent.dir_fd, base, entry.linkname, attributes)
        return
    device = os.makedev(entry.major, entry.minor)
    if entry.kind is Kind.CHARACTER and device == 0:
        raise BadArchive(
            f"{entry.name!r} is a character device 0:0, which overlayfs takes for a deletion"
        )
    kind, inherits = _FORMATS[entry.kind], parent.has_default_acl
    make_special(parent.dir_fd, base, kind, device, attributes, inherits)


def _write(member: Member, reader: Reader, descriptor: int) -> None:
    if member.segments is None:
        reader.copy(member.stored, descriptor)
        return
    for offset, length in member.segments:
        os.lseek(descriptor, offset, os.SEEK_SET)
        reader.copy(length, descriptor)
    os.ftruncate(descriptor, member.entry.size)
