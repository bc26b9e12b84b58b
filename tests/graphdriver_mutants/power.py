"""Mutants that are correct unless the power fails."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

from graphdriver.contract import Capability
from graphdriver.errors import DriverError, LayerNotFound
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


class _Thread(threading.local):
    skips_flushes = False


_THREAD = _Thread()


def _unless_skipped(call: Callable[..., None]) -> Callable[..., None]:
    """Return the call, for all threads but those inside `_without_fsync`."""

    def called(*arguments: Any) -> None:
        if not _THREAD.skips_flushes:
            call(*arguments)

    return called


@cache
def _patch_flushes() -> None:
    """Replace the calls for good: patches of several threads would be undone in the wrong order.

    The suite syncs as well, in this process.
    """
    for name in ("fsync", "posix_fadvise"):
        mock.patch(f"os.{name}", _unless_skipped(getattr(os, name))).start()


@contextmanager
def _without_fsync() -> Iterator[None]:
    """Skip the flushes of this thread in the block."""
    _patch_flushes()
    _THREAD.skips_flushes = True
    try:
        yield
    finally:
        _THREAD.skips_flushes = False


@mutant("CRS-031", bug="moby #42964: Create does not sync")
class CreateSyncsNothing(Mutant):
    """create does not sync the files that it writes."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, without fsync."""
        with _without_fsync():
            super().make(id, parent, storage_opt)


@mutant("CRS-033", bug="moby #42964, #46471: link and lower are empty after a power cut")
class EmptyLowerIsNoParent(CreateSyncsNothing):
    """An empty file `lower` is read as a layer without a parent."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get; a layer without lowers is its own directory."""
        lower = self.home / id / "lower"
        if lower.exists() and not lower.read_text():
            return self.home / id / "diff"
        return super().get(id, mount_label)

    def put(self, id: str) -> None:
        """Driver.put of a mounted layer."""
        lower = self.home / id / "lower"
        if not lower.exists() or lower.read_text():
            super().put(id)


@mutant("CRS-032", bug="a store that refuses all operations on a damaged layer")
class DamagedLayersStay(CreateSyncsNothing):
    """A layer whose files are empty after a power cut cannot be removed."""

    def remove(self, id: str) -> None:
        """Driver.remove of layers with intact files."""
        link = self.home / id / "link"
        if link.exists() and not link.read_text():
            raise DriverError(f"layer {id} is damaged")
        super().remove(id)


@mutant("CRS-030", bug="containers/storage: layers.json is empty after a power cut")
class IndexReplacedUnsynced(Mutant):
    """Layers are listed in an index file, which is replaced without a sync."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._index = self.home / "index.json"
        self._layers: list[str] = []
        with suppress(FileNotFoundError, ValueError):
            self._layers = json.loads(self._index.read_text())

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, then write the index."""
        super().make(id, parent, storage_opt)
        self._layers.append(id)
        new = self._index.with_suffix(".new")
        new.write_text(json.dumps(self._layers))
        self._index.unlink(missing_ok=True)
        new.rename(self._index)

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get of layers in the index."""
        if id not in self._layers:
            raise LayerNotFound(f"there is no layer {id}")
        return super().get(id, mount_label)


@mutant("CRS-034", bug="moby vfs: Remove is os.RemoveAll of the layer's directory")
class TreeDeletedInItsPlace(Mutant):
    """remove deletes the files of a layer in place, before the layer's directory."""

    wrapped_name = "vfs"

    def remove(self, id: str) -> None:
        """Driver.remove, after the tree was deleted in place."""
        layer = self.home / "dir" / id
        if id and layer.is_dir():
            for path in sorted(layer.iterdir()):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        super().remove(id)


@mutant("CRS-035", bug="containerd #5854; containers/storage #920: content is never synced")
class ContentNotSynced(Mutant):
    """The driver claims durable but apply_diff does not sync."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.capabilities = frozenset(self.capabilities or Capability) | {Capability.DURABLE}


@mutant("CRS-036", bug="a layer is marked as complete before it is synced")
class ContentSyncedTooLate(ContentNotSynced):
    """apply_diff syncs only after the new tree has replaced the old one."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, and then sync."""
        size = super().apply_diff(id, parent, diff)
        os.sync()
        return size


@mutant("CRS-037", bug="overlayfs `volatile`, which podman and buildah use for builds")
class VolatileViews(Mutant):
    """fsync in a view has no effect."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        mounts: Any = self.wrapped._mounts  # type: ignore[attr-defined]
        mounts._prefix = f"volatile,{mounts._prefix}"

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get; removes the kernel's mark of a volatile mount, which blocks the next one."""
        mark = self.home / id / "work" / "work" / "incompat"
        if mark.exists() and not os.path.ismount(self.home / id / "merged"):
            shutil.rmtree(mark)
        return super().get(id, mount_label)


@mutant("CRS-038", bug="moby overlay2: files of an interrupted Create are never removed")
class RemnantsOfACutStay(Mutant):
    """Init does not remove staging directories that a power cut has left."""

    def __init__(self, home: str | os.PathLike[str], *arguments: Any) -> None:
        names = [path.name for path in Path(home).glob(".*")] if Path(home).exists() else []
        aside = Path(home).with_name("aside")
        aside.mkdir(exist_ok=True)
        for name in names:
            (Path(home) / name).rename(aside / name)
        super().__init__(home, *arguments)
        for name in names:
            (aside / name).rename(Path(home) / name)
        aside.rmdir()
