"""Mutants that treat one kind of node in another way than the others."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import (
    Member,
    RewritesApply,
    RewritesDiff,
    SeesBelow,
    clean,
    is_whiteout,
)

__all__: list[str] = []


@mutant("DIF-058", bug="a device in a layer is taken for a whiteout of it (Linux, overlayfs)")
class WhiteoutsOfDevicesLost(SeesBelow):
    """A whiteout of a device node is passed over, as if the node were a whiteout itself."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            above, base = os.path.split(member.name)
            path = self.view / above / base.removeprefix(".wh.")
            if is_whiteout(member) and (path.is_char_device() or path.is_block_device()):
                continue
            yield member, data


@mutant("DIF-058", bug="NixOS/nixpkgs #107021, of fifos and devices: mknod(2) fails with EEXIST")
class SpecialFilesKeepFiles(SeesBelow):
    """A fifo or device that takes the place of a node below is passed over."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if not (member.isdev() and os.path.lexists(self.view / clean(member.name))):
                yield member, data


@mutant("DIF-059", bug="systemd #39619: link(2) with AT_SYMLINK_FOLLOW")
class LinksFollowLowerSymlinks(SeesBelow):
    """A hard link to a symlink of a lower layer is one to that symlink's target."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        names = {clean(member.name) for member, _ in members}
        for member, data in members:
            target = self.target(clean(member.linkname)) if member.islnk() else ""
            if clean(member.linkname) not in names and (self.view / target).is_file():
                member.linkname = target
            yield member, data


def _late(members: list[Member]) -> Iterator[tuple[Member, bool]]:
    """Yield each member, and whether it is a directory of which a member came before."""
    seen: set[str] = set()
    for member, data in members:
        name = clean(member.name)
        yield (member, data), member.isdir() and name in seen
        while name := os.path.dirname(name):
            seen.add(name)


@mutant("DIF-060", bug="jib #1650, of owners: a directory that is there already is not chowned")
class LateOwnersIgnored(RewritesApply):
    """A directory keeps the owner that it has when its entry comes after its members."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for (member, data), is_late in _late(members):
            if is_late:
                member.uid = member.gid = 0
            yield member, data


@mutant("DIF-061", bug="jib #1650, of attributes")
class LateAttributesIgnored(RewritesApply):
    """A directory whose entry comes after its members has none of that entry's attributes."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for (member, data), is_late in _late(members):
            if is_late:
                member.pax_headers = {}
            yield member, data


@mutant("WHT-017", bug="fuse-overlayfs #279, of fifos")
class FifosOverFilesLost(Mutant):
    """A fifo that was made in the place of a lower file is gone at the next mount."""

    def put(self, id: str) -> None:
        """Driver.put, after which the file is deleted."""
        super().put(id)
        upper = self.home / id / "diff"
        if os.path.ismount(self.home / id / "merged") or not (self.home / id / "lower").exists():
            return
        lower = self.sound.get_metadata(id)["LowerDir"].split(":")
        for path in [path for path in upper.rglob("*") if path.is_fifo()]:
            below = [Path(one) / path.relative_to(upper) for one in lower]
            if next((one.is_file() for one in below if os.path.lexists(one)), False):
                path.unlink()
                os.mknod(path, stat.S_IFCHR)


@mutant("ARC-027", bug="libarchive #1045, mended for symlinks and fifos")
class LinkedDevicesAreTwo(RewritesDiff):
    """Hard links of device nodes become nodes of their own."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        first = {member.name: member for member, _ in members}
        for member, data in members:
            old = first.get(member.linkname) if member.islnk() else None
            if old and (old.ischr() or old.isblk()):
                member.type, member.linkname = old.type, ""
                member.devmajor, member.devminor = old.devmajor, old.devminor
            yield member, data


@mutant("LIF-035", bug="chown(2) follows symlinks: a copy leaves those out")
class CopyLosesOwnersOfSymlinks(Mutant):
    """A child's symlinks are root's."""

    sound_name = "vfs"

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, and give root what a copy would not chown."""
        super().make(id, parent, storage_opt)
        for path in (self.home / "dir" / id).rglob("*") if parent else ():
            if path.is_symlink():
                found = path.lstat()
                os.lchown(path, 0, 0)
                os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


@mutant("FSX-002", bug="gvisor #12523, of the sticky bit")
class StickyLostOnCopyUp(Mutant):
    """A directory in which something was made is not sticky any more."""

    def put(self, id: str) -> None:
        """Driver.put, after chmod(2) of what it has in the upper directory."""
        upper = self.home / id / "diff"
        lower = self.sound.get_metadata(id).get("LowerDir", "") if self.sound.exists(id) else ""
        for path in upper.rglob("*") if lower else ():
            mode = path.lstat().st_mode
            below = (Path(one) / path.relative_to(upper) for one in lower.split(":"))
            if stat.S_ISDIR(mode) and mode & stat.S_ISVTX and any(one.is_dir() for one in below):
                path.chmod(stat.S_IMODE(mode) & ~stat.S_ISVTX)
        super().put(id)
