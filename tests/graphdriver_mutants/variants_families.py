"""Correct drivers that treat layers and their descendants differently; see variants."""

import errno
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphdriver.errors import (
    LayerInUse,
    LayerNotFound,
)
from graphdriver_mutants.variants import Variant, variant

__all__: list[str] = []


class _KeepsFamilies(Variant):
    """Records parent and hold count of each layer, and runs one verb at a time."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._one_at_a_time = threading.RLock()
        self._holds: dict[str, int] = {}
        self._parents: dict[str, str] = {}
        for id in [path.name for path in self.home.iterdir() if self.wrapped.exists(path.name)]:
            lower = self.wrapped.get_metadata(id).get("LowerDir", "").partition(":")[0]
            self._parents[id] = Path(lower).parent.name

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        with self._one_at_a_time:
            super().make(id, parent, storage_opt)
            self._parents[id] = parent

    def get(self, id: str, mount_label: str = "") -> Path:
        with self._one_at_a_time:
            for below in self._below(id):
                self.require(id, below)
            view = super().get(id, mount_label)
            self._holds[id] = self._holds.get(id, 0) + 1
            return view

    def require(self, id: str, below: str) -> None:
        """Raise an error if get of a layer is refused because of a lower layer."""
        raise NotImplementedError

    def put(self, id: str) -> None:
        with self._one_at_a_time:
            super().put(id)
            self._holds[id] = max(0, self._holds.get(id, 0) - 1)

    def _below(self, id: str) -> Iterator[str]:
        while id := self._parents.get(id, ""):
            yield id


@variant("LIF-019", "LIF-029", "CON-015", "CON-016", "CON-017", "DIF-051", "MNT-027")
class LetsParentsGo(_KeepsFamilies):
    """remove of a parent succeeds unless a descendant is held; its children then fail."""

    def require(self, id: str, below: str) -> None:
        """Refuse a layer with a removed lower layer."""
        if not self.wrapped.exists(below):
            raise LayerNotFound(f"layer {below}, a parent of {id}, was removed")

    def remove(self, id: str) -> None:
        with self._one_at_a_time:
            try:
                super().remove(id)
            except LayerInUse:
                if any(self._holds.get(one) for one in self._family(id)):
                    raise
                link = (self.home / id / "link").read_text()
                shutil.rmtree(self.home / id)
                (self.home / "l" / link).unlink()

    def _family(self, id: str) -> set[str]:
        above = {one for one, parent in self._parents.items() if parent == id}
        return {id}.union(*(self._family(one) for one in above if self.wrapped.exists(one)))


@variant("MNT-027", "CON-005", "CON-017", "LIF-029", "DIF-051", violates=("CON-005",))
class ExcludesDescendants(_KeepsFamilies):
    """get of a layer is refused while a lower layer is held, as by the kernel with index=on."""

    def require(self, id: str, below: str) -> None:
        """Refuse a layer whose lower layer is mounted; a base layer needs no mount."""
        if not self._holds.get(id) and self._holds.get(below) and self._parents.get(below):
            raise OSError(errno.EBUSY, f"layer {below}, a parent of {id}, is mounted")


@variant("CON-015", "CON-017", "LIF-015", "LIF-019")
class GivesWayOnBothSides(Variant):
    """create on a parent and remove of the parent are both refused if they overlap."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._guard = threading.Lock()
        self._running: list[tuple[str, str]] = []

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        with self._registered("create", parent):
            super().make(id, parent, storage_opt)

    def remove(self, id: str) -> None:
        with self._registered("remove", id):
            super().remove(id)

    @contextmanager
    def _registered(self, verb: str, id: str) -> Iterator[None]:
        call = (verb, id)
        with self._guard:
            self._running.append(call)
        try:
            self.wrapped.exists(id)
            with self._guard:
                overlaps = any(one[1] == id and one[0] != verb for one in self._running)
            if overlaps and id:
                raise LayerInUse(f"layer {id} is used by another call", "try again")
            yield
        finally:
            with self._guard:
                self._running.remove(call)
