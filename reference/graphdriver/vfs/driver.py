"""vfs: each layer is a complete copy of its parent, with changes.

    <home>/dir/<id>         the layer's tree
    <home>/parents/<id>     the id of its parent, or nothing

Slow, and correct everywhere: on any file system, without privilege, at any depth.

A reader of a layer holds a shared lock on its directory, also against other processes; to exchange
or remove the layer, the lock is taken exclusively, without waiting.
"""

import fcntl
import os
import stat
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from graphdriver import layerid
from graphdriver.apply.target import view_target
from graphdriver.apply.unpack import unpack
from graphdriver.contract import Capability, Change, IDMap
from graphdriver.differ.naive import NaiveDiffer
from graphdriver.errors import (
    LayerExists,
    LayerInUse,
    LayerNotFound,
    PrerequisitesNotMet,
    QuotaNotSupported,
)
from graphdriver.holding import Holds, Uses, forget_in_child
from graphdriver.homedir import DIRECTORY, HomeDirectory, lock, make_directory, unlock
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    cleaning_up,
    renameat2,
    syncfs,
)
from graphdriver.tree.copy import copy_tree
from graphdriver.tree.removal import remove_unmounted

__all__ = ["Driver"]

_STAGING = ".staging-"
# A layer that is being removed. A full disk has no free block for a directory to move it to.
_REMOVED = ".removed-"
# In a staging directory, by id: a copy of the old tree, while an archive is applied in place.
_UNDO = "undo"


class Driver:
    """vfs on the home directory `home`, which is created if it is missing; it has no options."""

    capabilities = frozenset(Capability) - {
        Capability.MOUNTING,
        Capability.OVERLAY2_LAYOUT,
        Capability.LAYER_LIMIT,
        Capability.MOUNT_LABEL,
        Capability.QUOTA,
        Capability.MTIME_NS,
        Capability.DURABLE,
    }

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        _refuse_options(options)
        self._ids = IDMapping(uid_maps, gid_maps)
        self._home = Path(os.path.realpath(os.fspath(home)))
        if not os.fspath(home) or (self._home.exists() and not self._home.is_dir()):
            raise PrerequisitesNotMet(f"the home {str(home)!r} is not a directory", "name one")
        self._layers = self._home / "dir"
        self._parents = self._home / "parents"
        self._lock = threading.RLock()
        self._holders: dict[str, int] = {}
        # Deferred puts. The garbage collector may run a put at any point of any thread, also inside
        # a verb of the same thread; so put does not wait, and a put that cannot be counted at once
        # is counted at the end of that verb.
        self._returned: deque[str] = deque()
        self._is_counting = False
        self._directory = HomeDirectory(self._home, self._ids)
        try:
            self._prepare()
        except BaseException:  # a full disk: nothing is left on it
            self._directory.undo()
            raise
        self._files = Holds(Uses(self._directory.descriptor), partial(os.path.join, self._parents))
        forget_in_child(self)

    def forget_parent_process(self) -> None:
        """Begin again in a forked process: its copy of the lock may be taken; it holds nothing."""
        self._lock = threading.RLock()
        self._holders, self._returned, self._is_counting = {}, deque(), False
        self._files = Holds(Uses(self._directory.descriptor), partial(os.path.join, self._parents))

    def __str__(self) -> str:
        """Return `vfs`."""
        return "vfs"

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Create a layer by copying its parent; see the contract."""
        layerid.check(id)
        _refuse_storage_opt(id, storage_opt)
        with self._verb(), self._kept(parent) as source:
            self._require_absent(id)
            with self._staged() as staged:
                tree = staged / "tree"
                if source:
                    copy_tree(source, tree)
                    # One sync for all: a sync of each file would be a commit of the disk's journal.
                    syncfs(self._directory.descriptor)
                else:
                    tree.mkdir(0o700)
                    os.chown(tree, *self._ids.root)
                    tree.chmod(0o755)
                    _write_names(tree)
                with self._naming():
                    self._require_absent(id)
                    self._publish(id, parent, tree)

    create_read_write = create

    def remove(self, id: str) -> None:
        """Delete a layer; see the contract."""
        layerid.check(id)
        with self._verb():
            if not _is_directory(self._layers / id):
                return
            if holders := self._held(id):
                raise LayerInUse(f"layer {id} is held by {holders} get(s)", "put it first")
            # One process at a time: if two remove the layer, the second does not find it.
            removed = _new_name(_REMOVED)
            with self._naming(), suppress(LayerNotFound), self._alone(id):
                if any(self._children(id)):
                    raise LayerInUse(f"layer {id} has children", "remove those first")
                with self._files.alone(id) as is_alone:
                    if not is_alone:
                        raise LayerInUse(
                            f"layer {id} is held by another process", "put it there, then remove it"
                        )
                    os.rename(self._layers / id, self._home / removed)
                # The layer is removed. Without it the file of its parent has no meaning, and the
                # rest is removed by the next start. Mounts of other programs in it are unmounted,
                # not deleted.
                with suppress(OSError):
                    (self._parents / id).unlink()
            with suppress(OSError):
                self._remove(removed)

    def get(self, id: str, mount_label: str = "") -> Path:
        """Return the layer's directory; see the contract."""
        with self._verb():
            layer = self._layer(id)
            self._apply_deferred()
            self._is_counting = True
            try:
                if id not in self._holders:
                    with suppress(FileNotFoundError):  # the file of its parent is lost
                        self._files.take(id)
                self._holders[id] = self._holders.get(id, 0) + 1
            finally:
                self._is_counting = False
            if not _is_directory(layer):  # another process was faster
                self.put(id)
            return self._layer(id)

    def put(self, id: str) -> None:
        """Release one get; see the contract. It does not wait."""
        self._returned.append(layerid.check(id))
        self._apply_deferred_free()

    def exists(self, id: str) -> bool:
        """Return whether the layer exists."""
        with suppress(Exception):
            return (self._layers / layerid.check(id)).is_dir()
        return False

    def status(self) -> list[tuple[str, str]]:
        """Return the number of layers."""
        return [("Layers", str(sum(1 for _ in self._layers.iterdir())))]

    def get_metadata(self, id: str) -> dict[str, str]:
        """Return the path of the layer's tree."""
        return {"Dir": str(self._layer(id))}

    def cleanup(self) -> None:
        """Forget all holds."""
        with self._verb():
            self._returned.clear()
            for id in list(self._holders):
                self._files.drop(id)
            self._holders.clear()

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Return an archive; see the contract."""
        with ExitStack() as reading:
            self._read(reading, id, parent)
            return self._differ.diff(id, parent, reading.pop_all().close)

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Return changed paths; see the contract."""
        with ExitStack() as reading:
            self._read(reading, id, parent)
            return self._differ.changes(id, parent)

    def diff_size(self, id: str, parent: str = "") -> int:
        """Return the size of the changes in bytes."""
        with ExitStack() as reading:
            self._read(reading, id, parent)
            return self._differ.diff_size(id, parent)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Unpack an archive into a copy and exchange it; in place while the layer is held."""
        self._known(id, parent)
        with self._verb(), self._unread(id) as layer, self._staged() as staged:
            if self._held(id) or self._files.is_elsewhere(id):
                return self._apply_in_place(id, layer, staged, diff)
            tree = staged / "tree"
            copy_tree(layer, tree, share=True)  # unpacking replaces files, and writes to none
            size = unpack(diff, view_target(tree, self._ids.root), self._ids)
            with self._files.alone(id) as is_alone:
                if not is_alone:
                    raise LayerInUse(f"layer {id} was got meanwhile", "put it, and try again")
                renameat2(os.fsencode(tree), os.fsencode(layer), RENAME_EXCHANGE)
            return size

    def _apply_in_place(self, id: str, layer: Path, staged: Path, diff: BinaryIO) -> int:
        """Apply the archive to a held directory, which cannot be exchanged.

        Until the archive is applied, the staging directory contains a copy of the old tree, for
        recovery after a crash.
        """
        (staged / "copy").mkdir()
        copy_tree(layer, staged / "copy" / id)
        # Recovery uses the copy as the tree, so its content must be on the disk before a power cut.
        syncfs(self._directory.descriptor)
        os.rename(staged / "copy", staged / _UNDO)
        try:
            size = unpack(diff, view_target(layer, self._ids.root), self._ids)
            os.rename(staged / _UNDO, staged / "done")
        except BaseException as error:
            # Otherwise the next start would restore the old tree while the layer may be in use.
            with suppress(OSError):
                os.rename(staged / _UNDO, staged / "done")
            error.add_note(
                f"layer {id} was held, so a part of the archive may be in it: "
                "try again, or remove it"
            )
            raise
        return size

    @property
    def _differ(self) -> NaiveDiffer:
        # A reference would be a cycle, which keeps the home of an unused driver open.
        return NaiveDiffer(self, self._ids)

    def _prepare(self) -> None:
        if self._directory.is_alone:
            self._recover()
        # From now on, other drivers that start on this home do not remove our staging directories.
        self._directory.share()
        self._directory.close_to_others()
        for name in ("dir", "parents"):
            self._directory.make_closed(name)

    def _recover(self) -> None:
        """Remove the remnants of a crash, and restore layers that were being changed."""
        for name in os.listdir(self._home):
            if name.startswith(_STAGING):
                stage = self._home / name
                for id in os.listdir(stage / _UNDO) if _is_directory(stage / _UNDO) else ():
                    # Two renames, with a possible crash after each.
                    with suppress(FileNotFoundError):
                        os.rename(self._layers / id, stage / "partial")
                    os.rename(stage / _UNDO / id, self._layers / id)
            if name.startswith((_STAGING, _REMOVED)):
                with suppress(OSError):
                    self._remove(name)
        for id in os.listdir(self._parents) if _is_directory(self._parents) else ():
            if not _is_directory(self._layers / id):
                with suppress(OSError):  # it names no layer, and does no harm
                    (self._parents / id).unlink()

    def _publish(self, id: str, parent: str, tree: Path) -> None:
        """Give a complete layer its parent and its final name, durably; both or none."""
        layer = self._layers / id
        try:
            with (self._parents / id).open("w") as named:
                named.write(parent)
                named.flush()
                os.fsync(named.fileno())
            _write_names(self._parents)
            renameat2(os.fsencode(tree), os.fsencode(layer), RENAME_NOREPLACE)
            try:
                _write_names(self._layers)
            except BaseException:
                renameat2(os.fsencode(layer), os.fsencode(tree), RENAME_NOREPLACE)
                raise
        except BaseException:
            with suppress(OSError):
                (self._parents / id).unlink()
            raise

    @contextmanager
    def _verb(self) -> Iterator[None]:
        """Do something with layers while no other thread does."""
        try:
            with self._lock:
                yield
        finally:
            self._apply_deferred_free()

    def _held(self, id: str) -> int:
        """Return the number of holds of a layer, after deferred puts. Call with the lock."""
        self._apply_deferred()
        return self._holders.get(id, 0)

    def _apply_deferred_free(self) -> None:
        """Do deferred puts, unless another thread has the lock: it does them at its end."""
        while self._returned and not self._is_counting and self._lock.acquire(blocking=False):
            try:
                self._apply_deferred()
            finally:
                self._lock.release()

    def _apply_deferred(self) -> None:
        """Do deferred puts. Call with the lock."""
        if self._is_counting:  # the garbage collector has called this recursively
            return
        self._is_counting = True
        try:
            while self._returned:
                returned = self._returned.popleft()
                holders = self._holders.pop(returned, 0)
                if holders > 1:
                    self._holders[returned] = holders - 1
                elif holders:
                    self._files.drop(returned)
        finally:
            self._is_counting = False

    def _require_absent(self, id: str) -> None:
        if os.path.lexists(self._layers / id):
            raise LayerExists(f"layer {id} exists already", "choose another id, or remove it")

    def _children(self, id: str) -> Iterator[str]:
        """Yield the layers that were copied from `id`; a crash may leave a name without a layer."""
        for child in os.listdir(self._parents):
            if _text(self._parents / child) == id and _is_directory(self._layers / child):
                yield child

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Prevent other processes from creating or removing names of layers."""
        descriptor = lock("parents", self._directory.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            unlock(descriptor)

    @contextmanager
    def _kept(self, id: str) -> Iterator[Path | None]:
        """Prevent other processes from changing or removing a layer. "" is no layer.

        Waits for a process that changes it. Raises LayerNotFound.
        """
        with ExitStack() as reading:
            if id:
                reading.enter_context(self._locked(id, fcntl.LOCK_SH))
            yield self._layer(id) if id else None

    @contextmanager
    def _alone(self, id: str) -> Iterator[Path]:
        """Prevent other processes from reading a layer. Raises LayerInUse during a read,
        LayerNotFound.
        """
        with self._locked(id, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield self._layer(id)

    @contextmanager
    def _unread(self, id: str) -> Iterator[Path]:
        """Do as `_alone`, but wait for a process that removes the layer."""
        with ExitStack() as undo:
            try:
                layer = undo.enter_context(self._alone(id))
            except LayerInUse:
                with self._naming():  # locked by the process that removes it
                    pass
                layer = undo.enter_context(self._alone(id))
            yield layer

    @contextmanager
    def _locked(self, id: str, operation: int) -> Iterator[None]:
        """Keep a layer's directory locked for the block. Raises LayerNotFound, LayerInUse."""
        with ExitStack() as undo:
            while True:
                self._layer(id)
                try:
                    descriptor = lock(f"dir/{id}", self._directory.descriptor, operation)
                except FileNotFoundError:
                    continue
                except BlockingIOError:
                    raise LayerInUse(
                        f"layer {id} is in use: it is read, changed or copied, possibly by another "
                        "process",
                        "end diffs of it, and try again",
                    ) from None
                one = undo.enter_context(ExitStack())
                one.callback(unlock, descriptor)
                # The previous holder of the lock may have exchanged or removed the directory.
                if os.path.samestat(os.fstat(descriptor), os.stat(self._layer(id))):
                    break
                one.close()
            yield

    def _read(self, reading: ExitStack, id: str, parent: str) -> None:
        """Keep both layers unchanged until `reading` is closed. Raises LayerNotFound."""
        self._known(id, parent)
        for one in {id, parent} - {""}:
            reading.enter_context(self._kept(one))

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        """Create a directory beside the layers, and remove it with its tree after the block.

        At that point the block has succeeded, so an error of the removal is ignored; the next start
        removes the rest.
        """
        name = _new_name(_STAGING)
        os.close(make_directory(self._directory.descriptor, name))
        try:
            yield self._home / name
        finally:
            with suppress(OSError):
                self._remove(name)

    def _remove(self, name: str) -> None:
        directory = self._directory.descriptor
        cleaning_up(lambda: remove_unmounted(directory, name, self._home))

    def _layer(self, id: str) -> Path:
        layerid.check(id)
        layer = self._layers / id
        if not _is_directory(layer):
            raise LayerNotFound(f"there is no layer {id}", "create it first")
        return layer

    def _known(self, id: str, parent: str) -> None:
        self._layer(id)
        if parent:
            self._layer(parent)


def _new_name(prefix: str) -> str:
    return f"{prefix}{os.urandom(8).hex()}"


def _text(path: Path) -> str:
    """Return the content of a file; empty if another driver on this home has removed it."""
    with suppress(FileNotFoundError):
        return path.read_text()
    return ""


def _write_names(directory: Path) -> None:
    """Sync the names in a directory. Raises OSError."""
    descriptor = os.open(directory, DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_directory(path: Path) -> bool:
    """Return whether the directory exists. Raises OSError if the disk reports an error."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _refuse_options(options: Sequence[str]) -> None:
    for option in options:
        key, equals, _ = str(option).partition("=")
        what = f"unknown option {key}" if equals and key else f"the option {option!r} is malformed"
        raise PrerequisitesNotMet(f"vfs: {what}", "vfs has no options")


def _refuse_storage_opt(id: str, storage_opt: Mapping[str, str] | None) -> None:
    for key in storage_opt or {}:
        if key.lower() == "size":
            raise QuotaNotSupported(f"layer {id} cannot have a size", "vfs has no quota")
        raise PrerequisitesNotMet(f"vfs: unknown storage option {key}", "vfs has none")
