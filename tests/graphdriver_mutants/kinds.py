"""Mutants that treat one kind of node in another way than the others."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import Member, RewritesApply, SeesBelow, clean, is_whiteout

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
