"""Mutants that are correct until they are killed inside a verb."""

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from graphdriver.errors import DriverError
from graphdriver_conformance.host.mountinfo import mounts_at
from graphdriver_conformance.host.syscalls import mount, umount
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import archive_of, members_of

__all__: list[str] = []

# As long as a link of overlay2, in other letters, so that no driver creates the same one.
_LINK = "A" * 26


class _MakesInPlace(Mutant):
    """Creates a layer in place, file by file, as moby's overlay2 does."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if not parent or self.wrapped.exists(id) or not self.wrapped.exists(parent):
            super().make(id, parent, storage_opt)
            return
        layer = self.home / id
        layer.mkdir(0o700)
        above = (self.home / parent / "diff").stat()
        self.begin(layer)
        (layer / "diff").mkdir()
        os.chown(layer / "diff", above.st_uid, above.st_gid)
        (layer / "diff").chmod(above.st_mode & 0o7777)
        link = os.urandom(4).hex().translate(str.maketrans("0189abcdef", "ABCDEFGHIJ")).upper()
        link = (link + _LINK)[:26]
        (self.home / "l" / link).symlink_to(f"../{id}/diff")
        (layer / "link").write_text(link)
        lowers = self.home / parent / "lower"
        below = lowers.read_text().split(":") if lowers.exists() else []
        (layer / "work").mkdir()
        (layer / "merged").mkdir()
        parents_link = (self.home / parent / "link").read_text()
        (layer / "lower").write_text(":".join([f"l/{parents_link}", *below]))
        self.end(layer)

    def begin(self, layer: Path) -> None:
        """Record that a layer is being created."""

    def end(self, layer: Path) -> None:
        """Record that the layer is complete."""


@mutant("CRS-005", bug="moby overlay2 20.10 and 28: killed in Create before `lower` is written")
class CreatesInPlace(_MakesInPlace):
    """After a kill in create, the layer exists and shows an empty base layer."""


@mutant("CRS-002", bug="moby #36161")
class RemovesLinksByAnEmptyName(_MakesInPlace):
    """remove joins `l` with the content of the link file, which may be empty after a crash."""

    def begin(self, layer: Path) -> None:
        (layer / "link").touch()

    def remove(self, id: str) -> None:
        link = self.home / id / "link"
        if link.is_file() and not link.read_text():
            for path in (self.home / "l").iterdir():
                path.unlink()
            shutil.rmtree(self.home / id)
            return
        super().remove(id)


@mutant("CRS-003", bug="a store that refuses all operations on a damaged layer")
class RefusesToRemoveHalfLayers(_MakesInPlace):
    """A layer whose create was interrupted can neither be used nor removed."""

    def begin(self, layer: Path) -> None:
        (layer / "incomplete").touch()
        (layer / "diff").mkdir()
        (layer / "diff").rmdir()

    def end(self, layer: Path) -> None:
        (layer / "incomplete").unlink()

    def get(self, id: str, mount_label: str = "") -> Path:
        self._require_whole(id)
        return super().get(id, mount_label)

    def remove(self, id: str) -> None:
        self._require_whole(id)
        super().remove(id)

    def _require_whole(self, id: str) -> None:
        if (self.home / id / "incomplete").exists():
            raise DriverError(f"layer {id} is damaged")


@mutant("CRS-007", bug="moby overlay2: Remove deletes the layer's tree in place")
class RemovesInPlace(Mutant):
    """An interrupted remove leaves a layer with some of its files."""

    def remove(self, id: str) -> None:
        diff = self.home / id / "diff"
        if id and diff.is_dir():
            for path in sorted(diff.iterdir()):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        super().remove(id)


@mutant("CRS-006", bug="moby overlay2 and containers-storage: archives are unpacked in place")
class AppliesInPlace(Mutant):
    """An interrupted apply_diff leaves some of the archive's files in the layer."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        try:
            members = members_of(data)
        except Exception:
            return super().apply_diff(id, parent, io.BytesIO(data))
        half = len(members) // 2
        size = super().apply_diff(id, parent, archive_of(members[:half])) if half else 0
        return size + super().apply_diff(id, parent, archive_of(members[half:]))


@mutant("CRS-008", bug="a driver that refuses mounts which it did not make")
class RefusesStaleMounts(Mutant):
    """get fails while the mount of a killed process exists."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._mine: set[str] = set()

    def get(self, id: str, mount_label: str = "") -> Path:
        if id not in self._mine and mounts_at(self.home / id / "merged"):
            raise OSError(errno.EBUSY, f"{id} is mounted already")
        self._mine.add(id)
        return super().get(id, mount_label)

    def put(self, id: str) -> None:
        super().put(id)
        self._mine.discard(id)


@mutant("CRS-004", bug="moby overlay2: the reference counter counts a stale mount as a hold")
class AdoptsStaleMountsAsHolds(Mutant):
    """The mount of a killed process counts as a hold, which persists after the layer is removed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._adopted: set[str] = set()

    def get(self, id: str, mount_label: str = "") -> Path:
        merged = self.home / id / "merged"
        if id not in self._adopted and mounts_at(merged):
            self._adopted.add(id)
        return merged if id in self._adopted else super().get(id, mount_label)

    def put(self, id: str) -> None:
        if id not in self._adopted:
            super().put(id)


class _Probes(Mutant):
    """Probes mounting in a directory of the home."""

    def __init__(self, home: str | os.PathLike[str], *arguments: Any) -> None:
        place = self.place(Path(home))
        place.mkdir(parents=True)
        mount("tmpfs", place, "tmpfs", 0)
        umount(place)
        place.rmdir()
        super().__init__(home, *arguments)

    def place(self, home: Path) -> Path:
        """Return the mount point of the probe."""
        raise NotImplementedError


@mutant("CRS-001", bug="graphdriver overlay2 0.1, killed while its probe is mounted")
class ProbeMustBeRemovable(_Probes):
    """Init removes the directory of an earlier probe without unmounting it."""

    def place(self, home: Path) -> Path:
        probe = home / "probe"
        if probe.exists():
            shutil.rmtree(probe)
        return probe


@mutant("CRS-009", "CRS-010", bug="moby overlay2: opaque-bug-check directories of killed daemons")
class ProbesAreForgotten(_Probes):
    """Each Init probes in a new directory, and directories of killed probes are never removed."""

    def place(self, home: Path) -> Path:
        home.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="probe", dir=home)) / "mount"

    def cleanup(self) -> None:
        # overlay2 unmounts only mounts that it knows.
        super().cleanup()


@mutant(
    "CRS-011",
    bug="graphdriver overlay2 0.1: the probe is made beside a home that does not exist yet",
)
class ProbesBesideTheHome(_Probes):
    """The first Init probes beside the home; if it is killed, its directory stays."""

    def place(self, home: Path) -> Path:
        above = home if home.exists() else home.parent
        return Path(tempfile.mkdtemp(prefix="probe", dir=above)) / "mount"


@mutant("CRS-010", bug="moby overlay2: files of a killed Create are never removed")
class RemnantsStay(Mutant):
    """Init does not remove the remnants of a killed driver."""

    def __init__(self, home: str | os.PathLike[str], *arguments: Any) -> None:
        aside = Path(home).with_name("aside")
        left = list(Path(home).glob(".*")) if Path(home).exists() else []
        if left:
            aside.mkdir()
        for path in left:
            path.rename(aside / path.name)
        super().__init__(home, *arguments)
        for path in left:
            (aside / path.name).rename(path)
        if left:
            aside.rmdir()


@mutant("CRS-012", bug="a store that writes its index later")
class WritesBehind(Mutant):
    """create returns before the layer exists; the next call creates it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._pending: list[tuple[str, str, Mapping[str, str] | None]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("remove", "get", "exists", "diff", "changes", "apply_diff", "get_metadata"):
            pending, self._pending = self._pending, []
            for one in pending:
                Mutant.make(self, *one)
                self._noted(one[0]).unlink()
        return super().__getattribute__(name)

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if self.wrapped.exists(id) or (parent and not self.wrapped.exists(parent)):
            super().make(id, parent, storage_opt)
        else:
            self._noted(id).touch()
            self._pending.append((id, parent, storage_opt))

    def _noted(self, id: str) -> Path:
        return self.home / f"pending-{id}"


@mutant(
    "CRS-013", bug="graphdriver overlay2 0.1: the mounted staging directory of a killed apply_diff"
)
class StageOfApplyStays(Mutant):
    """After a kill in apply_diff, apply_diff to the same layer fails."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        stage = self.home / id / "unpacking"
        if stage.parent.is_dir():
            stage.mkdir()
        try:
            return super().apply_diff(id, parent, diff)
        finally:
            if stage.is_dir():
                stage.rmdir()
