"""Mutants of diff and apply_diff that lose attributes of nodes."""

import io
import tarfile
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from graphdriver.contract import Capability
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import Member, RewritesDiff

__all__: list[str] = []

_ZEROS = bytes(1 << 20)


@mutant("ARC-012", bug="moby #3845: security.capability was not in the archive")
class CapabilitiesLost(RewritesDiff):
    """The archive does not contain file capabilities."""

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
    """Setuid and setgid bits are lost for files that root does not own."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.uid:
                member.mode &= 0o1777
            yield member, data


@mutant("DIF-014", bug="containers/storage #141: directories marked opaque lose mode and owner")
class DirectoriesReset(RewritesDiff):
    """Every directory gets mode 0755."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.isdir():
                member.mode = 0o755
            yield member, data


@mutant("DIF-015", bug="moby #34342: with redirect_dir a renamed directory is exported as empty")
class RenamedDirectoryIsEmpty(RewritesDiff):
    """The entries of a directory that was renamed over another are not in the archive."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        new = {m.name for m, _ in members if m.isdir()}
        renamed = new if any(m.name.startswith(".wh.") for m, _ in members) else set()
        for member, data in members:
            if member.name.rpartition("/")[0] not in renamed:
                yield member, data


@mutant("DIF-024", bug="moby pkg/chrootarchive: before flush() the sender of padding gets SIGPIPE")
class PaddingUnread(Mutant):
    """apply_diff stops reading at the end of the archive and leaves the padding unread."""

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


@mutant("SEC-006", bug="CVE-2017-14992: the size in the stream is allocated in memory")
class WholeArchiveInMemory(Mutant):
    """apply_diff reads the whole stream into memory."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        return super().apply_diff(id, parent, io.BytesIO(diff.read()))


@mutant("ARC-015", bug="moby and containerd: holes are written as zeros")
class HolesSpelledOut(Mutant):
    """Holes are exported as zeros, so the archive is as long as the file."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        stream = super().diff(id, parent)
        data = stream.read()
        stream.close()
        if b"GNU.sparse" not in data:
            return io.BytesIO(data)
        return io.BufferedReader(_Endless())


class _Endless(io.RawIOBase):
    """A stream of zeros, as of a dense copy of 1 TiB."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), len(_ZEROS))
        buffer[:count] = _ZEROS[:count]
        return count


@mutant("ARC-001", bug="one read(2) of 64 KiB instead of a loop")
class OneReadOnly(RewritesDiff):
    """Files are truncated after 64 KiB."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.size = min(member.size, 1 << 16)
            yield member, data[: 1 << 16]


@mutant("ARC-006", bug="ustar: 100 bytes for the target of a link")
class TargetsCut(RewritesDiff):
    """Symlink targets are truncated to 100 bytes."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.linkname = member.linkname[:100]
            yield member, data


@mutant("ARC-008", bug="gvisor #12056; cvmfs #4286: links whose file is not in the archive")
class LinkedContentLost(RewritesDiff):
    """All names of a file except the first have no content."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.islnk():
                member.type, member.linkname = tarfile.REGTYPE, ""
            yield member, data


@mutant("ARC-009", bug="device numbers of 16 bits, as before Linux 2.6")
class MinorsOfEightBits(RewritesDiff):
    """Minor device numbers are truncated to 8 bits."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.devminor &= 0xFF
            yield member, data


@mutant("ARC-010", bug="names in JSON, as in the plugin protocol's Changes")
class NamesMadeText(RewritesDiff):
    """Bytes of a name that are not UTF-8 become question marks."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            raw = member.name.encode("utf-8", "surrogateescape")
            member.name = raw.decode("utf-8", "replace")
            yield member, data


@mutant("ARC-011", bug="ustar: 255 bytes for a path")
class PathsCut(RewritesDiff):
    """Paths are truncated to 255 bytes."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.name = member.name[:255]
            yield member, data


@mutant("ARC-014", bug="moby, containerd, containers/storage: ACLs are not in the archive")
class AccessListsLost(RewritesDiff):
    """The archive does not contain ACLs."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.pax_headers = {
                key: value for key, value in member.pax_headers.items() if "posix_acl" not in key
            }
            yield member, data


@mutant("ARC-017", bug="directories whose times are set before their entries are written")
class DirectoryTimesAreNow(RewritesDiff):
    """Directories have the time at which they were unpacked."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.isdir():
                member.mtime = int(time.time())
            yield member, data


@mutant("ARC-019", bug="containers/storage #671")
class LastAttributeOnly(RewritesDiff):
    """Only the last of several xattrs is exported."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.pax_headers = dict(list(member.pax_headers.items())[-1:])
            yield member, data


@mutant("ARC-020", bug="a store on a case-insensitive file system")
class CaseFolded(RewritesDiff):
    """Names are converted to lower case."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            member.name = member.name.lower()
            yield member, data


@mutant("SIZ-005", bug="a size in a 32-bit int")
class SizesOf32Bits(Mutant):
    """diff_size is truncated to 32 bits."""

    def diff_size(self, id: str, parent: str = "") -> int:
        return super().diff_size(id, parent) & 0xFFFFFFFF


@mutant("SIZ-001", bug="du instead of the sum of file sizes")
class SizesOfBlocks(Mutant):
    """diff_size counts whole pages."""

    def diff_size(self, id: str, parent: str = "") -> int:
        return -(-super().diff_size(id, parent) // 4096) * 4096


@mutant(
    "ARC-005",
    bug="moby, containerd: times are truncated to seconds, although the format has nanoseconds",
)
class ClaimsNanoseconds(Mutant):
    """The driver claims nanosecond mtimes but stores whole seconds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.capabilities = frozenset(Capability)
