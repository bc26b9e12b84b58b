"""Differences between two directories, for drivers without their own diff.

Both sides are walked in parallel. Equal metadata is not sufficient for equality, except that the
same inode has the same content. `NaiveDiffer` adds the verbs diff, changes, diff_size and
apply_diff to any driver with get and put.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from graphdriver.apply.target import view_target
from graphdriver.apply.unpack import unpack
from graphdriver.archive.stream import open_stream
from graphdriver.archive.writer import Record
from graphdriver.contract import Change, ChangeKind
from graphdriver.differ.compare import report, same_directory, same_file
from graphdriver.differ.records import RecordMaker
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import at
from graphdriver.tree.descent import Descent, OpenDirectory
from graphdriver.tree.xattrs import exported_xattrs

__all__ = ["NaiveDiffer", "Views", "changes", "records", "size"]


class _Sides(NamedTuple):
    """A directory of the new side, and the one with the same path on the old side, or None."""

    new: OpenDirectory
    old: OpenDirectory | None


class _Pair(NamedTuple):
    """One path: its lstat on the new side and on the old one, None if it does not exist."""

    name: bytes
    base: bytes
    sides: "_Sides"
    new: os.stat_result | None
    old: os.stat_result | None
    depth: int

    @property
    def is_directory(self) -> bool:
        """Whether the path is a directory on the new side."""
        return self.new is not None and stat.S_ISDIR(self.new.st_mode)

    def is_changed(self) -> bool:
        """Return whether the file itself differs between the sides."""
        if self.new is None or self.old is None:
            return True
        same = same_directory if self.is_directory else same_file
        assert self.sides.old
        new, old = (at(side.fd, self.base) for side in (self.sides.new, self.sides.old))
        return not same(new, self.new, old, self.old)


def changes(new: Path, old: Path | None) -> list[Change]:
    """Return the differences of `new` from `old` (None: an empty tree), sorted by path."""
    kinds: dict[bytes, ChangeKind] = {}
    for pair in _walk(new, old):
        if pair.new is None:
            report(kinds, pair.name, ChangeKind.DELETE)
        elif pair.old is None:
            report(kinds, pair.name, ChangeKind.ADD)
        elif pair.is_changed():
            report(kinds, pair.name, ChangeKind.MODIFY)
    return sorted(Change(b"/" + name, kind) for name, kind in kinds.items())


def records(new: Path, old: Path | None, ids: IDMapping) -> Iterator[Record]:
    """Yield the archive records that turn `old` into `new`. Raises UnmappedId, OSError."""
    maker = RecordMaker(ids)
    yield from _root_record(new, old, ids, maker)
    regrouped = _regrouped(new, old) if old else set()
    waiting: list[Record | None] = []
    for pair in _walk(new, old):
        del waiting[pair.depth :]
        changed = _inode(pair.new) in regrouped or pair.is_changed()
        if not changed and not pair.is_directory:
            continue
        if pair.new is None:
            directory, _, base = pair.name.rpartition(b"/")
            record: Record | None = maker.whiteout(directory, base)
        else:
            record = maker.record(pair.sides.new.fd, pair.base, pair.name, pair.new)
        if not changed:
            waiting.append(record)
            continue
        if record is not None:
            yield from (one for one in waiting if one)
            waiting = [None] * len(waiting)
            yield record
        if pair.is_directory:
            waiting.append(None)


def size(new: Path, old: Path | None) -> int:
    """Return the bytes of added and modified non-directories, hard links counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for pair in _walk(new, old):
        found = pair.new
        if found is None or pair.is_directory or (found.st_dev, found.st_ino) in seen:
            continue
        if pair.is_changed():
            total += found.st_size
            if found.st_nlink > 1:
                seen.add((found.st_dev, found.st_ino))
    return total


class Views(Protocol):
    """The two verbs that the differ needs of a driver."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Mount a layer and return the path."""

    def put(self, id: str) -> None:
        """Release one get."""


class NaiveDiffer:
    """diff, changes, diff_size and apply_diff for any driver with get and put.

    Usage in a driver: `self._differ = NaiveDiffer(self, ids)`, then delegate the four verbs. A
    failed apply_diff leaves a part of the archive in the layer; a driver that can roll back has to
    do so itself.
    """

    def __init__(self, views: Views, ids: IDMapping | None = None) -> None:
        self._views = views
        self._ids = ids or IDMapping()

    def diff(
        self, id: str, parent: str = "", release: Callable[[], None] = lambda: None
    ) -> BinaryIO:
        """Return the archive; both layers are held until it is closed. `release` runs after that.

        The garbage collector may close it, at any point of any thread.
        """
        with ExitStack() as undo:
            undo.callback(release)
            new = self._hold(undo, id)
            old = self._hold(undo, parent) if parent else None
            held = undo.pop_all()
        return open_stream(records(new, old, self._ids), held.close)

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Return the paths that differ."""
        with ExitStack() as held:
            new = self._hold(held, id)
            return changes(new, self._hold(held, parent) if parent else None)

    def diff_size(self, id: str, parent: str = "") -> int:
        """Return the bytes that differ."""
        with ExitStack() as held:
            new = self._hold(held, id)
            return size(new, self._hold(held, parent) if parent else None)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Unpack an archive through the layer's view."""
        with ExitStack() as held:
            return unpack(diff, view_target(self._hold(held, id), self._ids.root), self._ids)

    def _hold(self, held: ExitStack, id: str) -> Path:
        view = self._views.get(id)
        held.callback(self._views.put, id)
        return view


def _root_record(
    new: Path, old: Path | None, ids: IDMapping, maker: RecordMaker
) -> Iterator[Record]:
    path, found = os.fsencode(new), os.stat(new)
    if old is None:
        plain = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
        differs = plain != (0o755, *ids.root) or bool(exported_xattrs(path))
    else:
        differs = not same_directory(path, found, os.fsencode(old), os.stat(old))
    if differs:
        descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            record = maker.record(descriptor, b".", b"", found)
        finally:
            os.close(descriptor)
        if record is not None:
            yield record


def _regrouped(new: Path, old: Path) -> set[tuple[int, int]]:
    """Return the inodes of `new` whose names differ from those of the inode in `old`.

    All names of such a group are written to the archive, so that they are hard links again after
    apply_diff: an archive can only link to its own members.
    """
    names: dict[tuple[int, int], int] = {}
    origins: dict[tuple[int, int], set[tuple[int, int] | None]] = {}
    counts: dict[tuple[int, int], int] = {}
    for pair in _walk(new, old):
        inode = _inode(pair.new)
        linked = any(side is not None and side.st_nlink > 1 for side in (pair.new, pair.old))
        if inode is None or pair.is_directory or not linked:
            continue
        names[inode] = names.get(inode, 0) + 1
        origin = _inode(pair.old)
        origins.setdefault(inode, set()).add(origin)
        if origin and pair.old:
            counts[origin] = pair.old.st_nlink
    return {
        inode
        for inode, found in origins.items()
        if len(found) > 1 or (origin := next(iter(found))) is None or counts[origin] != names[inode]
    }


def _inode(found: os.stat_result | None) -> tuple[int, int] | None:
    return (found.st_dev, found.st_ino) if found else None


def _walk(new: Path, old: Path | None) -> Iterator[_Pair]:
    """Walk both sides, parents first, deletions before their siblings."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with ExitStack() as held:
        roots = []
        for root in (new, old) if old else (new,):
            roots.append(os.open(root, flags))
            held.callback(os.close, roots[-1])
        walks = [held.enter_context(closing(Descent(root))) for root in roots]
        yield from _pairs(walks[0], walks[1] if old else None)


def _pairs(new: Descent, old: Descent | None) -> Iterator[_Pair]:
    """Walk from where both descents are; `old` stays behind where it has no such directory."""
    sides = _Sides(new.here, old.here if old else None)
    stack = [(sides, _children(b"", sides, 0))]
    while stack:
        sides, children = stack[-1]
        pair = next(children, None)
        if pair is None:
            stack.pop()
            if stack:
                new.leave()
                if old and sides.old:
                    old.leave()
            continue
        yield pair
        if pair.is_directory:
            both = pair.old is not None and stat.S_ISDIR(pair.old.st_mode)
            below = _Sides(new.enter(pair.base), old.enter(pair.base) if old and both else None)
            stack.append((below, _children(pair.name, below, pair.depth + 1)))


def _children(directory: bytes, sides: _Sides, depth: int) -> Iterator[_Pair]:
    new = _nodes(sides.new.fd)
    old = _nodes(sides.old.fd) if sides.old else {}
    prefix = directory + b"/" if directory else b""
    for base in sorted(old.keys() - new.keys()):
        yield _Pair(prefix + base, base, sides, None, old[base], depth)
    for base in sorted(new):
        yield _Pair(prefix + base, base, sides, new[base], old.get(base), depth)


def _nodes(descriptor: int) -> dict[bytes, os.stat_result]:
    names = map(os.fsencode, os.listdir(descriptor))
    return {name: os.stat(name, dir_fd=descriptor, follow_symlinks=False) for name in names}
