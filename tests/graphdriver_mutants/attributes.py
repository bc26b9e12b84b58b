"""Mutants whose copies lose one kind of attribute: an xattr namespace, the owner, mode bits."""

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from graphdriver_mutants.filesystem import _Touches
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import members_of

__all__: list[str] = []


def _below(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if not path.is_symlink():
            yield path


def _lose(path: Path, spaces: tuple[str, ...]) -> None:
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(spaces) and not name.startswith("trusted.overlay."):
            os.removexattr(path, name, follow_symlinks=False)


class _CopyUpLoses(_Touches):
    """Damages copied-up files at the last put."""

    spaces: ClassVar[tuple[str, ...]] = ()

    def after_last_put(self, upper: Path) -> None:
        """Damage files that a lower layer has as well."""
        lowers = self.wrapped.get_metadata(upper.parent.name).get("LowerDir", "").split(":")
        for path in _below(upper):
            name = path.relative_to(upper)
            if any(os.path.lexists(Path(lower) / name) for lower in lowers if lower):
                self.damage(path)

    def damage(self, path: Path) -> None:
        """Damage a node."""
        _lose(path, self.spaces)


@mutant("FSX-021", bug="moby #20240, for capabilities; kernels whose copy-up drops security.*")
class CopyUpLosesCapabilities(_CopyUpLoses):
    """A copied-up file loses its file capabilities."""

    spaces = ("security.capability",)


@mutant("FSX-022", bug="Linux before 4.8: overlayfs does not copy up default ACLs")
class CopyUpLosesAccessLists(_CopyUpLoses):
    """A copied-up file loses its ACLs."""

    spaces = ("system.posix_acl",)


@mutant("FSX-023", bug="a copy with tar, which omits trusted.*")
class CopyUpLosesTrusted(_CopyUpLoses):
    """A copied-up file loses its trusted.* xattrs."""

    spaces = ("trusted.",)


@mutant("FSX-002", bug="gvisor #12523")
class CopyUpLosesSetgid(_CopyUpLoses):
    """A copied-up directory loses its setgid bit."""

    def damage(self, path: Path) -> None:
        """Clear the mode bit."""
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir() and mode & stat.S_ISGID:
            path.chmod(mode & ~stat.S_ISGID)


@mutant("FSX-025", bug="fuse-overlayfs: a copied-up file is owned by the user of the process")
class CopyUpLosesOwner(_CopyUpLoses):
    """A copied-up file is owned by root."""

    def damage(self, path: Path) -> None:
        """Change the owner and keep the mode."""
        mode = stat.S_IMODE(path.stat().st_mode)
        os.chown(path, 0, 0)
        path.chmod(mode)


class _CopyLoses(Mutant):
    """Damages the copy of the parent that a new vfs layer contains."""

    wrapped_name = "vfs"
    spaces: ClassVar[tuple[str, ...]] = ()

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if parent:
            for path in _below(self.home / "dir" / id):
                with suppress(FileNotFoundError):
                    _lose(path, self.spaces)


@mutant("LIF-031", bug="moby #20240: vfs copied files without security.capability")
class CopyLosesCapabilities(_CopyLoses):
    """Files of a child lose their file capabilities."""

    spaces = ("security.capability",)


@mutant("LIF-032", bug="cp -R instead of cp -a: ACLs are not copied")
class CopyLosesAccessLists(_CopyLoses):
    """Files of a child lose their ACLs."""

    spaces = ("system.posix_acl",)


@mutant("LIF-033", bug="moby #20331: a copy with tar omits trusted.*")
class CopyLosesTrusted(_CopyLoses):
    """Files of a child lose their trusted.* xattrs."""

    spaces = ("trusted.",)


@mutant("ARC-030", bug="hpc/charliecloud #1782: setxattr(2) instead of lsetxattr(2)")
class AttributesOfSymlinksFollowed(Mutant):
    """The xattrs of a symlink member are set on the symlink's target."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        size = super().apply_diff(id, parent, io.BytesIO(data))
        root = self.wrapped.get(id)
        try:
            for member, _ in members_of(data) if data else ():
                for key, value in member.pax_headers.items() if member.issym() else ():
                    with suppress(OSError):
                        raw = value.encode("utf-8", "surrogateescape")
                        os.setxattr(root / member.name, key.removeprefix("SCHILY.xattr."), raw)
        finally:
            self.wrapped.put(id)
        return size
