"""vfs: each layer is a whole copy of its parent, changed.

    <home>/dir/<id>         the layer's tree
    <home>/parents/<id>     the id of its parent, or nothing

Slow, and right everywhere: on any file system, without privilege, at any depth.
"""

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from graphdriver.linux.mounts import UnmountFlag, mountinfo, umount2
from graphdriver.tree.copy import copy_tree
from graphdriver.tree.removal import remove_node

__all__ = ["Driver"]

_STAGING = ".staging-"


class Driver:
    """vfs on the home directory `home`, which is made if it is missing; it has no options."""

    capabilities = frozenset(Capability) - {
        Capability.MOUNTING,
        Capability.OVERLAY2_LAYOUT,
        Capability.LAYER_LIMIT,
        Capability.MOUNT_LABEL,
        Capability.QUOTA,
        Capability.MTIME_NS,
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
            raise PrerequisitesNotMet(f"the home {str(home)!r} is no directory", "name one")
        self._layers = self._home / "dir"
        self._parents = self._home / "parents"
        self._holders: dict[str, int] = {}
        self._lock = threading.RLock()
        self._differ = NaiveDiffer(self, self._ids)
        self._prepare()

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
        """Make a layer by copying its parent; see the contract."""
        layerid.check(id)
        _refuse_storage_opt(id, storage_opt)
        with self._lock:
            if os.path.lexists(self._layers / id):
                raise LayerExists(
                    f"there is a layer {id} already", "choose another id, or remove it"
                )
            source = self._layer(parent) if parent else None
            with self._staged() as staged:
                tree = Path(staged) / "tree"
                if source:
                    copy_tree(source, tree)
                else:
                    tree.mkdir(0o700)
                    os.chown(tree, *self._ids.root)
                    tree.chmod(0o755)
                (self._parents / id).write_text(parent)
                try:
                    renameat2(os.fsencode(tree), os.fsencode(self._layers / id), RENAME_NOREPLACE)
                except BaseException:
                    (self._parents / id).unlink()
                    raise

    create_read_write = create

    def remove(self, id: str) -> None:
        """Delete a layer; see the contract."""
        layerid.check(id)
        with self._lock:
            if not self.exists(id):
                return
            if self._holders.get(id):
                raise LayerInUse(
                    f"layer {id} is held by {self._holders[id]} get(s)", "put it first"
                )
            if any(_text(one) == id for one in self._parents.iterdir()):
                raise LayerInUse(f"layer {id} has children", "remove those first")
            # What someone mounted into the layer is not the layer's: it must not be deleted.
            for entry in reversed(mountinfo(self._layers / id)):
                umount2(entry.point, UnmountFlag.DETACH | UnmountFlag.NOFOLLOW)
            with self._staged() as staged:
                os.rename(self._layers / id, Path(staged) / "tree")
                with suppress(FileNotFoundError):
                    (self._parents / id).unlink()

    def get(self, id: str, mount_label: str = "") -> Path:
        """Return the layer's directory; see the contract."""
        with self._lock:
            layer = self._layer(id)
            self._holders[id] = self._holders.get(id, 0) + 1
            return layer

    def put(self, id: str) -> None:
        """Give back one get; see the contract."""
        layerid.check(id)
        with self._lock:
            if self._holders.get(id, 0) > 1:
                self._holders[id] -= 1
            else:
                self._holders.pop(id, None)

    def exists(self, id: str) -> bool:
        """Say whether there is such a layer."""
        with suppress(Exception):
            return (self._layers / layerid.check(id)).is_dir()
        return False

    def status(self) -> list[tuple[str, str]]:
        """Return how many layers there are."""
        return [("Layers", str(sum(1 for _ in self._layers.iterdir())))]

    def get_metadata(self, id: str) -> dict[str, str]:
        """Return where the layer's tree is."""
        return {"Dir": str(self._layer(id))}

    def cleanup(self) -> None:
        """Forget who holds what."""
        with self._lock:
            self._holders.clear()

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Return an archive; see the contract."""
        self._known(id, parent)
        return self._differ.diff(id, parent)

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Return changed paths; see the contract."""
        self._known(id, parent)
        return self._differ.changes(id, parent)

    def diff_size(self, id: str, parent: str = "") -> int:
        """Return the size of the changes in bytes."""
        self._known(id, parent)
        return self._differ.diff_size(id, parent)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Unpack an archive into a copy and exchange it; into the layer itself while it is held."""
        self._known(id, parent)
        with self._lock:
            layer = self._layer(id)
            if self._holders.get(id):
                return self._differ.apply_diff(id, parent, diff)
            with self._staged() as staged:
                tree = Path(staged) / "tree"
                copy_tree(layer, tree)
                size = unpack(diff, view_target(tree, self._ids.root), self._ids)
                renameat2(os.fsencode(tree), os.fsencode(layer), RENAME_EXCHANGE)
                return size

    def _prepare(self) -> None:
        self._home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = not self._home.exists()
        if not new and self._home.stat().st_mode & 0o007:
            self._home.chmod(self._home.stat().st_mode & 0o770)
        try:
            if new:
                self._home.mkdir(0o700)
                if not self._ids.identity:
                    os.chown(self._home, -1, self._ids.root[1])
                    self._home.chmod(0o710)
            for directory in (self._layers, self._parents):
                directory.mkdir(0o711, exist_ok=True)
        except OSError:
            if new and self._home.exists():  # a full disk: nothing is left on it
                _remove(self._home.parent, self._home.name)
            raise
        for name in os.listdir(self._home):
            if name.startswith(_STAGING):  # what a crash has left
                _remove(self._home, name)

    def _staged(self) -> "_Staged":
        return _Staged(self._home)

    def _layer(self, id: str) -> Path:
        layerid.check(id)
        layer = self._layers / id
        if not layer.is_dir():
            raise LayerNotFound(f"there is no layer {id}", "create it first")
        return layer

    def _known(self, id: str, parent: str) -> None:
        self._layer(id)
        if parent:
            self._layer(parent)


class _Staged:
    """A directory beside the layers, gone with all it holds at the end of the block."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._name = ""

    def __enter__(self) -> str:
        path = tempfile.mkdtemp(prefix=_STAGING, dir=self._home)
        self._name = os.path.basename(path)
        return path

    def __exit__(self, *_: object) -> None:
        _remove(self._home, self._name)


def _text(path: Path) -> str:
    """Return what a file holds; nothing when another driver on this home has removed it."""
    with suppress(FileNotFoundError):
        return path.read_text()
    return ""


def _remove(home: Path, name: str) -> None:
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_node(descriptor, os.fsencode(name))
    finally:
        os.close(descriptor)


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
