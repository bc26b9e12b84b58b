"""Mutants of get, put and cleanup."""

import errno
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from graphdriver.errors import MountOptionsTooLong
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("MNT-003", bug="moby #22116")
class PutUnmountsAtOnce(Mutant):
    """put does not count holds: the first put unmounts the view."""

    def put(self, id: str) -> None:
        merged = self.home / id / "merged"
        subprocess.run(["umount", "--lazy", "--quiet", merged], check=False, capture_output=True)
        super().put(id)


@mutant("MNT-005", bug="moby 1.12: counts below zero")
class SurplusPutIsRemembered(Mutant):
    """A put without a get decrements the hold count of the next get."""

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
    """After a put without a get, two gets create two mounts on top of each other."""

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


@mutant("MNT-004", "LIF-028", bug="moby #34672")
class MountLeaked(Mutant):
    """The last put does not unmount the view."""

    def put(self, id: str) -> None:
        if not os.path.ismount(self.home / id / "merged"):
            super().put(id)


@mutant("MNT-016", bug="containers/storage before its re-exec: chdir in the process")
class ChangesDirectory(Mutant):
    """get changes the current directory of the process to the home while it mounts."""

    def get(self, id: str, mount_label: str = "") -> Path:
        before = os.getcwd()
        os.chdir(self.home)
        try:
            return super().get(id, mount_label)
        finally:
            os.chdir(before)


@mutant("MNT-014", "MNT-018", bug="moby #41830")
class LongLabelDropped(Mutant):
    """A mount label that does not fit into the options is omitted."""

    def get(self, id: str, mount_label: str = "") -> Path:
        try:
            return super().get(id, mount_label)
        except MountOptionsTooLong:
            return super().get(id)


class _DropsLowers(Mutant):
    """Lets a subclass limit the number of lowers that are mounted."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, with the lowest layers missing."""
        lower = self.home / id / "lower"
        whole = lower.read_text() if lower.exists() else ""
        if not whole:
            return super().get(id, mount_label)
        lower.write_text(":".join(whole.split(":")[: self.capacity(id)]))
        try:
            return super().get(id, mount_label)
        finally:
            lower.write_text(whole)

    def capacity(self, id: str) -> int:
        """Return the number of lowers that fit into the mount options."""
        raise NotImplementedError


@mutant("MNT-017", "LIM-001", bug="moby #41830; docker/for-linux #1012")
class OptionsCutOff(_DropsLowers):
    """Mount options are truncated to 1200 bytes, so the lowest layers are missing."""

    def capacity(self, id: str) -> int:
        return 1200 // len("l/ABCDEFGHIJKLMNOPQRSTUVWXYZ:")


@mutant("MNT-013", bug="sealerio/sealer #1538")
class LongIdsTakeTheRoom(_DropsLowers):
    """Mount options contain full ids, so in a deep chain the lowest layers are missing."""

    def capacity(self, id: str) -> int:
        return max(1, 400 // (len(id) + 20))


@mutant("MNT-025", bug="moby #31136")
class SecondCallerIsEarly(Mutant):
    """A get that runs during another get returns before the view is mounted."""

    def get(self, id: str, mount_label: str = "") -> Path:
        merged = self.home / id / "merged"
        if not hasattr(self, "_working"):
            self._working, self._early = threading.Lock(), threading.Event()
        if not os.path.ismount(merged) and merged.is_dir():
            if not self._working.acquire(blocking=False):
                self._early.set()
                return merged
            # The wait for a concurrent get is bounded, because there may be none.
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


@mutant("MNT-002", bug="a driver that creates the mount point first")
class GetMakesDirectory(Mutant):
    """get of an unknown layer leaves a directory."""

    def get(self, id: str, mount_label: str = "") -> Path:
        if (not self.wrapped.exists(id) and id.isidentifier()) or id == "no-such-layer":
            (self.home / id).mkdir(exist_ok=True)
        return super().get(id, mount_label)


@mutant("MNT-022", bug="moby #46189")
class DiffMountsAgain(Mutant):
    """diff of a held layer mounts its upper directory a second time."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        merged = self.home / id / "merged"
        if os.path.ismount(merged):
            (self.home / "again").mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", merged, self.home / "again"], check=True)
        return super().diff(id, parent)


@mutant("MNT-001", bug="a driver that does not make its home's path absolute")
class RelativePath(Mutant):
    """get returns a path relative to the current directory."""

    def get(self, id: str, mount_label: str = "") -> Path:
        return Path(os.path.relpath(super().get(id, mount_label)))


@mutant("MNT-010", bug="moby 1.12: a failed get is counted")
class FailedGetCounts(Mutant):
    """A failed get increments the hold count."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._failed: set[str] = set()

    def get(self, id: str, mount_label: str = "") -> Path:
        try:
            return super().get(id, mount_label)
        except MountOptionsTooLong:
            self._failed.add(id)
            raise

    def put(self, id: str) -> None:
        if id in self._failed:
            self._failed.discard(id)
        else:
            super().put(id)


@mutant("MNT-011", bug="a driver without special handling of layers without a parent")
class BaseIsMounted(Mutant):
    """A base layer is mounted as an overlay."""

    def get(self, id: str, mount_label: str = "") -> Path:
        view = super().get(id, mount_label)
        if view.name == "diff" and not os.path.ismount(view):
            below = self.home / ".below"
            for part in ("lower", "work"):
                (below / id / part).mkdir(parents=True, exist_ok=True)
            data = f"lowerdir={below / id}/lower,upperdir={view},workdir={below / id}/work"
            subprocess.run(["mount", "-t", "overlay", "-o", data, "overlay", view], check=True)
        return view

    def put(self, id: str) -> None:
        super().put(id)
        view = self.home / id / "diff"
        subprocess.run(["umount", "--lazy", "--quiet", view], check=False, capture_output=True)


@mutant("MNT-015", bug="overlay2 1.13: absolute paths in the options, truncated at a page")
class HomeTakesTheRoom(_DropsLowers):
    """Mount options contain the home's path, so with a long path the lowest layers are missing."""

    def capacity(self, id: str) -> int:
        return max(1, 200 // len(self.home.name))


@mutant("MNT-021", bug="moby before 20.10: an image's layer is writable after it has children")
class ParentsAreWritten(Mutant):
    """The view of a parent is writable and is the lower directory of its children."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._parents: set[str] = set()

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        self._parents.add(parent)

    def get(self, id: str, mount_label: str = "") -> Path:
        view = super().get(id, mount_label)
        return self.home / id / "diff" if id in self._parents else view


@mutant("MNT-023", bug="moby #34948")
class CopiesStayMounted(Mutant):
    """put keeps the mount point, so that copies of the mount stay in other namespaces."""

    def put(self, id: str) -> None:
        merged = self.home / id / "merged"
        if os.path.ismount(merged):
            subprocess.run(["umount", "--lazy", merged], check=True)
            kept = self.home / id / "merged.old"
            merged.rename(kept)
            merged.mkdir(0o700)
        super().put(id)


@mutant("MNT-024", bug="a driver that mounts in a temporary directory")
class PathChanges(Mutant):
    """After a restart get returns another path."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._views = Path(tempfile.mkdtemp(prefix=".views-", dir=self.home))

    def get(self, id: str, mount_label: str = "") -> Path:
        elsewhere = self._views / id
        if not elsewhere.is_symlink():
            elsewhere.symlink_to(super().get(id, mount_label))
        return elsewhere


@mutant("MNT-008", "MNT-009", bug="moby #33638")
class PutWantsItIdle(Mutant):
    """put fails while a file in the view is open."""

    def put(self, id: str) -> None:
        merged = self.home / id / "merged"
        if os.path.ismount(merged):
            done = subprocess.run(["umount", merged], check=False, capture_output=True)
            if done.returncode:
                raise OSError(errno.EBUSY, "umount: target is busy", str(merged))
        super().put(id)
