"""Who stands on a layer: locks, holds and parentage of all layers of a home, in one place.

* Within a process each layer has a lock. A verb takes the locks that it needs at once and in one
  order (`locked`), so that create, remove, get, put and apply_diff of one layer, and create on it,
  come one after the other.
* Between processes the directory of short names is locked: shared while a layer is mounted, alone
  while a layer gets or loses its name or its tree is exchanged.
* Whatever uses a layer, and so reads all layers below it, is noted with their short names
  (`using`).
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from graphdriver.errors import DriverError, LayerInUse, LayerNotFound
from graphdriver.linux.mounts import mountinfo
from graphdriver.overlay2.layout import LINKS, Home
from graphdriver.overlay2.recovery import require_no_apply

__all__ = ["LayerTable"]


class _LayerLock:
    """A layer's lock, kept while anyone holds or awaits it, also when the layer is removed:

    a second lock for the same id would let two threads in.
    """

    __slots__ = ("held", "users")

    def __init__(self) -> None:
        self.held = threading.RLock()
        self.users = 0


class LayerTable:
    """The layers of one home and who uses them."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._locks: dict[str, _LayerLock] = {}
        self._holds: dict[str, int] = {}
        # Uses by their token: the id for those that hold a layer, an object for each other one.
        self._uses: dict[object, tuple[str, Sequence[str]]] = {}
        # Reentrant: a diff that is given up is closed by the collector, in whatever thread it runs.
        self._guard = threading.RLock()
        self._children = _Children(home)

    @contextmanager
    def locked(self, *ids: str) -> Iterator[None]:
        """Do something with layers while nobody else mounts, unmounts, changes or removes them."""
        if len(ids) > 1:
            ids = tuple(sorted(set(ids)))
        with self._guard:
            locks = [self._locks.setdefault(id, _LayerLock()) for id in ids]
            for lock in locks:
                lock.users += 1
        taken = 0
        try:
            for lock in locks:
                lock.held.acquire()
                taken += 1
            yield
        finally:
            for lock in reversed(locks[:taken]):
                lock.held.release()
            with self._guard:
                for id, lock in zip(ids, locks, strict=True):
                    lock.users -= 1
                    if not lock.users:
                        del self._locks[id]

    def create(self, id: str, parent: str, prepare: Callable[[Path], None]) -> None:
        """Make a layer; `prepare` gets its directory before there is anything in it.

        Raises LayerExists, LayerNotFound, MaxDepthExceeded, OSError; nothing is left then.
        """
        with self.locked(id, parent) if parent else self.locked(id):
            self._home.require_absent(id)
            try:
                with (
                    self._home.drafted(id, parent, prepare) as draft,
                    self.using(id, draft.lowers),
                    self._children.changing() as change,
                ):
                    self._home.publish(draft, change.links, change.advance)
                    change.add(id, parent)
            except (DriverError, OSError) as error:
                # Another process may remove the parent at any point before the publication.
                if parent and self._is_gone(parent):
                    raise LayerNotFound(
                        f"there is no layer {parent} any more", "create it first"
                    ) from error
                raise

    def _is_gone(self, id: str) -> bool:
        """Say whether a layer is certainly not there: an error of the disk is no answer."""
        try:
            return not self._home.is_layer(id)
        except OSError:
            return False

    def remove(self, id: str, release: Callable[[], None]) -> None:
        """Remove a layer that nobody holds and that has no children; `release` ends stale mounts.

        Raises LayerInUse, OSError; the layer is there then.
        """
        with self.locked(id):
            if not self._home.is_layer(id):
                return
            if holds := self._holds.get(id):
                raise LayerInUse(
                    f"layer {id} is held by {holds} get(s)", "put it first, then remove it"
                )
            with self._children.changing() as change:
                if not self._home.is_layer(id):  # another process was faster
                    return
                require_no_apply(self._home.path / id)
                if self._children.has(id, change.links):
                    raise LayerInUse(f"layer {id} has children", "remove those first")
                release()
                remnant = self._home.withdraw(id, change.links, change.advance)
                change.discard(id)
            self._home.discard(remnant)

    @contextmanager
    def mounting(self, id: str) -> Iterator[bool]:
        """Mount a layer in the block, while no other process exchanges a tree below it.

        The block gets whether the layer has children.
        """
        with self._home.links(fcntl.LOCK_SH) as links:
            yield self._children.has(id, links)

    @contextmanager
    def using(self, id: str, lowers: Sequence[str]) -> Iterator[None]:
        """Read a layer and all below it in the block: no tree below it is exchanged meanwhile."""
        token = object()
        with self._guard:
            self._uses[token] = (id, lowers)
        try:
            yield
        finally:
            del self._uses[token]

    @contextmanager
    def exchanging(self, id: str) -> Iterator[None]:
        """Exchange a layer's tree in the block, which nobody above it may be using.

        Raises LayerInUse.
        """
        with self._home.links(fcntl.LOCK_EX) as links, self._guard:
            self._require_unused_above(id, links)
            yield

    def require_unused_above(self, id: str) -> None:
        """Raise LayerInUse when a descendant of a layer is held, made, or read."""
        with self._home.links(fcntl.LOCK_SH) as links, self._guard:
            self._require_unused_above(id, links)

    def is_held(self, id: str) -> bool:
        """Say whether someone holds the layer. Ask with its lock."""
        return id in self._holds

    def hold(self, id: str, lowers: Sequence[str]) -> None:
        """Count one more holder. Call with the layer's lock."""
        self._uses[id] = (id, lowers)
        self._holds[id] = self._holds.get(id, 0) + 1

    def release(self, id: str) -> None:
        """Count one holder less. Call with the layer's lock."""
        if self.holders(id) > 1:
            self._holds[id] -= 1
        else:
            self.forget(id)

    def holders(self, id: str) -> int:
        """Return how many hold a layer. Ask with its lock."""
        return self._holds.get(id, 0)

    def forget(self, id: str) -> None:
        """Forget who holds a layer. Call with its lock."""
        self._holds.pop(id, None)
        self._uses.pop(id, None)

    def held(self) -> list[str]:
        """Return the layers that someone holds."""
        return list(self._holds)

    def _require_unused_above(self, id: str, links: int) -> None:
        names = {f"{LINKS}/{name}" for name in self._home.short_names(id)}
        self._refuse(id, names, list(self._uses.values()))
        if self._children.has(id, links):
            self._refuse(id, names, self._mounted())

    def _refuse(self, id: str, names: set[str], uses: Iterable[tuple[str, Sequence[str]]]) -> None:
        for user, lowers in uses:
            if not names.isdisjoint(lowers):
                raise LayerInUse(
                    f"layer {id} is below layer {user}, which is in use",
                    f"put {user} first, and end diffs of it; cleanup ends mounts of a dead process",
                )

    def _mounted(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield what other processes have mounted, or what dead ones have left."""
        depth = len(self._home.path.parts)
        for entry in mountinfo(self._home.path):
            if entry.type == "overlay":
                id = entry.point.parts[depth]
                with suppress(DriverError, OSError, ValueError):
                    yield id, self._home.lowers(id)


class _Children:
    """Which layers stand directly on which, as the disk has it; other processes change it, too.

    The times of the directory of short names are the version. Whoever changes who stands on whom
    has that directory locked and makes its modification time greater (`_Change.advance`), so that
    equal times mean equal content also where a clock tick is longer than a change takes.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._parents: dict[str, str] = {}
        self._children: dict[str, set[str]] = {}
        # Layers whose parent's short name points nowhere, by that name.
        self._lost: dict[str, set[str]] = {}
        self._version: tuple[int, int] | None = None
        with home.links() as links:
            self.refresh(links)

    def has(self, id: str, links: int) -> bool:
        """Say whether a layer stands directly on `id`. Ask with the short names locked.

        A layer whose own short name is damaged may be the parent of any whose parent is lost.
        """
        with self._lock:
            self.refresh(links)
            if id in self._children:
                return True
            if not self._lost:
                return False
            link = self._home.link(id)
            return link in self._lost if link else any(ids - {id} for ids in self._lost.values())

    @contextmanager
    def changing(self) -> Iterator["_Change"]:
        """Change who stands on whom in the block, alone."""
        with self._home.links(fcntl.LOCK_EX) as links:
            with self._lock:
                self.refresh(links)
            yield _Change(self, links)

    def refresh(self, links: int) -> None:
        """Read the home again if it is not as it was."""
        version = _version(links)
        if version == self._version:
            return
        self._version = None
        self._parents, self._children, self._lost = {}, {}, {}
        layers: dict[str, str] = {}
        for id in self._home.names():
            if link := self._home.first_lower(id):
                if link not in layers:
                    layers[link] = self._home.layer_of(link)
                if parent := layers[link]:
                    self.add(id, parent)
                else:
                    self._lost.setdefault(link, set()).add(id)
        self._version = version

    def add(self, id: str, parent: str) -> None:
        """Note that `id` stands on `parent`."""
        self._parents[id] = parent
        self._children.setdefault(parent, set()).add(id)

    def discard(self, id: str) -> None:
        """Note that `id` is gone."""
        parent = self._parents.pop(id, "")
        if parent:
            self._children[parent].discard(id)
            if not self._children[parent]:
                del self._children[parent]
        for link, ids in list(self._lost.items()):
            ids.discard(id)
            if not ids:
                del self._lost[link]

    def settle(self, version: tuple[int, int], change: Callable[[], None]) -> None:
        """Take over a change of one's own, which made this version."""
        with self._lock:
            change()
            self._version = version


class _Change:
    """A change of who stands on whom; `links` is the locked directory of short names."""

    def __init__(self, children: _Children, links: int) -> None:
        self.links = links
        self._children = children
        self._version = _version(links)

    def advance(self) -> None:
        """Make the version greater than before, in whatever steps the file system keeps time."""
        before, _ = self._version
        for step in (1, 10**9):
            found = os.fstat(self.links)
            if found.st_mtime_ns > before:
                break
            os.utime(self.links, ns=(found.st_atime_ns, before + step))
        self._version = _version(self.links)

    def add(self, id: str, parent: str) -> None:
        """Take over that `id` was made on `parent`, "" for a base layer."""
        self._children.settle(
            self._version, lambda: self._children.add(id, parent) if parent else None
        )

    def discard(self, id: str) -> None:
        """Take over that `id` was removed."""
        self._children.settle(self._version, lambda: self._children.discard(id))


def _version(links: int) -> tuple[int, int]:
    """Return the times of modification and change; the second one cannot be set."""
    found = os.fstat(links)
    return found.st_mtime_ns, found.st_ctime_ns
