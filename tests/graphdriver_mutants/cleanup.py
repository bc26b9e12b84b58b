"""Mutants of cleanup, and mutants that leave mounts, files or threads behind."""

import shutil
import subprocess
import threading
import time
from typing import Any

from graphdriver.errors import DriverError
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("CLN-002", bug="a driver that closes its files in cleanup")
class CleanupOnce(Mutant):
    """A second cleanup raises an error."""

    _done = False

    def cleanup(self) -> None:
        if self._done:
            raise DriverError("cleanup was called already")
        self._done = True
        self.wrapped.cleanup()


@mutant("CLN-003", bug="a driver that treats held layers as temporary")
class HeldLayersGo(Mutant):
    """cleanup empties held layers."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._held: list[str] = []

    def get(self, id: str, mount_label: str = "") -> Any:
        view = super().get(id, mount_label)
        self._held.append(id)
        return view

    def put(self, id: str) -> None:
        super().put(id)
        if id in self._held:
            self._held.remove(id)

    def cleanup(self) -> None:
        self.wrapped.cleanup()
        for id in self._held:
            for path in (self.home / id / "diff").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._held.clear()


@mutant("CLN-006", bug="moby #46823: data stored outside the layer is never deleted")
class NotesStay(Mutant):
    """remove leaves the layer's entry in an index file."""

    def remove(self, id: str) -> None:
        known = id and self.wrapped.exists(id)
        super().remove(id)
        if known:
            notes = self.home / ".removed"
            notes.mkdir(exist_ok=True)
            (notes / id).touch()


@mutant("CLN-010", bug="a write-back thread that is not a daemon thread")
class ThreadNeverEnds(Mutant):
    """get starts a thread that runs as long as the home exists."""

    deadline = 5
    _started = False

    def get(self, id: str, mount_label: str = "") -> Any:
        if not self._started:
            self._started = True
            threading.Thread(target=self._write_back, name="write-back").start()
        return super().get(id, mount_label)

    def _write_back(self) -> None:
        while self.home.exists():
            time.sleep(0.05)


@mutant(
    "CLN-009",
    bug="moby 1.12: Init bind-mounts the home, Cleanup of a later driver does not unmount it",
)
class HomeStaysMounted(Mutant):
    """Init bind-mounts the home to itself, and cleanup does not unmount it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        subprocess.run(["mount", "--bind", self.home, self.home], check=True)
