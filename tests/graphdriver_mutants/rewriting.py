"""Archives rewritten member by member, the base of mutants of diff and apply_diff."""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant

__all__ = [
    "Member",
    "RewritesApply",
    "RewritesDiff",
    "SeesBelow",
    "archive_of",
    "clean",
    "is_whiteout",
    "members_of",
    "with_implied_directories",
]

Member = tuple[tarfile.TarInfo, bytes]


def members_of(data: bytes) -> list[Member]:
    """Return an archive's members with their data."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        found: list[Member] = []
        for member in archive:
            opened = archive.extractfile(member) if member.isreg() else None
            found.append((member, opened.read() if opened else b""))
        return found


def archive_of(members: Iterable[Member]) -> BinaryIO:
    """Return the archive of `members`; of their PAX records, only the xattrs."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as archive:
        for member, data in members:
            member.pax_headers = {
                key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.")
            }
            archive.addfile(member, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def clean(name: str) -> str:
    """Return a normalized name."""
    return os.path.normpath("/" + name).strip("/")


def is_whiteout(member: tarfile.TarInfo) -> bool:
    """Return whether a member is a marker."""
    return os.path.basename(member.name).startswith(".wh.")


def with_implied_directories(members: list[Member], mode: int) -> Iterator[Member]:
    """Yield the members, each after the implied directories of its name."""
    known = {member.name for member, _ in members}
    for member, data in members:
        above = os.path.dirname(member.name)
        if above and above not in known:
            made = tarfile.TarInfo(above)
            made.type, made.mode = tarfile.DIRTYPE, mode
            known.add(above)
            yield made, b""
        yield member, data


class RewritesDiff(Mutant):
    """Lets a subclass change the members of a diff."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, rewritten."""
        with super().diff(id, parent) as stream:
            return archive_of(self.rewritten(members_of(stream.read())))

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        """Yield the members as the broken driver writes them."""
        raise NotImplementedError


class RewritesApply(Mutant):
    """Lets a subclass change the members of an applied archive."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff of the rewritten archive."""
        data = diff.read()
        try:
            changed = archive_of(self.rewritten(members_of(data)))
        except tarfile.TarError:
            changed = io.BytesIO(data)
        return super().apply_diff(id, parent, changed)

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        """Yield the members as the broken driver applies them."""
        raise NotImplementedError


class SeesBelow(RewritesApply):
    """Lets a subclass read the layer's view before apply_diff."""

    view = Path()

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff of the rewritten archive."""
        if not self.wrapped.exists(id):
            return self.wrapped.apply_diff(id, parent, diff)
        self.view = self.wrapped.get(id)
        try:
            changed = self._changed(diff.read())
        finally:
            self.wrapped.put(id)
        return self.wrapped.apply_diff(id, parent, changed)

    def _changed(self, data: bytes) -> BinaryIO:
        try:
            return archive_of(self.rewritten(members_of(data)))
        except (OSError, ValueError):
            return io.BytesIO(data)

    def target(self, name: str) -> str:
        """Return the target of the symlink `name` in the view, "" if it is no symlink."""
        path = self.view / name
        if not path.is_symlink():
            return ""
        return clean(os.path.join(os.path.dirname(name), os.readlink(path)))
