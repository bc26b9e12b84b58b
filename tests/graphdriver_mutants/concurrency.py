"""Mutants that are correct as long as one thread calls them."""

import io
import os
import subprocess
import threading
from collections.abc import Mapping
from ctypes import CDLL, get_errno
from pathlib import Path
from typing import Any, BinaryIO

from graphdriver.errors import LayerExists
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []

# How long a mutant waits in its race window for another thread, in seconds.
_GAP = 0.1


@mutant("CON-001", bug="moby #44909: rename: file exists")
class OneStagingDirectory(Mutant):
    """All creates use the same staging directory."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create while a marker directory exists."""
        staging = self.home.parent / "creating"
        staging.mkdir()
        try:
            super().make(id, parent, storage_opt)
        finally:
            staging.rmdir()


@mutant("CON-003", bug="moby #31136: a reference count without a lock")
class CountsWithoutLock(Mutant):
    """Two concurrent gets count as one hold: the first put unmounts the other holder's view."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._counts: dict[str, int] = {}
        self._begun = 0
        self._another = threading.Condition()

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, counted; another get can run between read and write of the count."""
        before = self._counts.get(id, 0)
        with self._another:
            self._begun += 1
            ticket = self._begun
            self._another.notify_all()
            self._another.wait_for(lambda: self._begun > ticket, 5 * _GAP)
        view = super().get(id, mount_label)
        self._counts[id] = before + 1
        return view

    def put(self, id: str) -> None:
        """Driver.put, by the same count."""
        self._counts[id] -= 1
        if self._counts[id] == 0:
            merged = self.home / id / "merged"
            subprocess.run(["umount", "--lazy", merged], check=False, capture_output=True)
        super().put(id)


@mutant("CON-004", bug="moby #31136: Remove takes no lock")
class RemoveLooksFirst(Mutant):
    """remove checks for holds, and deletes the files some time later without a lock."""

    _got: threading.Event

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get; reports itself to a remove that has checked for holds already."""
        view = super().get(id, mount_label)
        self.__dict__.setdefault("_got", threading.Event()).set()
        return view

    def remove(self, id: str) -> None:
        """Check for holds, then delete."""
        if not os.path.ismount(self.home / id / "merged"):
            self.__dict__["_got"] = event = threading.Event()
            event.wait(_GAP)
            for path in (self.home / id / "diff").glob("*"):
                if path.is_file():
                    path.unlink()
        super().remove(id)


@mutant("CON-006", bug="one spool file for all archives")
class OneSpoolForAll(Mutant):
    """All diffs are spooled to the same file."""

    _spool: bytes

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, spooled to a file."""
        with super().diff(id, parent) as stream:
            self._spool = stream.read()
        threading.Event().wait(_GAP)
        return io.BytesIO(self._spool)


@mutant("CON-008", bug="moby #22116")
class DiffUnmounts(Mutant):
    """diff unmounts the layer at its end, even if it is held."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, and umount(8)."""
        stream = super().diff(id, parent)
        merged = self.home / id / "merged"
        subprocess.run(["umount", "--lazy", merged], check=False, capture_output=True)
        return stream


@mutant("CON-011", bug="CVE-2024-21626: a container inherits a descriptor of the host")
class DescriptorsInherited(Mutant):
    """Child processes inherit a descriptor of the layer's directory."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, and a descriptor without O_CLOEXEC."""
        view = super().get(id, mount_label)
        self._descriptor = os.open(view, os.O_PATH)
        os.set_inheritable(self._descriptor, True)
        return view

    def put(self, id: str) -> None:
        """Driver.put, and close."""
        if self.__dict__.get("_descriptor") is not None:
            os.close(self.__dict__.pop("_descriptor"))
        super().put(id)


@mutant("CON-013", bug="a cache of layers that remove does not update")
class ExistsIsRemembered(Mutant):
    """exists returns a cached result after the layer was removed."""

    def exists(self, id: str) -> bool:
        """Driver.exists, cached."""
        known: dict[str, bool] = self.__dict__.setdefault("_known", {})
        if not known.get(id):
            known[id] = super().exists(id)
        return known[id]


@mutant("CON-014", bug="Go 1.14: signals of the runtime make system calls fail with EINTR")
class FailsWithEINTR(Mutant):
    """create fails with EINTR when a signal interrupts it."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create after a poll(2) that a signal can interrupt."""
        if CDLL(None, use_errno=True).poll(None, 0, 5) < 0:
            number = get_errno()
            raise OSError(number, os.strerror(number))
        super().make(id, parent, storage_opt)


@mutant(
    "CON-002",
    bug="moby overlay2: concurrent creates of one id each make a link; all but one stay in l/",
)
class LosersLeaveLinks(Mutant):
    """A create that loses a race for its id leaves its short link."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create; if the id is in use meanwhile, the link has been created already."""
        was_free = not self.wrapped.exists(id)
        if was_free:
            threading.Event().wait(_GAP / 10)
        try:
            super().make(id, parent, storage_opt)
        except LayerExists:
            if was_free:
                links = self.home / "l"
                (links / f"LOST{len(os.listdir(links)):022}").symlink_to(f"../{id}/diff")
            raise


@mutant("CON-005", bug="moby #31136, in drivers whose create gets the parent")
class CreatesShareAGet(Mutant):
    """Concurrent creates get their parent once, but each of them puts it."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create; a held parent is held by a shared get."""
        if not parent or not os.path.ismount(self.home / parent / "merged"):
            super().make(id, parent, storage_opt)
            return
        creating: dict[str, int] = self.__dict__.setdefault("_creating", {})
        before = creating.get(parent, 0)
        creating[parent] = before + 1
        if not before:
            self.wrapped.get(parent)
        threading.Event().wait(_GAP)
        try:
            super().make(id, parent, storage_opt)
        finally:
            creating[parent] -= 1
            self.wrapped.put(parent)


@mutant("CON-007", bug="one spool file for all archives that are being unpacked")
class OneSpoolToUnpack(Mutant):
    """Archives that are read from a file are spooled to the same file before they are unpacked."""

    _spool: bytes

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, spooled to a file."""
        if not diff.seekable():
            return super().apply_diff(id, parent, diff)
        self._spool = diff.read()
        threading.Event().wait(_GAP)
        return super().apply_diff(id, parent, io.BytesIO(self._spool))


@mutant("CON-009", bug="moby overlay2: Cleanup takes none of the locks that #31136 added")
class CleanupForgetsNewHolders(Mutant):
    """cleanup unmounts the layers held at its start, and then forgets all holds, also new ones."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._counts: dict[str, int] = {}
        self._cleaning = False
        self._got, self._forgot = threading.Event(), threading.Event()
        self._lost = False

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, counted; a concurrent cleanup resets the count."""
        view = super().get(id, mount_label)
        self._counts[id] = self._counts.get(id, 0) + 1
        if self._cleaning:
            self._got.set()
            self._forgot.wait(_GAP)
        return view

    def put(self, id: str) -> None:
        """Driver.put of a counted hold."""
        if self._counts.get(id):
            self._counts[id] -= 1
            super().put(id)

    def cleanup(self) -> None:
        """Put the layers that were held when cleanup began."""
        listed = dict(self._counts)
        self._cleaning = True
        self._lost |= self._got.wait(_GAP)
        self._counts.clear()
        self._cleaning = False
        self._forgot.set()
        for id, count in listed.items():
            for _ in range(count):
                super().put(id)
        if not self._lost:
            super().cleanup()


@mutant("CON-010", bug="a list of layers in memory: containers/storage rereads its layers.json")
class LayersListedAtInit(Mutant):
    """The list of layers is read only in Init."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._known = {path.name for path in self.home.iterdir()}

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, and record the layer."""
        super().make(id, parent, storage_opt)
        self._known.add(id)

    def exists(self, id: str) -> bool:
        """Driver.exists, by the record of layers."""
        return id in self._known and super().exists(id)
