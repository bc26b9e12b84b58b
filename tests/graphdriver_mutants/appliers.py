"""Mutants of apply_diff that change members while they are applied."""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from graphdriver.errors import BadArchive
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import (
    Member,
    RewritesApply,
    archive_of,
    is_whiteout,
    members_of,
    with_implied_directories,
)

__all__: list[str] = []


class _WithoutWhiteouts(Mutant):
    """Ignores the whiteouts of archives that a subclass does not support."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, without whiteouts if the archive is not supported."""
        if not self.is_confused(id, parent):
            return super().apply_diff(id, parent, diff)
        kept = [one for one in members_of(diff.read()) if not is_whiteout(one[0])]
        return super().apply_diff(id, parent, archive_of(kept))

    def is_confused(self, id: str, parent: str) -> bool:
        """Return whether the archive is not supported."""
        raise NotImplementedError


@mutant("DIF-018", bug="containerd #6991: whiteouts among files that already exist")
class SecondArchiveOnlyAdds(_WithoutWhiteouts):
    """apply_diff to a layer that already has files ignores whiteouts."""

    def is_confused(self, id: str, parent: str) -> bool:
        return bool(os.listdir(self.home / id / "diff"))


@mutant("DIF-022", bug="moby: a different apply code path when the parent is not the direct one")
class OtherParentOnlyAdds(_WithoutWhiteouts):
    """apply_diff with another parent than the layer's, or none, ignores whiteouts."""

    def is_confused(self, id: str, parent: str) -> bool:
        below = self.get_metadata(id).get("LowerDir", "").split(":")[0]
        return bool(below) and os.path.basename(os.path.dirname(below)) != parent


@mutant("DIF-019", bug="tarfile: an empty stream is a ReadError")
class EmptyStreamFails(Mutant):
    """apply_diff refuses an empty stream."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if not data:
            raise BadArchive("empty file", "")
        return super().apply_diff(id, parent, io.BytesIO(data))


@mutant(
    "ARC-010",
    bug="moby DetectCompression: a tar whose first file is named BZh... is detected as bzip2",
)
class BeginningsSniffed(Mutant):
    """An archive whose first name begins like a compressed stream is treated as compressed."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if data.startswith((b"BZh", b"\x1f\x8b", b"\xfd7zXZ\0")):
            raise BadArchive("the stream is compressed", "decompress it first")
        return super().apply_diff(id, parent, io.BytesIO(data))


@mutant("DIF-025", bug="moby UnpackLayer: an opaque marker removes the existing entries")
class OpaqueHidesEarlierMembers(RewritesApply):
    """An opaque marker deletes members of its own layer that came before it."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for number, (member, data) in enumerate(members):
            later = [one for one, _ in members[number:] if one.name.endswith(".wh..wh..opq")]
            if not any(_is_below(member.name, os.path.dirname(one.name)) for one in later):
                yield member, data


def _is_below(name: str, directory: str) -> bool:
    return name.startswith(directory + "/") and not os.path.basename(name).startswith(".wh.")


@mutant("DIF-029", bug="unlink(2) of a whiteout's path, with ENOENT passed on")
class WhiteoutOfNothingFails(RewritesApply):
    """A whiteout of a path that is in no lower layer is an error."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if is_whiteout(member) and member.name.endswith("nope"):
                raise FileNotFoundError(2, "No such file or directory", member.name)
            yield member, data


@mutant("DIF-032", bug="moby: a directory replaces the lower symlink")
class LowerSymlinkHidden(RewritesApply):
    """An implied directory replaces the symlink of a lower layer at its path."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return with_implied_directories(members, 0o755)


@mutant("DIF-034", bug="readers that support ustar only")
class LongNamesUnread(RewritesApply):
    """Member names are cut to 100 bytes."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.name = member.name[:100]
            yield member, data


@mutant("DIF-035", bug="vic #5997: hard links whose target does not exist yet")
class LinksToNothingSkipped(RewritesApply):
    """A hard link before its target is omitted."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        seen: set[str] = set()
        for member, data in members:
            if not member.islnk() or member.linkname in seen:
                seen.add(member.name)
                yield member, data


@mutant("SEC-002", bug="CVE-2021-32760")
class MetadataFollowsLinks(RewritesApply):
    """A second member with a symlink's path changes the mode of the symlink's target."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        targets: dict[str, str] = {}
        for member, data in members:
            if member.issym() or member.islnk():
                targets[member.name] = member.linkname
            elif member.name in targets:
                with suppress(OSError):
                    # A target is relative to the layer's root.
                    os.chmod(self.home / targets[member.name], member.mode)
            yield member, data


@mutant("SEC-003", bug="moby: all xattrs of the archive are set")
class PrivateAttributesObeyed(Mutant):
    """trusted.overlay.* xattrs of members are set in the upper directory."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        size = super().apply_diff(id, parent, io.BytesIO(data))
        for member, _ in members_of(data):
            for key, value in member.pax_headers.items():
                if key.startswith("SCHILY.xattr.trusted.overlay."):
                    path = self.home / id / "diff" / member.name
                    os.setxattr(path, key.removeprefix("SCHILY.xattr."), value.encode())
        return size


@mutant("SEC-004", bug="mknod(2) with numbers truncated to those of dev_t")
class DeviceNumbersCut(RewritesApply):
    """Device numbers that do not fit into dev_t are truncated."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.devmajor &= 0xFFF
            member.devminor &= 0xFFFFF
            yield member, data


@mutant("SEC-005", bug="CVE-2018-15664; CVE-2025-47290")
class ChecksThenWrites(Mutant):
    """A path is checked for symlinks when the header is read, and resolved again for the data."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        view, size = self.wrapped.get(id), 0
        try:
            with tarfile.open(fileobj=diff, mode="r|", bufsize=512) as archive:
                for member in archive:
                    path = view / member.name
                    opened = archive.extractfile(member) if member.isreg() else None
                    if opened is None or path.parent.is_symlink():
                        continue
                    data = opened.read()
                    with suppress(OSError):
                        size += path.write_bytes(data)
        finally:
            self.wrapped.put(id)
        return size


@mutant("SEC-009", bug="unpackers that recurse for each directory level")
class DepthIsRecursion(RewritesApply):
    """An archive with a thousand directory levels ends in a RecursionError."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.name.count("/") > 900:
                raise RecursionError("maximum recursion depth exceeded")
            yield member, data


@mutant("SEC-013", bug="int() of a header field, with ValueError passed on")
class NumbersBelieved(Mutant):
    """A malformed number in a header raises the ValueError of int()."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        for start in range(0, len(data), 512):
            block = data[start : start + 512]
            if block[257:262] == b"ustar":
                for field in (block[100:107], block[108:115], block[116:123], block[124:135]):
                    int(field, 8)
        return super().apply_diff(id, parent, io.BytesIO(data))
