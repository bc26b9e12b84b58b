"""Locks, holds and parentage of all layers of a home.

* Within a process each layer has a lock. A verb takes the locks that it needs at once and in one
  order (`locked`), so that create, remove, get, put and apply_diff of one layer, and create on it,
  are serialized.
* Between processes the directory of short names is locked: shared while a layer is mounted,
  exclusively while a layer is created or removed or its tree is exchanged.
* A reader of a layer without a mount, and so of all layers below it, holds a shared lock on the
  layer's directory (`reading`). To exchange or remove a tree, the lock is taken exclusively,
  without waiting. The kernel releases these locks at the end of their process.
* `get` holds a layer. Holds are counted. Other processes see which layers are held, and which are
  written in place (`writing`; holding.py): verbs that read descendants of such a layer wait until
  it is complete.
* The collector may run a put at any point of any thread, also of one that is at work on the same
  layer, so such a put does not wait: it is done at once if the layer's lock is free, otherwise by
  the thread that has the lock (`put_without_waiting`).
"""

import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress

from graphdriver.errors import DriverError, LayerInUse, LayerNotFound
from graphdriver.holding import Holds, Use, Uses, forget_in_child
from graphdriver.homedir import try_lock
from graphdriver.linux.mounts import mountinfo
from graphdriver.overlay2.layout import LINKS, Home, is_read

__all__ = ["LayerTable"]


class _LayerLock:
    """A layer's lock, which exists while a thread holds or awaits it, even if the layer is removed.

    A second lock for the same id would allow two threads.
    """

    __slots__ = ("held", "users")

    def __init__(self) -> None:
        self.held = threading.RLock()
        self.users = 0


class _Thread(threading.local):
    """A thread's state: the layers whose locks it holds, and whether it is using the index.

    A put that the garbage collector runs inside a verb uses it to decide that it must not wait.
    """

    def __init__(self) -> None:
        self.owned: dict[str, int] = {}
        self.at_index = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark the block as part of a verb, although it holds no layer's lock."""
        self.owned[""] = self.owned.get("", 0) + 1
        try:
            yield
        finally:
            self.owned[""] -= 1
            if not self.owned[""]:
                del self.owned[""]


class LayerTable:
    """The layers of one home, with their locks, holds and children."""

    def __init__(self, home: Home, end_view: Callable[[str], None]) -> None:
        """`end_view` unmounts a layer, and is called while its lock is held. Raises OSError."""
        self._home = home
        self._end_view = end_view
        self._locks: dict[str, _LayerLock] = {}
        self._index = threading.Lock()  # of the locks
        self._thread = _Thread()
        self._holds: dict[str, int] = {}
        self._uses = Uses(home.descriptor)
        self._files = Holds(self._uses, home.link_file)
        # Held layers, with their lower layers.
        self._lowers: dict[str, Sequence[str]] = {}
        # Layers to put, by the thread that holds the lock or takes it next.
        self._returned: deque[str] = deque()
        self._children = _Children(home)
        forget_in_child(self)

    def forget_parent_process(self) -> None:
        """Start with new locks and no holds in a forked process.

        Its copies of locks may be locked for ever, and the holds are the parent's: a put here must
        not end the view there.
        """
        self._locks, self._index, self._thread = {}, threading.Lock(), _Thread()
        self._holds, self._lowers, self._returned = {}, {}, deque()
        self._uses = Uses(self._home.descriptor)
        self._files = Holds(self._uses, self._home.link_file)
        self._children = _Children(self._home)

    @contextmanager
    def locked(self, *ids: str) -> Iterator[None]:
        """Run the block while no other thread mounts, unmounts, changes or removes these layers."""
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
                    with suppress(OSError):  # it is still held
                        self._apply_deferred(id)
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
                    self._apply_deferred_free()

    def create(self, id: str, parent: str, prepare: Callable[[str], None]) -> None:
        """Create a layer; `prepare` gets its directory while it is still empty.

        Raises LayerExists, LayerNotFound, MaxDepthExceeded, OSError; nothing is left in that case.
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
        """Remove a layer that is not in use and has no children; `release` unmounts stale mounts.

        Raises LayerInUse, OSError; the layer still exists in that case.
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
                    remnant = self._home.remove_names(id, change.links, change.advance)
                change.discard(id)
            self._home.discard(remnant)

    @contextmanager
    def mounting(self, id: str, lowers: Sequence[str]) -> Iterator[bool]:
        """Hold a layer, and mount it in the block if it has `lowers`. The caller holds its lock.

        Meanwhile no other process changes a lower tree. The block gets whether the layer has
        children; a base layer's are not looked for. Raises LayerNotFound, OSError.
        """
        with ExitStack() as undo:
            while True:
                links = undo.enter_context(self._home.links(fcntl.LOCK_SH))
                if not (written := self._written_below(id)):
                    break
                undo.close()
                self._wait_for(written)
            try:
                self._files.take(id)
            except FileNotFoundError:  # the layer has no link file
                self._home.require(id)
            try:
                yield bool(lowers) and self._children.has(id, links)
                self.hold(id, lowers)
            except BaseException:
                self._files.drop(id)
                raise

    @contextmanager
    def reading(self, id: str) -> Iterator[int]:
        """Read a layer and its lowers in the block, while no process changes or removes them.

        The block gets the layer's directory, which is locked. Raises LayerNotFound.
        """
        with ExitStack() as undo:
            while True:
                busy = id
                with self._thread.working(), self._home.links(fcntl.LOCK_SH), suppress(LayerInUse):
                    operation = fcntl.LOCK_SH | fcntl.LOCK_NB
                    directory = undo.enter_context(self._home.locked_layer(id, operation))
                    if not (busy := self._written_below(id)):
                        break
                    undo.close()
                # Also where the old tree is being removed after an exchange: nobody else is to wait
                # for that.
                self._wait_for(busy)
            yield directory

    def _wait_for(self, id: str) -> None:
        """Wait until nobody changes a layer's tree. Raises LayerNotFound.

        Raises LayerInUse in the thread that changes it, whose archive reads the layer.
        """
        if self._uses.has(Use.WRITES, id) and id in self._thread.owned:
            raise is_read(id)
        with self._thread.working(), self._home.locked_layer(id, fcntl.LOCK_SH):
            pass

    def _written_below(self, id: str) -> str:
        """Return a layer below another one that is written in place, "" for none."""
        if not self._uses.is_any_set(Use.WRITES):
            return ""
        for lower in self._home.lowers(id):
            below = self._home.layer_of(lower.removeprefix(f"{LINKS}/"))
            if below and self._uses.is_set(Use.WRITES, below):
                return below
        return ""

    @contextmanager
    def exchanging(self, id: str, directory: int) -> Iterator[None]:
        """Exchange a layer's tree in the block, while it is not read and no descendant is in use.

        `directory` is the result of `reading`; others can read the layer when that block ends,
        after the old tree has been removed: until then its files have one more name. Raises
        LayerInUse.
        """
        with self._home.links(fcntl.LOCK_EX) as links:
            self._require_unused_above(id, links)
            if not try_lock(directory):
                raise is_read(id)
            yield

    @contextmanager
    def writing(self, id: str, directory: int) -> Iterator[None]:
        """Change a layer's tree in place in the block.

        No other thread or process may read it or use a layer above. New users wait until the end of
        `reading`, which returned `directory`. Raises LayerInUse.
        """
        with self._home.links(fcntl.LOCK_EX) as links:
            self._require_unused_above(id, links)
            if not try_lock(directory):
                raise is_read(id)
            self._uses.set(Use.WRITES, id)
        try:
            yield
        finally:
            with suppress(OSError):
                self._uses.clear(Use.WRITES, id)

    def require_unused_above(self, id: str) -> None:
        """Raise LayerInUse if a descendant of a layer is held, created, or read."""
        with self._home.links(fcntl.LOCK_EX) as links:
            self._require_unused_above(id, links)

    def is_held(self, id: str) -> bool:
        """Return whether this process holds the layer. The caller holds its lock."""
        return id in self._holds

    def is_held_elsewhere(self, id: str) -> bool:
        """Return whether another process holds the layer."""
        return self._files.is_elsewhere(id)

    @contextmanager
    def ending(self, id: str) -> Iterator[bool]:
        """Forget the holds of a layer after the block. The caller holds its lock.

        The block gets whether no other process holds it, so that its view may be unmounted.
        """
        with self._files.ending(id) as is_alone:
            yield is_alone
        self._holds.pop(id, None)
        self._lowers.pop(id, None)

    def hold(self, id: str, lowers: Sequence[str]) -> None:
        """Add one hold, the first one in `mounting`. The caller holds the layer's lock."""
        self._lowers[id] = lowers
        self._holds[id] = self._holds.get(id, 0) + 1

    def put(self, id: str) -> None:
        """Remove one hold; the last one ends the view. Raises OSError; the layer is then still
        held.

        Inside another verb of the same thread, where the garbage collector may run it, it does not
        wait for the layer's lock; see `put_without_waiting`.
        """
        if self._thread.owned or self._thread.at_index:
            self.put_without_waiting(id)
            return
        with self.locked(id):
            self._release(id)

    def put_without_waiting(self, id: str) -> None:
        """Remove one hold, from any context, without waiting.

        If another verb holds the layer's lock, that verb removes the hold at its end. Raises
        OSError.
        """
        self._returned.append(id)
        self._apply_deferred_free()

    def holders(self, id: str) -> int:
        """Return the number of holds of a layer. The caller holds its lock."""
        return self._holds.get(id, 0)

    def held(self) -> list[str]:
        """Return the layers that are held."""
        return list(self._holds)

    def _wanted(self, ids: Sequence[str]) -> list[_LayerLock]:
        """Return the locks of layers, which exist until they are `_unwanted`."""
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
        """Remove one hold. Call with the lock. Raises OSError; the layer is then still held."""
        holders = self.holders(id)
        if holders > 1:
            self._holds[id] -= 1
        elif holders:
            with self.ending(id) as is_alone:
                if is_alone:
                    self._end_view(id)

    def _apply_deferred(self, id: str) -> None:
        """Do the deferred puts of a layer. Raises OSError."""
        while True:
            try:
                self._returned.remove(id)
            except ValueError:
                return
            self._release(id)

    def _apply_deferred_free(self) -> None:
        """Do the deferred puts of layers whose locks are free; lock holders do the others.

        Raises OSError.
        """
        if self._thread.at_index:
            return
        for id in set(self._returned.copy()) - self._thread.owned.keys():
            locks = self._wanted((id,))
            try:
                # Again after the release: puts that were requested meanwhile were deferred to this
                # thread.
                while id in self._returned and locks[0].held.acquire(blocking=False):
                    self._thread.owned[id] = 1
                    try:
                        self._apply_deferred(id)
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
                if self.is_held_elsewhere(above):
                    raise _is_below(id, above)
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
        """Yield the layers that other processes, or dead ones, have mounted."""
        depth = len(self._home.path.parts)
        for entry in mountinfo(self._home.path):
            if entry.type == "overlay":
                id = entry.point.parts[depth]
                with suppress(DriverError, OSError, ValueError):
                    yield id, self._home.lowers(id)


class _Children:
    """The children of each layer, as on the disk, where other processes may change them.

    The times of the directory of short links are the version. A process that changes parentage has
    that directory locked and increases its modification time (`_Change.advance`), so that equal
    times mean equal content even if a clock tick is longer than a change.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._parents: dict[str, str] = {}
        self._children: dict[str, set[str]] = {}
        # Layers whose parent's short link is missing, by the name of the link.
        self._lost: dict[str, set[str]] = {}
        self._version: tuple[int, int] | None = None
        # A complete index needs a read of each layer. Until a layer is queried that existed before,
        # only layers that this process has created, and their children, are in the index.
        self._is_complete = False
        self._made: set[str] = set()

    def has(self, id: str, links: int) -> bool:
        """Return whether `id` has children. The caller has locked the short links.

        A layer whose own short link is damaged may be the parent of any layer whose parent is
        unknown.
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
        """Return all descendants of a layer; call it after `has`.

        A layer whose parent is unknown may be a descendant, too.
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
        """Change parentage in the block, exclusively."""
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
        """Read the home again if it has changed."""
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
        """Record that `id` was created on `parent`, "" for a base layer."""
        self._made.add(id)
        if parent:
            self._add(id, parent)

    def discard(self, id: str) -> None:
        """Record that `id` was removed."""
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

    def adopt_change(self, version: tuple[int, int], change: Callable[[], None]) -> None:
        """Adopt a change of this process, which created this version."""
        with self._lock:
            change()
            self._version = version


class _Change:
    """A change of parentage; `links` is the locked directory of short links."""

    def __init__(self, children: _Children, links: int, version: tuple[int, int]) -> None:
        self.links = links
        self._children = children
        self._version = version

    def advance(self) -> None:
        """Increase the version, independent of the time granularity of the file system."""
        before, _ = self._version
        self._version = _version(self.links)
        for step in (1, 10**9):
            if self._version[0] > before:
                break
            accessed = os.fstat(self.links).st_atime_ns
            os.utime(self.links, ns=(accessed, before + step))
            self._version = _version(self.links)

    def add(self, id: str, parent: str) -> None:
        """Record that `id` was created on `parent`, "" for a base layer."""
        self._children.adopt_change(self._version, lambda: self._children.add(id, parent))

    def discard(self, id: str) -> None:
        """Record that `id` was removed."""
        self._children.adopt_change(self._version, lambda: self._children.discard(id))


def _version(links: int) -> tuple[int, int]:
    """Return the times of modification and change; the second one cannot be set."""
    found = os.fstat(links)
    return found.st_mtime_ns, found.st_ctime_ns


def _is_below(id: str, user: str) -> LayerInUse:
    return LayerInUse(
        f"layer {id} is below layer {user}, which is in use",
        f"put {user} first, and end diffs of it; cleanup ends mounts of a dead process",
    )
