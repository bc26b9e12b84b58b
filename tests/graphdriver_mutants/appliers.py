"""Mutants of apply_diff: what becomes of members on their way into a layer."""

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
    """Drops the whiteouts of archives that it does not understand."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, mostly."""
        if not self.is_confused(id, parent):
            return super().apply_diff(id, parent, diff)
        kept = [one for one in members_of(diff.read()) if not is_whiteout(one[0])]
        return super().apply_diff(id, parent, archive_of(kept))

    def is_confused(self, id: str, parent: str) -> bool:
        """Say whether it is."""
        raise NotImplementedError


@mutant("DIF-018", bug="containerd #6991: whiteouts among files that are there already")
class SecondArchiveOnlyAdds(_WithoutWhiteouts):
    """A layer that holds something already deletes nothing more."""

    def is_confused(self, id: str, parent: str) -> bool:
        return bool(os.listdir(self.home / id / "diff"))


@mutant("DIF-022", bug="moby: another way to apply where the parent is not the direct one")
class OtherParentOnlyAdds(_WithoutWhiteouts):
    """With the grandparent or none for a parent, nothing is deleted."""

    def is_confused(self, id: str, parent: str) -> bool:
        below = self.get_metadata(id).get("LowerDir", "").split(":")[0]
        return bool(below) and os.path.basename(os.path.dirname(below)) != parent


@mutant("DIF-019", bug="tarfile: an empty stream is a ReadError")
class EmptyStreamFails(Mutant):
    """A stream of no bytes is refused."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if not data:
            raise BadArchive("empty file", "")
        return super().apply_diff(id, parent, io.BytesIO(data))


@mutant("ARC-010", bug="moby DetectCompression: a tar whose first file is called BZh... is bzip2")
class BeginningsSniffed(Mutant):
    """An archive whose first name begins as a compressed stream is taken for one."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if data.startswith((b"BZh", b"\x1f\x8b", b"\xfd7zXZ\0")):
            raise BadArchive("the stream is compressed", "decompress it first")
        return super().apply_diff(id, parent, io.BytesIO(data))


@mutant("DIF-025", bug="moby UnpackLayer: opaque removes what is there so far")
class OpaqueHidesEarlierMembers(RewritesApply):
    """An opaque marker deletes those of its own layer's members that came before."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for number, (member, data) in enumerate(members):
            later = [one for one, _ in members[number:] if one.name.endswith(".wh..wh..opq")]
            if not any(_is_below(member.name, os.path.dirname(one.name)) for one in later):
                yield member, data


def _is_below(name: str, directory: str) -> bool:
    return name.startswith(directory + "/") and not os.path.basename(name).startswith(".wh.")


@mutant("DIF-029", bug="unlink(2) of a whiteout's name, ENOENT passed on")
class WhiteoutOfNothingFails(RewritesApply):
    """A whiteout of what is in no layer is an error."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if is_whiteout(member) and member.name.endswith("nope"):
                raise FileNotFoundError(2, "No such file or directory", member.name)
            yield member, data


@mutant("DIF-032", bug="moby: a directory takes the place of the lower symlink")
class LowerSymlinkHidden(RewritesApply):
    """Directories that the archive implies are made where they are named."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return with_implied_directories(members, 0o755)


@mutant("DIF-034", bug="readers that know ustar only")
class LongNamesUnread(RewritesApply):
    """Names end after 100 bytes."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.name = member.name[:100]
            yield member, data


@mutant("DIF-035", bug="vic #5997: hard links whose target is not there yet")
class LinksToNothingSkipped(RewritesApply):
    """A hard link before its target is left out."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        seen: set[str] = set()
        for member, data in members:
            if not member.islnk() or member.linkname in seen:
                seen.add(member.name)
                yield member, data


@mutant("SEC-002", bug="CVE-2021-32760")
class MetadataFollowsLinks(RewritesApply):
    """A second member of a symlink's name changes the mode of what the symlink leads to."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        targets: dict[str, str] = {}
        for member, data in members:
            if member.issym() or member.islnk():
                targets[member.name] = member.linkname
            elif member.name in targets:
                with suppress(OSError):
                    # From the layer's root, as the name stands there.
                    os.chmod(self.home / targets[member.name], member.mode)
            yield member, data


@mutant("SEC-003", bug="moby: attributes of the archive are set as they are")
class PrivateAttributesObeyed(Mutant):
    """trusted.overlay attributes of members are set on the upper."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        size = super().apply_diff(id, parent, io.BytesIO(data))
        for member, _ in members_of(data):
            for key, value in member.pax_headers.items():
                if key.startswith("SCHILY.xattr.trusted.overlay."):
                    path = self.home / id / "diff" / member.name
                    os.setxattr(path, key.removeprefix("SCHILY.xattr."), value.encode())
        return size


@mutant("SEC-004", bug="mknod(2) with numbers cut to those of dev_t")
class DeviceNumbersCut(RewritesApply):
    """Device numbers lose the bits that the kernel has no room for."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.devmajor &= 0xFFF
            member.devminor &= 0xFFFFF
            yield member, data


@mutant("SEC-005", bug="CVE-2018-15664; CVE-2025-47290")
class ChecksThenWrites(Mutant):
    """A path is looked at for symlinks when its header is read, and followed when its data is."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        view, size = self.sound.get(id), 0
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
            self.sound.put(id)
        return size


@mutant("SEC-009", bug="unpackers that call themselves for each level")
class DepthIsRecursion(RewritesApply):
    """A thousand levels end in a RecursionError."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.name.count("/") > 900:
                raise RecursionError("maximum recursion depth exceeded")
            yield member, data


@mutant("SEC-013", bug="int() of a header's field, ValueError passed on")
class NumbersBelieved(Mutant):
    """A number that is none ends in whatever int() says."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        for start in range(0, len(data), 512):
            block = data[start : start + 512]
            if block[257:262] == b"ustar":
                for field in (block[100:107], block[108:115], block[116:123], block[124:135]):
                    int(field, 8)
        return super().apply_diff(id, parent, io.BytesIO(data))
