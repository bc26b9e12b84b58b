"""Mutants of the on-disk layout: links, lower, modes, metadata, the depth limit."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphdriver.errors import LayerInUse, MaxDepthExceeded
from graphdriver_mutants.registry import Mutant, mutant, umask_of_process

__all__: list[str] = []


class _Tampered(Mutant):
    """Lets a subclass change the files of a new layer."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        self.tamper(self.home / id)

    def tamper(self, layer: Path) -> None:
        """Change the files of a new layer."""
        raise NotImplementedError


@mutant("LNK-003", bug="moby #23535")
class LinksNotRemoved(Mutant):
    """remove leaves the short link."""

    def remove(self, id: str) -> None:
        link = self.home / id / "link"
        name = link.read_text() if link.exists() else ""
        super().remove(id)
        if name:
            (self.home / "l" / name).symlink_to(f"../{id}/diff")


@mutant("LNK-008", bug="moby #36161")
class EmptyLinkWipesLinks(Mutant):
    """remove of a layer with an empty link file deletes l/ with all links."""

    def remove(self, id: str) -> None:
        link = self.home / id / "link"
        if link.exists() and not link.read_text():
            shutil.rmtree(self.home / "l")
            (self.home / "l").mkdir()
        super().remove(id)


@mutant("LNK-001", bug="a text editor's convention that files end with a newline")
class LinkWithNewline(_Tampered):
    """The link file ends with a newline."""

    def tamper(self, layer: Path) -> None:
        link = layer / "link"
        link.write_text(link.read_text() + "\n")


@mutant("LNK-002", bug="overlay2 before relative links")
class AbsoluteLinks(_Tampered):
    """l/LINK points to the absolute path of the layer."""

    def tamper(self, layer: Path) -> None:
        link = self.home / "l" / (layer / "link").read_text()
        link.unlink()
        link.symlink_to(layer / "diff")


@mutant("LNK-004", bug="a random source without entropy")
class LinksAreCounted(_Tampered):
    """Short links are consecutive numbers."""

    def tamper(self, layer: Path) -> None:
        old = self.home / "l" / (layer / "link").read_text()
        new = "A" * 20 + f"{len(os.listdir(self.home / 'l')):06}".translate(
            str.maketrans("0189", "BCDE")
        )
        old.rename(old.with_name(new))
        (layer / "link").write_text(new)


@mutant("LAY-002", "MNT-012", bug="lowerdir in reverse order")
class LowersReversed(_Tampered):
    """The lower file lists the bottom layer first."""

    def tamper(self, layer: Path) -> None:
        lower = layer / "lower"
        if lower.exists():
            lower.write_text(":".join(reversed(lower.read_text().split(":"))))


@mutant("LAY-004", bug="a text editor's convention that files end with a newline")
class LowerWithNewline(_Tampered):
    """The lower file ends with a newline."""

    def tamper(self, layer: Path) -> None:
        lower = layer / "lower"
        if lower.exists():
            lower.write_text(lower.read_text() + "\n")


@mutant("LAY-003", bug="CVE-2021-41091")
class LayersAreOpen(_Tampered):
    """All users can enter a layer's directory."""

    def tamper(self, layer: Path) -> None:
        layer.chmod(0o755)


@mutant("LAY-003", bug="moby overlay: mkdir without a chmod")
class DiffObeysUmask(_Tampered):
    """The mode of diff depends on the umask of the process."""

    def tamper(self, layer: Path) -> None:
        (layer / "diff").chmod(0o777 & ~umask_of_process())


@mutant("LAY-001", bug="a driver that stores its own data in the layer")
class ExtraFiles(_Tampered):
    """A layer's directory contains an undocumented file."""

    def tamper(self, layer: Path) -> None:
        (layer / "parent").write_text("")


@mutant("MET-004", bug="overlay2: LowerDir empty instead of absent")
class LowerDirAlways(Mutant):
    """The metadata of a base layer contains an empty LowerDir."""

    def get_metadata(self, id: str) -> dict[str, str]:
        return {"LowerDir": "", **super().get_metadata(id)}


@mutant("MET-005", bug="lowerdir in reverse order")
class LowerDirReversed(Mutant):
    """LowerDir lists the bottom layer first."""

    def get_metadata(self, id: str) -> dict[str, str]:
        metadata = super().get_metadata(id)
        if "LowerDir" in metadata:
            metadata["LowerDir"] = ":".join(reversed(metadata["LowerDir"].split(":")))
        return metadata


@mutant("MET-003", bug="moby vfs, btrfs: GetMetadata returns neither data nor an error")
class MetadataOfNothing(Mutant):
    """get_metadata of an unknown layer returns an empty dictionary."""

    def get_metadata(self, id: str) -> dict[str, str]:
        return super().get_metadata(id) if self.wrapped.exists(id) else {}


@mutant("MET-007", bug="moby overlay2: exists is a stat(2) of the joined path")
class ExistsIsStat(Mutant):
    """exists("l") and exists("") return true."""

    def exists(self, id: str) -> bool:
        try:
            return (self.home / id).exists()
        except (OSError, ValueError):
            return False


@mutant("LIM-001", bug="an off-by-one in the depth check")
class LimitOneLess(Mutant):
    """At most 127 lowers are possible."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        lower = self.home / parent / "lower"
        if parent and lower.exists() and lower.read_text().count(":") >= 126:
            raise MaxDepthExceeded("max depth exceeded")
        super().make(id, parent, storage_opt)


@mutant("LIM-002", bug="containers/storage: the limit is checked at mount")
class LimitAtMountOnly(Mutant):
    """create beyond the depth limit succeeds."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except MaxDepthExceeded:
            self.wrapped.create(id)


@mutant("LIM-002", bug="moby #40709, after a create beyond the limit")
class LimitLeavesDirectory(Mutant):
    """A create beyond the limit leaves the layer's directory."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except MaxDepthExceeded:
            (self.home / id).mkdir()
            raise


@mutant("LNK-007", bug="containers/storage #859: a layer whose link is missing is skipped")
class MissingLinksSkipped(Mutant):
    """Lowers whose short links are missing are omitted from the mount."""

    def get(self, id: str, mount_label: str = "") -> Path:
        lower = self.home / id / "lower"
        whole = lower.read_text() if lower.exists() else ""
        there = [one for one in whole.split(":") if one and (self.home / one).exists()]
        if there:
            lower.write_text(":".join(there))
        try:
            return super().get(id, mount_label)
        finally:
            if there:
                lower.write_text(whole)


@mutant("LNK-009", bug="a driver that writes through l/")
class WritesThroughLinks(Mutant):
    """get overwrites files in the lower directories that the short links point to."""

    def get(self, id: str, mount_label: str = "") -> Path:
        lower = self.home / id / "lower"
        for one in lower.read_text().split(":") if lower.exists() else ():
            for path in (self.home / one).iterdir() if (self.home / one).is_dir() else ():
                if path.is_file() and not path.is_symlink():
                    path.write_bytes(b"")
        return super().get(id, mount_label)


@mutant("MET-001", bug="a list of rows that persists as long as the driver")
class StatusGrows(Mutant):
    """Each call of status returns one more row."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._asked: list[tuple[str, str]] = []

    def status(self) -> list[tuple[str, str]]:
        self._asked.append(("Asked", str(len(self._asked))))
        return [*super().status(), *self._asked]


@mutant("MET-002", bug="moby before d_type: unsupported file systems are <unknown>")
class BackingUnknown(Mutant):
    """status reports every file system as <unknown>."""

    def status(self) -> list[tuple[str, str]]:
        return [(k, "<unknown>" if k.startswith("Backing") else v) for k, v in super().status()]


@mutant("MET-006", bug="moby #22116: inspecting a layer mounts it")
class MetadataMounts(Mutant):
    """get_metadata leaves the layer held."""

    def get_metadata(self, id: str) -> dict[str, str]:
        metadata = super().get_metadata(id)
        self.wrapped.get(id)
        return metadata


@mutant("MET-008", bug="moby #44909")
class HalfLayersStay(Mutant):
    """remove does not delete a layer directory without a link file."""

    def remove(self, id: str) -> None:
        link = self.home / id / "link"
        if link.exists() and link.read_text():
            super().remove(id)


@mutant("LIM-003", bug="a chain that is flattened periodically, without its whiteouts")
class DeepDeletionsForgotten(Mutant):
    """Whiteouts are ignored in chains of more than nine lowers."""

    def put(self, id: str) -> None:
        super().put(id)
        lower, upper = self.home / id / "lower", self.home / id / "diff"
        if lower.exists() and lower.read_text().count(":") > 8:
            for path in upper.rglob("*"):
                if path.is_char_device():
                    path.unlink()


@mutant("LAY-005", bug="moby #42832: Init reads files of a layer from every directory in the home")
class InitReadsEverything(Mutant):
    """Init reads every directory in the home as a layer, and fails on others."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for name in os.listdir(self.home):
            os.listdir(self.home / name)


@mutant("LIM-004", bug="buildkit #4810: lowers by full path, about seventy in a page")
class LowersByTheirIds(Mutant):
    """The depth limit is the number of lowers that fit into a page of options by id."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if parent and self.wrapped.exists(parent):
            below = self.wrapped.get_metadata(parent).get("LowerDir", "").split(":")
            ids = [parent, *(Path(one).parent.name for one in below)]
            if sum(len(f"{one}/diff:") for one in ids) >= os.sysconf("SC_PAGE_SIZE"):
                raise MaxDepthExceeded("max depth exceeded")
        super().make(id, parent, storage_opt)


@mutant("LIM-005", bug="a number of children in a signed byte")
class ChildrenInAByte(Mutant):
    """A parent can have at most 127 children."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        counts: dict[str, int] = self.__dict__.setdefault("_children", {})
        if parent and counts.get(parent, 0) >= 127:
            raise LayerInUse(f"layer {parent} has too many children")
        super().make(id, parent, storage_opt)
        counts[parent] = counts.get(parent, 0) + 1


@mutant("LNK-006", bug="podman: the graph root in its database overrides the configured one")
class PathRemembered(Mutant):
    """The home stores its own path, which is used even after the home was moved."""

    def __init__(self, home: str | os.PathLike[str], *arguments: Any, **named: Any) -> None:
        note = Path(home) / ".path"
        path = note.read_text() if note.exists() else os.path.realpath(home)
        super().__init__(path, *arguments, **named)
        (self.home / ".path").write_text(path)
