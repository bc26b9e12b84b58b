"""The changes of a layer, read from its overlay upper directory.

Only the upper is walked; lowers are read only for names in the upper. This is correct if the upper
contains no redirects and no metacopies: a walk that finds one raises NotNative, and the caller
compares two views instead.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from graphdriver.archive.writer import NotNative, Record
from graphdriver.contract import Change, ChangeKind
from graphdriver.differ.compare import report, same_directory, same_file
from graphdriver.differ.records import RecordMaker
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import at
from graphdriver.overlayfs.format import is_opaque, is_whiteout
from graphdriver.overlayfs.lowers import Found, LowerTree
from graphdriver.tree.descent import Descent, OpenDirectory
from graphdriver.tree.xattrs import exported_xattrs, listxattr

__all__ = ["Upper"]

# Up to this number of lower directories a name is looked up in each; above it, they are listed
# once.
_FEW = 4


class _Directory(NamedTuple):
    """A directory of the upper; `hidden` means that it hides all entries of `lowers`."""

    opened: OpenDirectory
    name: bytes
    lowers: Sequence[bytes]
    hidden: bool


class _Step(NamedTuple):
    """One name: lstat in the upper (None if whited out) and the entry in the lower layers."""

    here: _Directory
    base: bytes
    status: os.stat_result | None
    lower: Found | None
    depth: int
    opaque: bool

    @property
    def name(self) -> bytes:
        """The path from the root."""
        return self.here.name + b"/" + self.base if self.here.name else self.base

    @property
    def path(self) -> bytes:
        """The file in the upper, for calls without a descriptor."""
        return at(self.here.opened.fd, self.base)

    @property
    def is_directory(self) -> bool:
        """Whether the path is a directory in the upper."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    def is_changed(self) -> bool:
        """Return whether the upper's file differs from the lower one."""
        assert self.status is not None
        if self.lower is None:
            return True
        if self.is_directory:
            return not same_directory(self.path, self.status, *self.lower)
        return not same_file(self.path, self.status, *self.lower)


class Upper:
    """The upper directory `diff` over `lowers`."""

    def __init__(
        self,
        diff: Path,
        lowers: LowerTree,
        xattr_prefix: str = "trusted.overlay.",
        ids: IDMapping | None = None,
    ) -> None:
        self._diff = os.fsencode(diff)
        self._lowers = lowers
        self._prefix = xattr_prefix
        self._ids = ids or IDMapping()

    def changes(self) -> list[Change]:
        """Return the differences from the lowers, sorted; parents of a change are changes, too."""
        kinds: dict[bytes, ChangeKind] = {}
        for step in self._walk():
            if step.status is None:
                report(kinds, step.name, ChangeKind.DELETE)
            elif step.lower is None:
                report(kinds, step.name, ChangeKind.ADD)
            elif step.is_changed():
                report(kinds, step.name, ChangeKind.MODIFY)
        return sorted(Change(b"/" + name, kind) for name, kind in kinds.items())

    def records(self) -> Iterator[Record]:
        """Yield the records of the layer's archive, whiteouts before their siblings.

        An unchanged directory with changes below is included, so that applying the archive restores
        its mode and owner. All names of a hard link are included, so that they are links again.
        Raises NotNative, UnmappedId, OSError.
        """
        maker = RecordMaker(self._ids, self._prefix + "metacopy")
        yield from self._root_record(maker)
        if not self._lowers:
            with _opened(self._diff) as root:
                yield from maker.whole(root, b"")
            return
        # The parents of the current directory whose records were not needed yet.
        waiting: list[Record | None] = []
        for step in self._walk():
            del waiting[step.depth :]
            if step.status is None:
                record = None if step.here.hidden else maker.whiteout(step.here.name, step.base)
            else:
                record = maker.record(step.here.opened.fd, step.base, step.name, step.status)
            if step.is_directory and not self._is_needed(step):
                waiting.append(record)
                continue
            if record is not None and (step.status is None or self._is_needed(step)):
                yield from (one for one in waiting if one)
                waiting = [None] * len(waiting)
                yield record
                if step.opaque and step.lower:
                    yield maker.opaque(step.name)
            if step.is_directory:
                waiting.append(None)

    def check(self) -> None:
        """Raise NotNative if a directory is redirected, before the archive starts.

        Only directories are read. Metacopies are found later: mounts without the option refuse them
        as well.
        """
        if not self._lowers:
            return
        with _opened(self._diff) as root:
            walk = Descent(root)
            todo = [_directories(root)]
            try:
                while todo:
                    if self._prefix + "redirect" in listxattr(walk.here.fd):
                        raise NotNative("a directory was renamed, its content is in another path")
                    while todo and not todo[-1]:
                        todo.pop()
                        if todo:
                            walk.leave()
                    if todo:
                        todo.append(_directories(walk.enter(todo[-1].pop()).fd))
            finally:
                walk.close()

    def size(self) -> int:
        """Return the bytes of added and modified non-directories, hard links counted once."""
        seen: set[tuple[int, int]] = set()
        total = 0
        for step in self._walk():
            status = step.status
            if status is None or step.is_directory:
                continue
            if (status.st_dev, status.st_ino) not in seen and step.is_changed():
                total += status.st_size
                if status.st_nlink > 1:
                    seen.add((status.st_dev, status.st_ino))
        return total

    def _is_needed(self, step: _Step) -> bool:
        """Return whether the archive is equivalent without this file."""
        assert step.status is not None
        if step.here.hidden or step.opaque:
            return True
        linked = step.status.st_nlink > 1 and not step.is_directory
        return linked or step.is_changed()

    def _root_record(self, maker: RecordMaker) -> Iterator[Record]:
        """Yield the root's record if its mode, owner or xattrs differ from the lower root's."""
        with _opened(self._diff) as root:
            found, lower = os.fstat(root), self._lowers.lookup(b"")
            if lower is None:
                plain = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
                differs = plain != (0o755, *self._ids.root) or bool(exported_xattrs(self._diff))
            else:
                differs = not same_directory(self._diff, found, *lower)
            record = maker.record(root, b".", b"", found) if differs else None
        if record is not None:
            yield record

    def _walk(self) -> Iterator[_Step]:
        """Walk the upper, parents first, names in byte order, deletions first."""
        with _opened(self._diff) as descriptor:
            walk = Descent(descriptor)
            root = _Directory(walk.here, b"", self._lowers.contributors(b""), False)
            stack = [self._children(root, 0)]
            try:
                while stack:
                    step = next(stack[-1], None)
                    if step is None:
                        stack.pop()
                        if stack:
                            walk.leave()
                        continue
                    yield step
                    if step.is_directory:
                        below = self._enter(step, walk)
                        stack.append(self._children(below, step.depth + 1))
            finally:
                walk.close()

    def _enter(self, step: _Step, walk: Descent) -> _Directory:
        lowers = self._lowers.contributors(step.name) if step.here.lowers else ()
        hidden = step.here.hidden or step.opaque
        return _Directory(walk.enter(step.base), step.name, lowers, hidden)

    def _children(self, here: _Directory, depth: int) -> Iterator[_Step]:
        descriptor = here.opened.fd
        upper_entries = {
            name: os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            for name in sorted(map(os.fsencode, os.listdir(descriptor)))
        }
        below = self._lookup(here, len(upper_entries))
        gone = [name for name, status in upper_entries.items() if is_whiteout(status)]
        if here.hidden and here.lowers:
            listed = self._lowers.list_merged(here.lowers)
            gone += [name for name in listed if name not in upper_entries]
        for name in sorted(gone):
            lower = below(name)
            if lower is not None:
                yield _Step(here, name, None, lower, depth, False)
        for name, status in upper_entries.items():
            if is_whiteout(status):
                continue
            lower = below(name)
            opaque = stat.S_ISDIR(status.st_mode) and self._is_opaque(here, name, lower)
            yield _Step(here, name, status, lower, depth, opaque)

    def _lookup(self, here: _Directory, count: int) -> Callable[[bytes], Found | None]:
        """Return a function that finds a lower name by lstat, or by one listing for many names."""
        if not here.lowers:
            return lambda _: None
        if len(here.lowers) <= _FEW or count <= _FEW:
            return lambda name: self._lowers.lookup_in(here.lowers, name)
        return self._lowers.list_merged(here.lowers).get

    def _is_opaque(self, here: _Directory, name: bytes, lower: Found | None) -> bool:
        """Return whether a directory is opaque over entries. Raises NotNative for a redirect."""
        names = listxattr(at(here.opened.fd, name))
        if self._prefix + "redirect" in names:
            raise NotNative(f"{name!r} was renamed, its content is in another lower path")
        if lower is None or self._prefix + "opaque" not in names:
            return False
        return is_opaque(at(here.opened.fd, name), self._prefix)


def _directories(descriptor: int) -> list[bytes]:
    with os.scandir(descriptor) as entries:
        return [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]


@contextmanager
def _opened(path: bytes) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
