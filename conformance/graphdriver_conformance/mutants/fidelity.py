"""Mutants of what a node keeps on its way through an archive."""

import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from graphdriver_conformance.mutants.archives import Member, RewritesDiff
from graphdriver_conformance.mutants.registry import Mutant, mutant

__all__: list[str] = []

_ZEROS = bytes(1 << 20)


@mutant("ARC-012", bug="moby #3845: security.capability was not in the archive")
class CapabilitiesLost(RewritesDiff):
    """File capabilities do not travel."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.pax_headers = {
                key: value
                for key, value in member.pax_headers.items()
                if key != "SCHILY.xattr.security.capability"
            }
            yield member, data


@mutant("ARC-018", bug="chown(2) after chmod(2) clears the bits")
class SetuidLostWithItsOwner(RewritesDiff):
    """Setuid and setgid travel for root's files only."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.uid:
                member.mode &= 0o1777
            yield member, data


@mutant("DIF-014", bug="containers/storage #141: directories marked opaque lost mode and owner")
class DirectoriesReset(RewritesDiff):
    """Every directory is 0755."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.isdir():
                member.mode = 0o755
            yield member, data


@mutant("DIF-015", bug="moby #34342: with redirect_dir a renamed directory was diffed as empty")
class RenamedDirectoryIsEmpty(RewritesDiff):
    """What lies below a directory that took another's place is not in the archive."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        new = {m.name for m, _ in members if m.isdir()}
        renamed = new if any(m.name.startswith(".wh.") for m, _ in members) else set()
        for member, data in members:
            if member.name.rpartition("/")[0] not in renamed:
                yield member, data


@mutant("DIF-024", bug="moby pkg/chrootarchive: before flush() the sender of padding got SIGPIPE")
class PaddingUnread(Mutant):
    """apply_diff stops reading where the archive ends."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        if not diff.seekable():
            return super().apply_diff(id, parent, diff)
        start = diff.tell()
        try:
            with tarfile.open(fileobj=diff, mode="r:") as archive:
                archive.getmembers()
            length = diff.tell() - start
        except tarfile.TarError:
            length = -1
        diff.seek(start)
        data = diff.read(length)
        return super().apply_diff(id, parent, io.BytesIO(data + bytes(1024)))


@mutant("SEC-006", bug="CVE-2017-14992: what a stream claimed was read into memory")
class WholeArchiveInMemory(Mutant):
    """apply_diff reads all of the stream before it looks."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        return super().apply_diff(id, parent, io.BytesIO(diff.read()))


@mutant("ARC-015", bug="moby and containerd: holes are sent as zeros")
class HolesSpelledOut(Mutant):
    """The archive of a layer with a hole is as long as the file."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        stream = super().diff(id, parent)
        data = stream.read()
        stream.close()
        if b"GNU.sparse" not in data:
            return io.BytesIO(data)
        return io.BufferedReader(_Endless())


class _Endless(io.RawIOBase):
    """Zeros, as a dense copy of 1 TiB would be for hours."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), len(_ZEROS))
        buffer[:count] = _ZEROS[:count]
        return count
