"""Mutants of id maps."""

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from graphdriver.contract import IDMap
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import Member, RewritesApply, RewritesDiff

__all__ = ["Mapped"]


class Mapped(Mutant):
    """Stores the id maps of Init."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        self.uid_maps, self.gid_maps = uid_maps, gid_maps
        super().__init__(home, options, *self.chosen(uid_maps, gid_maps))

    def chosen(
        self, uid_maps: Sequence[IDMap], gid_maps: Sequence[IDMap]
    ) -> tuple[Sequence[IDMap], Sequence[IDMap]]:
        """Return the maps that the wrapped driver gets."""
        return uid_maps, gid_maps

    def outside(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Return the id on disk, None if it has no mapping."""
        owner = []
        for maps, inside in ((self.uid_maps, uid), (self.gid_maps, gid)):
            found = [m for m in maps if m.container_id <= inside < m.container_id + m.size]
            if maps and not found:
                return None
            owner.append(found[0].host_id + inside - found[0].container_id if found else inside)
        return owner[0], owner[1]


@mutant("IDM-001", bug="moby 1.12: new layers are owned by root until a later chown")
class RootNotMapped(Mapped):
    """The root of a new layer is owned by uid 0 of the host, independent of the id maps."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if self.uid_maps:
            os.chown(self.home / id / "diff", 0, 0)


@mutant("IDM-001", bug="CVE-2021-21284")
class LayerIsMappedRoots(Mapped):
    """The layer's own directory is owned by the mapped root."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if owner := self.uid_maps and self.outside(0, 0):
            os.chown(self.home / id, *owner)


@mutant("IDM-002", bug="an archive of the files on disk")
class DiffShowsHostIds(RewritesDiff, Mapped):
    """diff exports the owners of the files on disk, unmapped."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.uid, member.gid = self.outside(member.uid, member.gid) or (0, 0)
            yield member, data


@mutant("IDM-006", bug="moby fsdiff.go: a layer without a parent is exported without mapping")
class WholeTreeNotMapped(RewritesDiff, Mapped):
    """diff without a parent exports the owners of the files on disk, unmapped."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        return self.wrapped.diff(id, parent) if parent else super().diff(id, parent)

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.uid, member.gid = self.outside(member.uid, member.gid) or (0, 0)
            yield member, data


@mutant("IDM-003", bug="a daemon that reads only the first line of /etc/subuid")
class OnlyTheFirstRange(Mapped):
    """Only the first range of an id map is used."""

    def chosen(
        self, uid_maps: Sequence[IDMap], gid_maps: Sequence[IDMap]
    ) -> tuple[Sequence[IDMap], Sequence[IDMap]]:
        return uid_maps[:1], gid_maps[:1]


@mutant("IDM-003", bug="an off-by-one at the end of a range")
class RangesEndEarly(Mapped):
    """The last id of each longer range is not mapped."""

    def chosen(
        self, uid_maps: Sequence[IDMap], gid_maps: Sequence[IDMap]
    ) -> tuple[Sequence[IDMap], Sequence[IDMap]]:
        def shorter(maps: Sequence[IDMap]) -> list[IDMap]:
            return [IDMap(m.container_id, m.host_id, max(m.size - 1, 1)) for m in maps]

        return shorter(uid_maps), shorter(gid_maps)


@mutant("IDM-004", bug="moby pkg/archive: members that cannot be mapped are logged and omitted")
class UnmappedLeftOut(RewritesApply, Mapped):
    """apply_diff omits members whose owners have no mapping."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return (one for one in members if self.outside(one[0].uid, one[0].gid))


@mutant("IDM-005", bug="container-libs #1170")
class MappedWhiteoutsLost(RewritesDiff, Mapped):
    """With id maps the archive does not contain deletions."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def deletes(member: tarfile.TarInfo) -> bool:
            return bool(self.uid_maps) and os.path.basename(member.name).startswith(".wh.")

        return (one for one in members if not deletes(one[0]))


@mutant("MNT-020", bug="overlay2 before the chown in Get")
class WorkIsRoots(Mutant):
    """The directory that the kernel creates below work is owned by root of the host."""

    def get(self, id: str, mount_label: str = "") -> Path:
        view = super().get(id, mount_label)
        work = self.home / id / "work" / "work"
        if work.is_dir():
            os.chown(work, 0, 0)
        return view
