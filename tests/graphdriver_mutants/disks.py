"""Mutants that are correct as long as the disk has room."""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from graphdriver.contract import IDMap
from graphdriver.errors import DriverError, LayerExists, LayerNotFound, PrerequisitesNotMet
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("CRS-020", bug="io.Copy without an error check: a layer without its last files")
class FullDiskSwallowed(Mutant):
    """apply_diff on a full disk reports success."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff; ENOSPC is ignored."""
        try:
            return super().apply_diff(id, parent, diff)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return 0


@mutant(
    "CRS-021", bug="containers/storage: layers.json truncated by a full disk, all layers unknown"
)
class IndexRewrittenInPlace(Mutant):
    """Layers are listed in an index file, which each create truncates and rewrites."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        super().__init__(home, options, uid_maps, gid_maps)
        self._index = self.home / "index.json"
        self._layers: dict[str, str] = {}
        with suppress(FileNotFoundError, ValueError):
            self._layers = json.loads(self._index.read_text())

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, then write the index."""
        super().make(id, parent, storage_opt)
        self._layers[id] = "x" * 3000
        try:
            self._index.write_text(json.dumps(self._layers))
        except OSError:
            del self._layers[id]
            self.wrapped.remove(id)
            raise

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get of layers in the index."""
        if id not in self._layers:
            raise LayerNotFound(f"there is no layer {id}")
        return super().get(id, mount_label)


@mutant("CRS-022", bug="moby #40704, #40709: any error after symlink() leaves the link in l/")
class FailedCreateLeavesLink(Mutant):
    """A failed create leaves its short link."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create; the link is created first and not removed after an error."""
        link = self.home / "l" / f"link-of-{id}"
        link.symlink_to(f"../{id}/diff")
        super().make(id, parent, storage_opt)
        link.unlink()


@mutant("CRS-023", bug="this project's overlay2 before 0.3: a failed create left an id that exists")
class FailedIdStaysTaken(Mutant):
    """The id of a failed create stays in use until the next start."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._begun: set[str] = set()

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, unless a create of the id has failed before."""
        if id in self._begun:
            raise LayerExists(f"layer {id} is being made")
        self._begun.add(id)
        super().make(id, parent, storage_opt)
        self._begun.discard(id)


@mutant("CRS-024", bug="this project's overlay2 before 0.3: EROFS for a disk without inodes")
class CauseHidden(Mutant):
    """create raises the same error without a cause for all failures."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create; an error has no cause."""
        try:
            super().make(id, parent, storage_opt)
        except OSError:
            raise DriverError(f"layer {id} cannot be made") from None


@mutant("CRS-025", bug="this project's vfs before 0.3: a staging directory to move the layer to")
class RemoveNeedsRoom(Mutant):
    """remove creates a directory first."""

    def remove(self, id: str) -> None:
        """Driver.remove, through a staging directory."""
        stage = self.home / ".stage"
        stage.mkdir()
        try:
            super().remove(id)
        finally:
            stage.rmdir()


@mutant("CRS-025", bug="containers/storage: mountpoints.json is written by each unmount")
class PutWritesState(Mutant):
    """put writes a state file before it unmounts."""

    def put(self, id: str) -> None:
        """Driver.put, after a state file of a few pages was replaced."""
        new = self.home / ".holds.new"
        new.write_bytes(b"x" * 9000)
        new.rename(self.home / ".holds")
        super().put(id)


@mutant("CRS-026", bug="this project's overlay2 before 0.3; the kernel only logs it")
class ViewsOfAFullDisk(Mutant):
    """get does not check whether the kernel has mounted the view read-only."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        mounts: Any = self.wrapped._mounts  # type: ignore[attr-defined]
        mounts._require_writable = lambda *_: None


@mutant("CRS-027", bug="an atomic write without an error check: an empty file gets the final name")
class VersionWrittenBlindly(Mutant):
    """Init rewrites the version file without an error check, and refuses a home if it is empty."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        version = Path(home) / "version"
        if version.exists() and not version.read_text().startswith("1"):
            raise PrerequisitesNotMet("the home has no version", "restore a backup")
        super().__init__(home, options, uid_maps, gid_maps)
        new = version.with_name("version.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with suppress(OSError):
            os.write(descriptor, b"1\n")
        os.close(descriptor)
        new.rename(version)
