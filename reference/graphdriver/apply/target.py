"""What both targets do alike: place members, link, note times and what this archive placed."""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from graphdriver.archive.entry import DIRECTORY, FILE, HARDLINK, Entry, Kind
from graphdriver.archive.reader import Member, Reader
from graphdriver.errors import BadArchive
from graphdriver.overlayfs.marks import is_whiteout
from graphdriver.tree.descent import Descent
from graphdriver.tree.inodes import (
    Attributes,
    make_file,
    make_small_file,
    make_special,
    make_symlink,
    set_attributes,
)
from graphdriver.tree.removal import remove_node
from graphdriver.tree.resolve import Below, Place, Resolver, lstat_at, open_directory

__all__ = ["DirectoryTarget"]

_FORMATS = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
# Files up to this are read whole and written at once.
_SMALL = 1 << 16


class DirectoryTarget:
    """Writes members below a directory; subclasses decide what whiteouts become.

    `placed` holds the real paths that this archive has put there, so that whiteouts spare them. It
    is None where nothing was there before: then whatever is there was placed by this archive.
    """

    def __init__(self, root: Path, below: Below, *, remember: bool) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self.root = Place(os.open(root, flags), b"")
        self.placed: set[bytes] | None = set() if remember else None
        self.resolver = Resolver(self.root.dir_fd, below, self._clear_the_way)
        # Directories that are there for a marker's sake only: a whiteout of them takes them away.
        self.implied: set[bytes] = set()
        self._times: dict[bytes, int] = {}

    def place(self, member: Member, attributes: Attributes, reader: Reader) -> int:
        """Put a member there; see unpack.Target."""
        entry = member.entry
        if not entry.name:
            return self._place_root(entry, attributes)
        directory, _, base = entry.name.rpartition(b"/")
        place = self.resolver.directory(directory)
        assert place is not None
        path = place.child(base)
        again = self._note_placed(path)
        kind = entry.kind
        if kind is DIRECTORY:
            return -self._place_directory(place, base, path, attributes, again)
        if kind is HARDLINK:
            return self._place_link(entry, place, base, path, again)

        try:
            return _make(member, place, base, attributes, reader)
        except FileExistsError:
            # Rare: looking first would cost every file a system call.
            freed = self._make_room(place, base, path, again)
            return _make(member, place, base, attributes, reader) - freed

    def finish(self) -> None:
        """Set the directories' times, which writing into them has changed.

        Parents first, as their descriptors are then at hand: utime(2) of a child leaves its
        parent's time alone.
        """
        for path in sorted(self._times):
            directory, _, base = path.rpartition(b"/")
            place = self.resolver.directory(directory, make=False)
            if place is None or not (found := lstat_at(place.dir_fd, base or b".")):
                continue
            if stat.S_ISDIR(found.st_mode):
                times = (self._times[path], self._times[path])
                os.utime(base or b".", ns=times, dir_fd=place.dir_fd, follow_symlinks=False)

    def close(self) -> None:
        """Release descriptors."""
        self.resolver.close()
        if self.root.dir_fd >= 0:
            os.close(self.root.dir_fd)
            self.root = Place(-1, b"")

    def note_time(self, path: bytes, mtime: int) -> None:
        """Remember what a directory's mtime is to be in the end, in nanoseconds."""
        self._times[path] = mtime

    def entered(self, path: bytes, found: os.stat_result) -> None:
        """Let a directory that the archive only speaks of keep its time (resolve.Below)."""
        self._times.setdefault(path, found.st_mtime_ns)

    def is_placed(self, path: bytes) -> bool:
        """Say whether this archive has put `path`, or something below it, there."""
        return path not in self.implied and (self.placed is None or path in self.placed)

    def discard(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Remove what is in the way of something else."""
        remove_node(dir_fd, name)
        self.resolver.forget(path)
        self._times.pop(path, None)

    def before_directory(self, place: Place, name: bytes, path: bytes, *, replaced: bool) -> None:
        """Do what a new directory of the archive needs; `replaced` says something had its name."""

    def copy_up(self, place: Place, name: bytes, path: bytes) -> bool:
        """Bring the non-directory `path` up from below, for a hard link to it; False: not there."""
        return False

    def drop_unplaced(self, place: Place) -> None:
        """Remove what was there before this archive, at any depth of `place`."""
        assert self.placed is not None
        for walk, path, child, found in _nodes_below(place):
            if path not in self.placed:
                self.discard(walk.here.fd, child, path)
            elif stat.S_ISDIR(found.st_mode):
                walk.enter(child)

    def _note_placed(self, path: bytes) -> bool:
        """Note that `path` is this archive's; say whether an earlier member had put it there."""
        if self.placed is None and not self.implied:
            return True
        above = path.rpartition(b"/")[0]
        self.implied.discard(path)
        while self.implied and above:
            self.implied.discard(above)
            above = above.rpartition(b"/")[0]
        if self.placed is None:
            return True
        again = path in self.placed
        while path and path not in self.placed:
            self.placed.add(path)
            path = path.rpartition(b"/")[0]
        return again

    def _clear_the_way(self, dir_fd: int, name: bytes, path: bytes) -> None:
        found = lstat_at(dir_fd, name)
        if found and not is_whiteout(found) and self.is_placed(path):
            raise BadArchive(f"{path!r} is no directory in the archive, but has members below it")
        self.discard(dir_fd, name, path)

    def _place_root(self, entry: Entry, attributes: Attributes) -> int:
        if entry.kind is not DIRECTORY:
            raise BadArchive(f"the layer's root is a {entry.kind.name.lower()} in the archive")
        set_attributes(self.root.dir_fd, b".", attributes)
        self.note_time(b"", attributes.mtime)
        return 0

    def _place_directory(
        self, place: Place, base: bytes, path: bytes, attributes: Attributes, again: bool
    ) -> int:
        """Make a directory, or give the one that is there its attributes; return what went."""
        found, freed = lstat_at(place.dir_fd, base), 0
        if found is None or not stat.S_ISDIR(found.st_mode):
            if found is not None:
                freed = self._make_room(place, base, path, again)
            os.mkdir(base, 0o700, dir_fd=place.dir_fd)
            self.before_directory(place, base, path, replaced=found is not None)
        set_attributes(place.dir_fd, base, attributes)
        self.note_time(path, attributes.mtime)
        return freed

    def _place_link(self, entry: Entry, place: Place, base: bytes, path: bytes, again: bool) -> int:
        directory, _, name = entry.linkname.rpartition(b"/")
        source = self.resolver.directory(directory, make=False) if name else None
        found = lstat_at(source.dir_fd, name) if source else None
        if source and (found is None or is_whiteout(found)):
            # The way to it may lie below only: then it has to be made.
            source = self.resolver.directory(directory) if found is None else source
            assert source is not None
            if found is None and self.copy_up(source, name, source.child(name)):
                found = lstat_at(source.dir_fd, name)
        if source is None or found is None or is_whiteout(found):
            raise BadArchive(
                f"{entry.name!r} is a hard link to {entry.linkname!r}, which is not there"
            )
        if stat.S_ISDIR(found.st_mode):
            raise BadArchive(f"{entry.name!r} is a hard link to the directory {entry.linkname!r}")
        # Making one end's way may have closed the descriptor of the other's.
        source_path, source_fd = source.child(name), os.dup(source.dir_fd)
        try:
            if source_path == path:
                raise BadArchive(f"{entry.name!r} is a hard link to itself")
            place = self.resolver.directory(entry.name.rpartition(b"/")[0]) or place
            freed = self._make_room(place, base, path, again)
            os.link(
                name, base, src_dir_fd=source_fd, dst_dir_fd=place.dir_fd, follow_symlinks=False
            )
        finally:
            os.close(source_fd)
        return -freed

    def _make_room(self, place: Place, base: bytes, path: bytes, again: bool) -> int:
        """Remove what has the name; return the bytes that go, if `again` this archive's own."""
        found = lstat_at(place.dir_fd, base)
        if found is None:
            return 0
        freed = 0
        if stat.S_ISDIR(found.st_mode):
            freed = self._bytes_below(place, base, path) if again else 0
        elif again and found.st_nlink == 1:
            freed = found.st_size
        self.discard(place.dir_fd, base, path)
        return freed

    def _bytes_below(self, place: Place, base: bytes, path: bytes) -> int:
        total = 0
        descriptor = open_directory(base, place.dir_fd)
        try:
            for walk, name, child, found in _nodes_below(Place(descriptor, path)):
                if stat.S_ISDIR(found.st_mode):
                    walk.enter(child)
                elif found.st_nlink == 1 and (self.placed is None or name in self.placed):
                    total += found.st_size
        finally:
            os.close(descriptor)
        return total


def _nodes_below(
    place: Place,
) -> Iterator[tuple[Descent, bytes, bytes, os.stat_result]]:
    """Yield what is in `place`: the walk, path, name, lstat; who wants what is below, enters it."""
    walk = Descent(place.dir_fd)
    todo = [(place.path, os.listdir(place.dir_fd))]
    try:
        while todo:
            path, names = todo[-1]
            if not names:
                todo.pop()
                if todo:
                    walk.leave()
                continue
            child = os.fsencode(names.pop())
            found = lstat_at(walk.here.fd, child)
            if found is None:
                continue
            name = path + b"/" + child if path else child
            yield walk, name, child, found
            if len(walk) > len(todo):
                todo.append((name, os.listdir(walk.here.fd)))
    finally:
        walk.close()


def _make(member: Member, place: Place, base: bytes, attributes: Attributes, reader: Reader) -> int:
    """Make what is neither directory nor hard link; return its bytes. Raises FileExistsError."""
    entry = member.entry
    if entry.kind is not FILE:
        _make_special(entry, place, base, attributes)
        return len(entry.linkname)
    if member.stored > _SMALL or member.segments is not None or attributes.xattrs:
        make_file(place.dir_fd, base, attributes, partial(_write, member, reader))
    else:
        make_small_file(place.dir_fd, base, attributes, reader.read)
    return entry.size


def _make_special(entry: Entry, place: Place, base: bytes, attributes: Attributes) -> None:
    if entry.kind is Kind.SYMLINK:
        make_symlink(place.dir_fd, base, entry.linkname, attributes)
        return
    device = os.makedev(entry.major, entry.minor)
    if entry.kind is Kind.CHARACTER and device == 0:
        raise BadArchive(
            f"{entry.name!r} is a character device 0:0, which overlayfs takes for a deletion"
        )
    make_special(place.dir_fd, base, _FORMATS[entry.kind], device, attributes)


def _write(member: Member, reader: Reader, descriptor: int) -> None:
    if member.segments is None:
        reader.copy(member.stored, descriptor)
        return
    for offset, length in member.segments:
        os.lseek(descriptor, offset, os.SEEK_SET)
        reader.copy(length, descriptor)
    os.ftruncate(descriptor, member.entry.size)
