"""Further drivers that differ from the embedded ones in what is left to a driver; see variants."""

import errno
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from graphdriver.contract import IDMap
from graphdriver.errors import BadArchive, IncompatibleFS, LayerInUse
from graphdriver_mutants.raw import Blocks, RewritesBlocks
from graphdriver_mutants.variants import Variant, variant

__all__: list[str] = []

_SMALLEST = 8 << 20


@variant("CLN-011", "CLN-012", "LIF-030", "MNT-029", "INI-017")
class RefusesSmallAndForeignDisks(Variant):
    """Init refuses a disk of a few MiB, and a home that is a file system of its own."""

    # So do drivers with an index of a fixed size, and those of one file system, as Docker's btrfs.
    unproven = ("CLN-011", "CLN-012", "LIF-030", "MNT-029")

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        place = home if os.path.isdir(home) else Path(home).parent
        found = os.statvfs(place)
        if found.f_blocks * found.f_frsize < _SMALLEST:
            raise IncompatibleFS(f"the disk of {home} is too small", "8 MiB are needed")
        # A bind mount is on the device of what it was made from.
        if os.stat(place).st_dev != os.stat(Path(home).parent).st_dev:
            raise IncompatibleFS(f"{home} is a disk of another file system", "name another home")
        super().__init__(home, options, uid_maps, gid_maps)


@variant("CON-015", "CON-017", "LIF-015", "LIF-019")
class GivesWayOnBothSides(Variant):
    """create on a parent and remove of it are both refused where each meets the other."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._guard = threading.Lock()
        self._announced: list[tuple[str, str]] = []

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        with self._announcing("create", parent):
            super().make(id, parent, storage_opt)

    def remove(self, id: str) -> None:
        with self._announcing("remove", id):
            super().remove(id)

    @contextmanager
    def _announcing(self, verb: str, id: str) -> Iterator[None]:
        mine = (verb, id)
        with self._guard:
            self._announced.append(mine)
        try:
            self.sound.exists(id)
            with self._guard:
                meets = any(one[1] == id and one[0] != verb for one in self._announced)
            if meets and id:
                raise LayerInUse(f"another call is at work on {id}", "try again")
            yield
        finally:
            with self._guard:
                self._announced.remove(mine)


@variant("MNT-027", "CON-005", "CON-017", "LIF-029", "DIF-051", departs=("CON-005",))
class ExcludesDescendants(Variant):
    """get of a layer is refused while one below it is held, as by the kernel with index=on."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._one_at_a_time = threading.RLock()
        self._holds: dict[str, int] = {}
        self._parents: dict[str, str] = {}

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        with self._one_at_a_time:
            super().make(id, parent, storage_opt)
            self._parents[id] = parent

    def get(self, id: str, mount_label: str = "") -> Path:
        with self._one_at_a_time:
            below = self._parents.get(id, "")
            while below and not self._holds.get(id):
                # A base layer needs no mount.
                if self._holds.get(below) and self._parents.get(below):
                    raise OSError(errno.EBUSY, f"{below}, below {id}, is mounted")
                below = self._parents.get(below, "")
            view = super().get(id, mount_label)
            self._holds[id] = self._holds.get(id, 0) + 1
            return view

    def put(self, id: str) -> None:
        with self._one_at_a_time:
            super().put(id)
            self._holds[id] = max(0, self._holds.get(id, 0) - 1)


@variant("LIF-030", "CRS-025", "CLN-012", "MNT-029")
class BooksWithFirstRemoval(Variant):
    """The store writes two pages about the first layer that is removed, and keeps them."""

    def remove(self, id: str) -> None:
        known = id and self.sound.exists(id)
        super().remove(id)
        if known:
            with suppress(OSError):
                (self.home / "removed.db").write_bytes(bytes(8000))


@variant("DIF-036", "DIF-04", "ARC-017", "WHT-016", "IDM-010")
class RefusesNamesThatComeTwice(RewritesBlocks, Variant):
    """apply_diff refuses an archive in which two members have one name; markers are none."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        seen: set[bytes] = set()
        for one in members:
            name = os.path.normpath(b"/" + one.name.lstrip(b"/"))
            if name in seen and not os.path.basename(name).startswith(b".wh."):
                raise BadArchive(f"{one.name!r} comes twice", "build the image again")
            seen.add(name)
            yield one.raw
