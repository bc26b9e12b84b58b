"""Mutants of get, put and cleanup."""

import os
import subprocess
import threading
from pathlib import Path
from typing import BinaryIO

from graphdriver.errors import MountOptionsTooLong
from graphdriver_conformance.mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("MNT-003", bug="moby #22116")
class PutUnmountsAtOnce(Mutant):
    """put does not count: the first one unmounts."""

    def put(self, id: str) -> None:
        merged = self.home / id / "merged"
        subprocess.run(["umount", "--lazy", "--quiet", merged], check=False, capture_output=True)
        super().put(id)


@mutant("MNT-005", bug="moby 1.12: counts below zero")
class SurplusPutIsRemembered(Mutant):
    """A put without a get is taken off the next get's account."""

    _surplus = 0

    def get(self, id: str, mount_label: str = "") -> Path:
        self._held = True
        return super().get(id, mount_label)

    def put(self, id: str) -> None:
        super().put(id)
        if self._surplus:
            self._surplus -= 1
            super().put(id)
        elif not getattr(self, "_held", False) or not os.path.ismount(self.home / id / "merged"):
            self._surplus += 1


@mutant("MNT-006", bug="moby 1.12: counts below zero")
class SecondGetMountsAgain(Mutant):
    """After a surplus put, two gets stack two mounts."""

    _surplus = 0

    def put(self, id: str) -> None:
        if not os.path.ismount(self.home / id / "merged"):
            self._surplus += 1
        super().put(id)

    def get(self, id: str, mount_label: str = "") -> Path:
        mounted = os.path.ismount(self.home / id / "merged")
        view = super().get(id, mount_label)
        if mounted and self._surplus:
            subprocess.run(["mount", "--bind", view, view], check=True)
        return view


@mutant("MNT-004", bug="moby #34672")
class MountLeaked(Mutant):
    """The last put forgets to unmount."""

    def put(self, id: str) -> None:
        if not os.path.ismount(self.home / id / "merged"):
            super().put(id)


@mutant("MNT-016", bug="containers/storage before its re-exec: chdir in the process")
class ChangesDirectory(Mutant):
    """get mounts from the home by changing the process's directory, and back."""

    def get(self, id: str, mount_label: str = "") -> Path:
        before = os.getcwd()
        os.chdir(self.home)
        try:
            return super().get(id, mount_label)
        finally:
            os.chdir(before)


@mutant("MNT-018", bug="moby #41830")
class LongLabelDropped(Mutant):
    """A label that does not fit is left out."""

    def get(self, id: str, mount_label: str = "") -> Path:
        try:
            return super().get(id, mount_label)
        except MountOptionsTooLong:
            return super().get(id)


@mutant("MNT-017", "LIM-001", bug="moby #41830; docker/for-linux #1012")
class OptionsCutOff(Mutant):
    """What does not fit into 1000 bytes of options is cut off: the lowest layers are missing."""

    def get(self, id: str, mount_label: str = "") -> Path:
        lower = self.home / id / "lower"
        whole = lower.read_text() if lower.exists() else ""
        if len(whole) > 1000:
            lower.write_text(whole[:1000].rpartition(":")[0])
        try:
            return super().get(id, mount_label)
        finally:
            if len(whole) > 1000:
                lower.write_text(whole)


@mutant("MNT-025", bug="moby #31136")
class SecondCallerIsEarly(Mutant):
    """A get that finds another at work returns before the mount is there."""

    def get(self, id: str, mount_label: str = "") -> Path:
        merged = self.home / id / "merged"
        if not hasattr(self, "_working"):
            self._working, self._early = threading.Lock(), threading.Event()
        if not os.path.ismount(merged) and merged.is_dir():
            if not self._working.acquire(blocking=False):
                self._early.set()
                return merged
            # Whoever comes meanwhile is early; nobody may come, so the wait is bounded.
            self._early.wait(0.2)
            try:
                return super().get(id, mount_label)
            finally:
                self._working.release()
        return super().get(id, mount_label)


@mutant("CLN-001", bug="moby 1.12: Cleanup unmounts the home only")
class CleanupForgets(Mutant):
    """cleanup leaves held layers mounted."""

    def cleanup(self) -> None:
        """Do nothing."""


@mutant("MNT-002", bug="a driver that makes the mount point first")
class GetMakesDirectory(Mutant):
    """get of an unknown layer leaves a directory."""

    def get(self, id: str, mount_label: str = "") -> Path:
        if (not self.sound.exists(id) and id.isidentifier()) or id == "no-such-layer":
            (self.home / id).mkdir(exist_ok=True)
        return super().get(id, mount_label)


@mutant("MNT-022", bug="moby #46189")
class DiffMountsAgain(Mutant):
    """diff of a held layer mounts its upper a second time."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        merged = self.home / id / "merged"
        if os.path.ismount(merged):
            (self.home / "again").mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", merged, self.home / "again"], check=True)
        return super().diff(id, parent)
