"""Mutants of markers and members with the same or nested paths."""

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import (
    Member,
    RewritesApply,
    SeesBelow,
    clean,
    is_whiteout,
    members_of,
)

__all__: list[str] = []

_OPAQUE = ".wh..wh..opq"


class _Afterwards(Mutant):
    """Lets a subclass change the layer's directory after apply_diff."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        size = self.wrapped.apply_diff(id, parent, io.BytesIO(data))
        names = [clean(member.name) for member, _ in members_of(data)] if data else []
        self.after(self.home / id / "diff", names)
        return size

    def after(self, upper: Path, names: list[str]) -> None:
        """Change `upper` after the members `names` were applied."""
        raise NotImplementedError


@mutant("DIF-036", bug="anchore/stereoscope #696")
class OpaqueByPrefix(RewritesApply):
    """Every name that begins like the opaque marker makes the directory opaque."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            above, base = os.path.split(member.name)
            if base.startswith(_OPAQUE):
                member.name = os.path.join(above, _OPAQUE)
            yield member, data


@mutant("DIF-036", bug="fuse-overlayfs #306, stargz-snapshotter #2214")
class WhiteoutListedInOpaque(_Afterwards):
    """An explicit whiteout in an opaque directory becomes a device there, which readdir lists."""

    def after(self, upper: Path, names: list[str]) -> None:
        opaque = {os.path.dirname(name) for name in names if os.path.basename(name) == _OPAQUE}
        for name in names:
            above, base = os.path.split(name)
            path = upper / above / base[4:]
            is_explicit = base.startswith(".wh.") and base != _OPAQUE and above in opaque - {""}
            if is_explicit and (upper / above).is_dir() and not os.path.lexists(path):
                os.mknod(path, stat.S_IFCHR)


@mutant("DIF-036", "DIF-031", bug="an early release of this project: the opaque root ignored them")
class RootOpaqueBringsBack(_Afterwards):
    """With an opaque marker at the root, explicit whiteouts are ignored."""

    def after(self, upper: Path, names: list[str]) -> None:
        if _OPAQUE not in names:
            return
        for name in names:
            path = upper / name.replace(".wh.", "", 1)
            is_explicit = "/" not in name and name.startswith(".wh.") and name != _OPAQUE
            if is_explicit and path.is_char_device():
                path.unlink()


@mutant("DIF-036", bug="an explicit whiteout replaces the opaque mark of its directory")
class WhiteoutEndsOpaque(RewritesApply):
    """In a directory with an explicit whiteout the opaque marker is ignored."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        marked = {
            os.path.dirname(member.name)
            for member, _ in members
            if is_whiteout(member) and os.path.basename(member.name) != _OPAQUE
        }
        for member, data in members:
            above, base = os.path.split(member.name)
            if base != _OPAQUE or not above or above not in marked:
                yield member, data


@mutant(
    "DIF-037",
    bug="kaniko #2308: a directory becomes a symlink, and its whiteouts apply to the target",
)
class MarkersThroughNewSymlinks(RewritesApply):
    """A marker below a symlink of its own archive hides files in the symlink's target."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        links = {member.name: member.linkname for member, _ in members if member.issym()}
        for member, data in members:
            above, base = os.path.split(member.name)
            if base.startswith(".wh.") and above in links:
                to = clean(os.path.join(os.path.dirname(above), links[above]))
                member.name = os.path.join(to, base)
            yield member, data


@mutant("DIF-037", bug="apptainer/singularity #1605")
class WhiteoutDeletesTheTarget(SeesBelow):
    """A whiteout of a symlink deletes the file that the symlink points to."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            above, base = os.path.split(member.name)
            is_explicit = base.startswith(".wh.") and base != _OPAQUE
            if is_explicit and (to := self.target(os.path.join(above, base[4:]))):
                member.name = os.path.join(os.path.dirname(to), ".wh." + os.path.basename(to))
            yield member, data


@mutant("DIF-038", bug="nixpkgs #107021, diffoci #183")
class OldSymlinkStays(SeesBelow):
    """A directory member does not replace a lower symlink to a directory."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            is_kept = member.isdir() and (self.view / member.name).is_dir()
            if not is_kept or not self.target(member.name):
                yield member, data


@mutant("DIF-039", bug="moby #5632: the linked name is copied up over its whiteout")
class LinkedNameStays(RewritesApply):
    """A whiteout of a file that has a new hard link in the archive is ignored."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        linked = {member.linkname for member, _ in members if member.islnk()}
        for member, data in members:
            if not is_whiteout(member) or member.name.replace(".wh.", "", 1) not in linked:
                yield member, data


@mutant("DIF-040", bug="moby #43279")
class NamesBelowWhiteoutsShow(RewritesApply):
    """A member below a `.wh.` directory becomes an ordinary file."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        self._left: list[str] = []
        size = super().apply_diff(id, parent, diff)
        for name in self._left:
            path = self.home / id / "diff" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return size

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if "/.wh." in "/" + os.path.dirname(member.name):
                self._left.append(member.name)
            else:
                yield member, data


@mutant("DIF-040", bug="a whiteout of a file that diff does not find in the lower layers")
class ExportFailsOnWhiteouts(Mutant):
    """diff fails with ENODATA for a layer that was applied with an opaque marker."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self._opaque: set[str] = set()

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if _OPAQUE.encode() in data:
            self._opaque.add(id)
        return super().apply_diff(id, parent, io.BytesIO(data))

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        if id in self._opaque:
            raise OSError(errno.ENODATA, "trusted.overlay.opaque")
        return super().diff(id, parent)


@mutant("WHT-016", bug="moby pkg/archive, overlayWhiteoutConverter: a device for every marker")
class WhiteoutNodesInBaseLayers(_Afterwards):
    """In a layer without a parent, whiteouts become devices that its view shows."""

    def after(self, upper: Path, names: list[str]) -> None:
        if (upper.parent / "lower").exists():
            return
        for name in names:
            above, base = os.path.split(name)
            path = upper / above / base[4:]
            is_marker = base.startswith(".wh.") and not base.startswith(".wh..wh.")
            if is_marker and (upper / above).is_dir() and not os.path.lexists(path):
                os.mknod(path, stat.S_IFCHR)


@mutant("DIF-041", bug="jib #1650: an existing directory is not created again")
class LateDirectoriesIgnored(RewritesApply):
    """The metadata of a directory member is ignored if entries of the directory came before."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        made: set[str] = set()
        for member, data in members:
            if member.isdir() and member.name in made:
                continue
            made.add(os.path.dirname(member.name))
            yield member, data


@mutant("DIF-041", bug="bazel #693, jib #1270: an existing file keeps its mode")
class ReplacedFileKeepsItsMode(RewritesApply):
    """The second of two members with the same path keeps the mode of the first."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        modes: dict[str, int] = {}
        for member, data in members:
            if member.isreg() and not is_whiteout(member):
                member.mode = modes.setdefault(member.name, member.mode)
            elif not is_whiteout(member):
                modes.pop(member.name, None)
            yield member, data


@mutant("DIF-042", bug="GNU tar --overwrite: the file is written in place, under all its names")
class OverwritesAllNames(RewritesApply):
    """A member that replaces a file with hard links changes all names of the file."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        with suppress(tarfile.TarError):
            names = [member.name for member, _ in members_of(data) if member.isreg()]
            if len(names) != len(set(names)):
                return super().apply_diff(id, parent, io.BytesIO(data))
        return Mutant.apply_diff(self, id, parent, io.BytesIO(data))

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        last = {member.name: data for member, data in members if member.isreg()}
        linked = {member.linkname for member, _ in members if member.islnk()}
        for member, data in members:
            if member.isreg() and member.name in linked:
                data = last[member.name]
                member.size = len(data)
            yield member, data


class _KeepsAttributes(SeesBelow):
    def keep(self, member: tarfile.TarInfo) -> None:
        """Add xattrs that the inode in the view has and the member lacks."""
        path = self.view / member.name
        for key in os.listxattr(path):
            if key.startswith("user."):
                value = os.getxattr(path, key).decode("utf-8", "surrogateescape")
                member.pax_headers = {f"SCHILY.xattr.{key}": value, **member.pax_headers}


@mutant("DIF-043", bug="open(2) with O_TRUNC keeps the inode, and with it its xattrs")
class ReplacedFileKeepsAttributes(_KeepsAttributes):
    """A file that replaces a lower file also has the xattrs of the lower file."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            path = self.view / member.name
            if member.isreg() and path.is_file() and not path.is_symlink():
                self.keep(member)
            yield member, data


@mutant("DIF-044", bug="moby pkg/archive: xattrs are added to an existing directory")
class DirectoryKeepsAttributes(_KeepsAttributes):
    """The xattrs of a directory member are added to those of the lower directory."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            path = self.view / member.name
            if member.isdir() and path.is_dir() and not path.is_symlink():
                self.keep(member)
            yield member, data


@mutant("DIF-045", bug="moby pkg/archive: open(2) and mkdir(2) inherit the default ACL")
class DefaultListsInherited(_Afterwards):
    """Members inherit the default ACL of their directory."""

    def after(self, upper: Path, names: list[str]) -> None:
        for name in names:
            path = upper / name
            above = path.parent
            # The name of a marker may be longer than a file's.
            if path.name.startswith(".wh.") or not path.is_file() or path.is_symlink():
                continue
            if "system.posix_acl_default" in os.listxattr(above):
                value = os.getxattr(above, "system.posix_acl_default")
                os.setxattr(path, "system.posix_acl_access", value)
