"""Mutants that handle one kind of node incorrectly."""

import io
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import (
    Member,
    RewritesApply,
    RewritesDiff,
    SeesBelow,
    clean,
    is_whiteout,
    members_of,
)

__all__: list[str] = []


@mutant("DIF-058", bug="overlayfs: a device in a layer is treated as a whiteout")
class WhiteoutsOfDevicesLost(SeesBelow):
    """A whiteout of a device node is ignored, as if the node were a whiteout itself."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            above, base = os.path.split(member.name)
            path = self.view / above / base.removeprefix(".wh.")
            if is_whiteout(member) and (path.is_char_device() or path.is_block_device()):
                continue
            yield member, data


@mutant("DIF-058", bug="NixOS/nixpkgs #107021, for FIFOs and devices: mknod(2) fails with EEXIST")
class SpecialFilesKeepFiles(SeesBelow):
    """A FIFO or device that replaces a node of a lower layer is omitted."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if not (member.isdev() and os.path.lexists(self.view / clean(member.name))):
                yield member, data


@mutant("DIF-059", bug="systemd #39619: link(2) with AT_SYMLINK_FOLLOW")
class LinksFollowLowerSymlinks(SeesBelow):
    """A hard link to a symlink of a lower layer is created to the symlink's target."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        names = {clean(member.name) for member, _ in members}
        for member, data in members:
            target = self.target(clean(member.linkname)) if member.islnk() else ""
            if clean(member.linkname) not in names and (self.view / target).is_file():
                member.linkname = target
            yield member, data


def _late(members: list[Member]) -> Iterator[tuple[Member, bool]]:
    """Yield each member, and whether it is a directory with earlier members."""
    seen: set[str] = set()
    for member, data in members:
        name = clean(member.name)
        yield (member, data), member.isdir() and name in seen
        while name := os.path.dirname(name):
            seen.add(name)


@mutant("DIF-060", bug="jib #1650, for owners: an existing directory is not chowned")
class LateOwnersIgnored(RewritesApply):
    """The owner of a directory entry is ignored if members of the directory came before it."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for (member, data), is_late in _late(members):
            if is_late:
                member.uid = member.gid = 0
            yield member, data


@mutant("DIF-061", bug="jib #1650, for xattrs")
class LateAttributesIgnored(RewritesApply):
    """The xattrs of a directory entry are ignored if members of the directory came before it."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for (member, data), is_late in _late(members):
            if is_late:
                member.pax_headers = {}
            yield member, data


@mutant("WHT-017", bug="fuse-overlayfs #279, for FIFOs")
class FifosOverFilesLost(Mutant):
    """A FIFO created in place of a lower file is missing at the next mount."""

    def put(self, id: str) -> None:
        """Driver.put, after which the file is deleted."""
        super().put(id)
        upper = self.home / id / "diff"
        if os.path.ismount(self.home / id / "merged") or not (self.home / id / "lower").exists():
            return
        lower = self.wrapped.get_metadata(id)["LowerDir"].split(":")
        for path in [path for path in upper.rglob("*") if path.is_fifo()]:
            below = [Path(one) / path.relative_to(upper) for one in lower]
            if next((one.is_file() for one in below if os.path.lexists(one)), False):
                path.unlink()
                os.mknod(path, stat.S_IFCHR)


@mutant("ARC-027", bug="libarchive #1045, fixed for symlinks and FIFOs")
class LinkedDevicesAreTwo(RewritesDiff):
    """Hard links of device nodes become separate nodes."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        first = {member.name: member for member, _ in members}
        for member, data in members:
            old = first.get(member.linkname) if member.islnk() else None
            if old and (old.ischr() or old.isblk()):
                member.type, member.linkname = old.type, ""
                member.devmajor, member.devminor = old.devmajor, old.devminor
            yield member, data


@mutant("LIF-035", bug="chown(2) follows symlinks, so the copy does not change their owner")
class CopyLosesOwnersOfSymlinks(Mutant):
    """Symlinks of a child are owned by root."""

    wrapped_name = "vfs"

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, then change the owner of all symlinks to root."""
        super().make(id, parent, storage_opt)
        for path in (self.home / "dir" / id).rglob("*") if parent else ():
            if path.is_symlink():
                found = path.lstat()
                os.lchown(path, 0, 0)
                os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


@mutant("FSX-002", bug="gvisor #12523, for the sticky bit")
class StickyLostOnCopyUp(Mutant):
    """A directory loses its sticky bit when an entry is created in it."""

    def put(self, id: str) -> None:
        """Driver.put, after chmod(2) of directories in the upper directory."""
        upper = self.home / id / "diff"
        lower = self.wrapped.get_metadata(id).get("LowerDir", "") if self.wrapped.exists(id) else ""
        for path in upper.rglob("*") if lower else ():
            mode = path.lstat().st_mode
            below = (Path(one) / path.relative_to(upper) for one in lower.split(":"))
            if stat.S_ISDIR(mode) and mode & stat.S_ISVTX and any(one.is_dir() for one in below):
                path.chmod(stat.S_IMODE(mode) & ~stat.S_ISVTX)
        super().put(id)


@mutant(
    "DIF-060", bug="jib #1270, for owners: mkdir(2) and chown(2) of the directories above a member"
)
class ParentsOnTheWayBecomeRoots(Mutant):
    """A directory without an entry is owned by root after a member was created in it."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, and chown(2)."""
        data = diff.read()
        size = super().apply_diff(id, parent, io.BytesIO(data))
        names = {clean(member.name) for member, _ in members_of(data)} if data else set()
        upper = self.home / id / "diff"
        for above in {os.path.dirname(name) for name in names} - names - {""}:
            if (upper / above).is_dir() and not (upper / above).is_symlink():
                os.chown(upper / above, 0, 0)
        return size
