"""Who stands on a layer: locks, holds and parentage of all layers of a home, in one place.

* Within a process each layer has a lock. A verb takes the locks that it needs at once and in one
  order (`locked`), so that create, remove, get, put and apply_diff of one layer, and create on it,
  come one after the other.
* Between processes the directory of short names is locked: shared while a layer is mounted, alone
  while a layer gets or loses its name or its tree is exchanged.
* Whoever reads a layer without a mount, and so all layers below it, locks the layer's directory
  shared (`reading`). Whoever is to exchange or remove a tree asks for the lock alone, without
  waiting. The kernel ends these locks with their process.
* A layer is held by `get`, which is counted. The collector may run a put at any point of any
  thread, also of one that is at work on the same layer, so such a put waits for nothing: it is done
  at once where nobody has the layer's lock, and by whoever has it otherwise (`give_back`).
"""

import fcntl
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from graphdriver.errors import DriverError, LayerInUse, LayerNotFound
from graphdriver.holding import Holds
from graphdriver.homedir import try_lock
from graphdriver.linux.mounts import mountinfo
from graphdriver.overlay2.layout import LINKS, Home, is_read

__all__ = ["LayerTable"]


class _LayerLock:
    """A layer's lock, kept while anyone holds or awaits it, also when the layer is removed:

    a second lock for the same id would let two threads in.
    """

    __slots__ = ("held", "users")

    def __init__(self) -> None:
        self.held = threading.RLock()
        self.users = 0


class _Thread(threading.local):
    """What a thread has of a table: the layers whose locks it owns, and whether it is at the index.

    A put that the collector runs in the middle of a verb sees from it that it must not wait.
    """

    def __init__(self) -> None:
        self.owned: dict[str, int] = {}
        self.at_index = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have the block count as the middle of a verb, though it owns no layer's lock."""
        self.owned[""] = self.owned.get("", 0) + 1
        try:
            yield
        finally:
            self.owned[""] -= 1
            if not self.owned[""]:
                del self.owned[""]


_tables: "weakref.WeakSet[LayerTable]" = weakref.WeakSet()


def _begin_again() -> None:
    for table in list(_tables):
        table.forget_parent_process()


os.register_at_fork(after_in_child=_begin_again)


class LayerTable:
    """The layers of one home and who uses them."""

    def __init__(self, home: Home, end_view: Callable[[str], None]) -> None:
        """`end_view` unmounts a layer, and is called with its lock. Raises OSError."""
        self._home = home
        self._end_view = end_view
        self._locks: dict[str, _LayerLock] = {}
        self._index = threading.Lock()  # of the locks
        self._thread = _Thread()
        self._holds: dict[str, int] = {}
        self._files = Holds(home.link_file)
        # By the layers that are held, what is below them.
        self._lowers: dict[str, Sequence[str]] = {}
        # Layers to put, each by whoever has its lock, or gets it next.
        self._returned: deque[str] = deque()
        self._children = _Children(home)
        _tables.add(self)

    def forget_parent_process(self) -> None:
        """Begin again in a forked process: its copies of locks may be taken, and it holds nothing.

        Who holds what is the parent's; a put here must not end the view there.
        """
        self._locks, self._index, self._thread = {}, threading.Lock(), _Thread()
        self._holds, self._lowers, self._returned = {}, {}, deque()
        self._files = Holds(self._home.link_file)
        self._children = _Children(self._home)

    @contextmanager
    def locked(self, *ids: str) -> Iterator[None]:
        """Do something with layers while nobody else mounts, unmounts, changes or removes them."""
        if len(ids) > 1:
            ids = tuple(sorted(set(ids)))
        locks = self._wanted(ids)
        owned = self._thread.owned
        taken = 0
        try:
            for id, lock in zip(ids, locks, strict=True):
                lock.held.acquire()
                taken += 1
                owned[id] = owned.get(id, 0) + 1
                if self._returned and owned[id] == 1:
                    with suppress(OSError):  # it is held still
                        self._settle(id)
            yield
        finally:
            for id, lock in zip(ids[:taken], locks, strict=False):
                if owned[id] == 1:
                    del owned[id]
                else:
                    owned[id] -= 1
                lock.held.release()
            self._unwanted(ids, locks)
            if self._returned:
                with suppress(OSError):
                    self._settle_free()

    def create(self, id: str, parent: str, prepare: Callable[[Path], None]) -> None:
        """Make a layer; `prepare` gets its directory before there is anything in it.

        Raises LayerExists, LayerNotFound, MaxDepthExceeded, OSError; nothing is left then.
        """
        with self.locked(id, parent) if parent else self.locked(id):
            self._home.require_absent(id)
            with (
                self.reading(parent) if parent else nullcontext(),
                self._home.drafted(id, parent, prepare) as draft,
                self._children.changing() as change,
            ):
                self._home.publish(draft, change.links, change.advance)
                change.add(id, parent)

    def remove(self, id: str, release: Callable[[], None]) -> None:
        """Remove a layer that nobody uses and that has no children; `release` ends stale mounts.

        Raises LayerInUse, OSError; the layer is there then.
        """
        with self.locked(id):
            if (holds := self._holds.get(id)) and self._home.is_layer(id):
                raise LayerInUse(
                    f"layer {id} is held by {holds} get(s)", "put it first, then remove it"
                )
            with self._children.changing() as change:
                if not self._home.is_layer(id):
                    return
                if self._children.has(id, change.links):
                    raise LayerInUse(f"layer {id} has children", "remove those first")
                with (
                    self._files.alone(id) as is_alone,
                    self._home.locked_layer(id, fcntl.LOCK_EX | fcntl.LOCK_NB),
                ):
                    if not is_alone:
                        raise LayerInUse(
                            f"layer {id} is held by another process", "put it there, then remove it"
                        )
                    release()
                    remnant = self._home.withdraw(id, change.links, change.advance)
                change.discard(id)
            self._home.discard(remnant)

    @contextmanager
    def mounting(self, id: str, lowers: Sequence[str]) -> Iterator[bool]:
        """Begin to hold a layer, with its lock: mount it in the block, where it has `lowers`.

        No other process exchanges a tree below it meanwhile. The block gets whether the layer has
        children; for a base layer, which is not mounted, nobody looks. Raises LayerNotFound.
        """
        with self._home.links(fcntl.LOCK_SH) as links:
            try:
                self._files.take(id)
            except FileNotFoundError:  # its link file is lost
                self._home.layer(id)
            try:
                yield bool(lowers) and self._children.has(id, links)
                self.hold(id, lowers)
            except BaseException:
                self._files.drop(id)
                raise

    @contextmanager
    def reading(self, id: str) -> Iterator[int]:
        """Read a layer and all below it in the block: no process changes or removes them meanwhile.

        The block gets the layer's directory, which is locked. Raises LayerNotFound.
        """
        with ExitStack() as undo:
            while True:
                with self._thread.working(), self._home.links(fcntl.LOCK_SH), suppress(LayerInUse):
                    operation = fcntl.LOCK_SH | fcntl.LOCK_NB
                    directory = undo.enter_context(self._home.locked_layer(id, operation))
                    break
                # The old tree is being removed after an exchange: nobody else is to wait for that.
                with self._thread.working(), self._home.locked_layer(id, fcntl.LOCK_SH):
                    pass
            yield directory

    @contextmanager
    def exchanging(self, id: str, directory: int) -> Iterator[None]:
        """Exchange a layer's tree in the block, which no other may be reading, nor use one above.

        `directory` is what `reading` gave; others can read the layer when that ends, after the old
        tree has been removed: until then its files have one more name. Raises LayerInUse.
        """
        with self._home.links(fcntl.LOCK_EX) as links:
            self._require_unused_above(id, links)
            if not try_lock(directory):
                raise is_read(id)
            yield

    def require_unread(self, id: str, directory: int) -> None:
        """Raise LayerInUse when someone reads a layer. `directory` is what `reading` gave."""
        with self._home.links(fcntl.LOCK_EX):
            if not try_lock(directory):
                raise is_read(id)
            fcntl.flock(directory, fcntl.LOCK_SH)

    def require_unused_above(self, id: str) -> None:
        """Raise LayerInUse when a descendant of a layer is held, made, or read."""
        with self._home.links(fcntl.LOCK_EX) as links:
            self._require_unused_above(id, links)

    def is_held(self, id: str) -> bool:
        """Say whether someone in this process holds the layer. Ask with its lock."""
        return id in self._holds

    def is_held_elsewhere(self, id: str) -> bool:
        """Say whether another process holds the layer."""
        with self._files.alone(id) as is_alone:
            return not is_alone

    @contextmanager
    def ending(self, id: str) -> Iterator[bool]:
        """Forget after the block who holds a layer. Call with its lock.

        The block gets whether no other process holds it, so that its view may be ended.
        """
        with self._files.ending(id) if self.is_held(id) else self._files.alone(id) as is_alone:
            yield is_alone
        self._holds.pop(id, None)
        self._lowers.pop(id, None)

    def hold(self, id: str, lowers: Sequence[str]) -> None:
        """Count one more holder. Call with the layer's lock."""
        self._lowers[id] = lowers
        self._holds[id] = self._holds.get(id, 0) + 1

    def put(self, id: str) -> None:
        """Count one holder less; the last one's view is ended. Raises OSError; it is held then.

        In the middle of another verb of the same thread, where the collector may have run it, it
        does not wait for the layer's lock, see `give_back`.
        """
        if self._thread.owned or self._thread.at_index:
            self.give_back(id)
            return
        with self.locked(id):
            self._release(id)

    def give_back(self, id: str) -> None:
        """Count one holder less, from anywhere: nothing is waited for.

        Where another verb is at work on the layer, it does so at its end. Raises OSError.
        """
        self._returned.append(id)
        self._settle_free()

    def holders(self, id: str) -> int:
        """Return how many hold a layer. Ask with its lock."""
        return self._holds.get(id, 0)

    def held(self) -> list[str]:
        """Return the layers that someone holds."""
        return list(self._holds)

    def _wanted(self, ids: Sequence[str]) -> list[_LayerLock]:
        """Return the locks of layers, which stay until they are `_unwanted`."""
        self._thread.at_index = True
        try:
            with self._index:
                locks = [self._locks.setdefault(id, _LayerLock()) for id in ids]
                for lock in locks:
                    lock.users += 1
                return locks
        finally:
            self._thread.at_index = False

    def _unwanted(self, ids: Sequence[str], locks: Sequence[_LayerLock]) -> None:
        self._thread.at_index = True
        try:
            with self._index:
                for id, lock in zip(ids, locks, strict=True):
                    lock.users -= 1
                    if not lock.users:
                        del self._locks[id]
        finally:
            self._thread.at_index = False

    def _release(self, id: str) -> None:
        """Count one holder less. Call with the layer's lock. Raises OSError; it is held then."""
        holders = self.holders(id)
        if holders > 1:
            self._holds[id] -= 1
        elif holders:
            with self.ending(id) as is_alone:
                if is_alone:
                    self._end_view(id)

    def _settle(self, id: str) -> None:
        """Do the puts of a layer that are left to whoever has its lock. Raises OSError."""
        while True:
            try:
                self._returned.remove(id)
            except ValueError:
                return
            self._release(id)

    def _settle_free(self) -> None:
        """Do the puts of layers whose locks are free; the others are done by those who have them.

        Raises OSError.
        """
        if self._thread.at_index:
            return
        for id in set(self._returned.copy()) - self._thread.owned.keys():
            locks = self._wanted((id,))
            try:
                # Again after the release: what came meanwhile has been left to this thread.
                while id in self._returned and locks[0].held.acquire(blocking=False):
                    self._thread.owned[id] = 1
                    try:
                        self._settle(id)
                    finally:
                        del self._thread.owned[id]
                        locks[0].held.release()
            finally:
                self._unwanted((id,), locks)

    def _require_unused_above(self, id: str, links: int) -> None:
        names = {f"{LINKS}/{name}" for name in self._home.short_names(id)}
        self._refuse(id, names, list(self._lowers.items()))
        if self._children.has(id, links):
            self._refuse(id, names, self._mounted())
            for above in self._children.above(id):
                try:
                    with self._home.locked_layer(above, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        pass
                except LayerNotFound:
                    continue
                except LayerInUse:
                    raise _is_below(id, above) from None

    def _refuse(self, id: str, names: set[str], uses: Iterable[tuple[str, Sequence[str]]]) -> None:
        for user, lowers in uses:
            if not names.isdisjoint(lowers):
                raise _is_below(id, user)

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
        # To know of all layers takes a look into each, so until someone asks for one that was there
        # before, only those are known that this process has made, and what was made on them.
        self._is_complete = False
        self._made: set[str] = set()

    def has(self, id: str, links: int) -> bool:
        """Say whether a layer stands directly on `id`. Ask with the short names locked.

        A layer whose own short name is damaged may be the parent of any whose parent is lost.
        """
        with self._lock:
            if id not in self._made or self._version != _version(links):
                self._refresh(links)
            if id in self._children:
                return True
            if not self._lost:
                return False
            link = self._home.link(id)
            return link in self._lost if link else any(ids - {id} for ids in self._lost.values())

    def above(self, id: str) -> list[str]:
        """Return all that stand on a layer, at any distance; ask after `has`.

        A layer whose parent is lost may stand on it, too.
        """
        with self._lock:
            todo = [id, *(one for ids in self._lost.values() for one in ids)]
            found: dict[str, None] = dict.fromkeys(todo[1:])
            while todo:
                children = self._children.get(todo.pop(), set()) - found.keys()
                found.update(dict.fromkeys(children))
                todo += children
            found.pop(id, None)
            return list(found)

    @contextmanager
    def changing(self) -> Iterator["_Change"]:
        """Change who stands on whom in the block, alone."""
        with self._home.links(fcntl.LOCK_EX) as links:
            with self._lock:
                if self._is_complete:
                    self._refresh(links)
                elif (version := _version(links)) != self._version:
                    self._forget()
                    self._version = version
                assert self._version
                change = _Change(self, links, self._version)
            yield change

    def _forget(self) -> None:
        self._version, self._is_complete = None, False
        self._parents, self._children, self._lost, self._made = {}, {}, {}, set()

    def _refresh(self, links: int) -> None:
        """Read the home again if it is not as it was."""
        version = _version(links)
        if version == self._version and self._is_complete:
            return
        self._forget()
        layers: dict[str, str] = {}
        for id in self._home.names():
            if link := self._home.first_lower(id):
                if link not in layers:
                    layers[link] = self._home.layer_of(link)
                if parent := layers[link]:
                    self._add(id, parent)
                else:
                    self._lost.setdefault(link, set()).add(id)
        self._version, self._is_complete = version, True

    def _add(self, id: str, parent: str) -> None:
        self._parents[id] = parent
        self._children.setdefault(parent, set()).add(id)

    def add(self, id: str, parent: str) -> None:
        """Note that `id` was made on `parent`, "" for a base layer."""
        self._made.add(id)
        if parent:
            self._add(id, parent)

    def discard(self, id: str) -> None:
        """Note that `id` is gone."""
        self._made.discard(id)
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

    def __init__(self, children: _Children, links: int, version: tuple[int, int]) -> None:
        self.links = links
        self._children = children
        self._version = version

    def advance(self) -> None:
        """Make the version greater than before, in whatever steps the file system keeps time."""
        before, _ = self._version
        self._version = _version(self.links)
        for step in (1, 10**9):
            if self._version[0] > before:
                break
            accessed = os.fstat(self.links).st_atime_ns
            os.utime(self.links, ns=(accessed, before + step))
            self._version = _version(self.links)

    def add(self, id: str, parent: str) -> None:
        """Take over that `id` was made on `parent`, "" for a base layer."""
        self._children.settle(self._version, lambda: self._children.add(id, parent))

    def discard(self, id: str) -> None:
        """Take over that `id` was removed."""
        self._children.settle(self._version, lambda: self._children.discard(id))


def _version(links: int) -> tuple[int, int]:
    """Return the times of modification and change; the second one cannot be set."""
    found = os.fstat(links)
    return found.st_mtime_ns, found.st_ctime_ns


def _is_below(id: str, user: str) -> LayerInUse:
    return LayerInUse(
        f"layer {id} is below layer {user}, which is in use",
        f"put {user} first, and end diffs of it; cleanup ends mounts of a dead process",
    )
