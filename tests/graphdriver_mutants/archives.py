"""Mutants of diff and apply_diff that rewrite the archive."""

import io
import os
import stat
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO

from graphdriver.errors import BadArchive, DriverError
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import (
    Member,
    RewritesApply,
    RewritesDiff,
    archive_of,
    is_whiteout,
    members_of,
    with_implied_directories,
)

__all__: list[str] = []


def _each(change: Callable[[tarfile.TarInfo], None], members: list[Member]) -> Iterator[Member]:
    for member, data in members:
        change(member)
        yield member, data


@mutant("DIF-003", "DIF-011", bug="moby #23863")
class WhiteoutsMissing(RewritesDiff):
    """The archive does not contain deletions."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return (one for one in members if not is_whiteout(one[0]))


@mutant("DIF-011", bug="moby #25086")
class WhiteoutsMisnamed(RewritesDiff):
    """The whiteout of `dir/name` is written as `.wh.dir/name`."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def rename(member: tarfile.TarInfo) -> None:
            above, base = os.path.split(member.name)
            if above and base.startswith(".wh."):
                member.name = f".wh.{above}/{base[4:]}"

        return _each(rename, members)


@mutant("DIF-011", bug="buildkit #4516")
class WhiteoutsAreLinks(RewritesDiff):
    """The second whiteout is written as a hard link to the first, which has the same inode."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        first = ""
        for member, data in members:
            if is_whiteout(member):
                if first:
                    member.type, member.linkname = tarfile.LNKTYPE, first
                first = first or member.name
            yield member, data


@mutant("DIF-012", bug="whiteouts written in the order of the directory walk")
class WhiteoutsLast(RewritesDiff):
    """Whiteouts are written after their siblings."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return iter(sorted(members, key=lambda one: is_whiteout(one[0])))


@mutant("DIF-002", bug="containers/storage #141")
class OpaqueDropped(RewritesDiff):
    """A directory that was deleted and recreated is not marked opaque in the archive."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return (one for one in members if not one[0].name.endswith(".wh..wh..opq"))


@mutant("ARC-002", bug="moby #3845: modes lost by the order of chown and chmod")
class SetuidLost(RewritesDiff):
    """The archive does not contain setuid, setgid and sticky bits."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def strip(member: tarfile.TarInfo) -> None:
            member.mode &= 0o777

        return _each(strip, members)


@mutant("ARC-003", bug="owners in a field of 21 bits")
class OwnersCut(RewritesDiff):
    """Owners are truncated to the octal field of ustar."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def cut(member: tarfile.TarInfo) -> None:
            member.uid, member.gid = member.uid & 0o7777777, member.gid & 0o7777777

        return _each(cut, members)


@mutant("ARC-004", bug="a differ that writes the current time")
class TimesAreNow(RewritesDiff):
    """All members have the time of the diff."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def stamp(member: tarfile.TarInfo) -> None:
            member.mtime = int(time.time())

        return _each(stamp, members)


@mutant("ARC-007", bug="appc/docker2aci #98")
class LinksAreCopies(RewritesDiff):
    """Hard links become separate files."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        by_name = {member.name: (member, data) for member, data in members}
        for member, data in members:
            if member.islnk() and by_name[member.linkname][0].isreg():
                member.type, data = tarfile.REGTYPE, by_name[member.linkname][1]
                member.size = len(data)
            yield member, data


@mutant("ARC-007", bug="btrfs without extended references: EMLINK after some 300 names; busybox")
class ManyLinksAreCopies(RewritesDiff):
    """From the 300th name of a file on, hard links become separate files."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        by_name = {member.name: data for member, data in members}
        names: Counter[str] = Counter()
        for member, data in members:
            if member.islnk():
                names[member.linkname] += 1
                if names[member.linkname] >= 300 and by_name[member.linkname]:
                    member.type, data = tarfile.REGTYPE, by_name[member.linkname]
                    member.size = len(data)
            yield member, data


@mutant("ARC-013", bug="moby #20331: user xattrs are not exported")
class AttributesLost(RewritesDiff):
    """The archive does not contain xattrs."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def strip(member: tarfile.TarInfo) -> None:
            member.pax_headers = {}

        return _each(strip, members)


@mutant("ARC-016", bug="a differ that lists files")
class EmptyDirectoriesLost(RewritesDiff):
    """Directories without files are omitted."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        used = {member.name.rpartition("/")[0] for member, _ in members}
        return (one for one in members if not one[0].isdir() or one[0].name in used)


@mutant("DIF-010", bug="tar of absolute paths")
class NamesAreAbsolute(RewritesDiff):
    """Member names begin with a slash."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def root(member: tarfile.TarInfo) -> None:
            member.name = "/" + member.name

        return _each(root, members)


@mutant("DIF-006", bug="iteration over a map in random order")
class OtherBytesEachTime(RewritesDiff):
    """Each diff of the same layer returns a different archive."""

    _count = 0

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        type(self)._count += 1
        count = type(self)._count

        def stamp(member: tarfile.TarInfo) -> None:
            member.uname = f"build{count}"

        return _each(stamp, members)


@mutant("DIF-013", bug="containers/storage: overlay xattrs in layers")
class PrivateAttributesExported(RewritesDiff):
    """The archive contains overlay xattrs."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def mark(member: tarfile.TarInfo) -> None:
            member.pax_headers = {"SCHILY.xattr.trusted.overlay.origin": "x"}

        return _each(mark, members)


@mutant("DIF-008", bug="moby overlay2: a valid archive without members")
class UnknownDiffIsEmpty(Mutant):
    """diff of an unknown layer returns an empty archive."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        try:
            return super().diff(id, parent)
        except DriverError:
            return io.BytesIO(bytes(1024))


@mutant("DIF-009", bug="moby naive diff: the layer is held until the end of the stream")
class EarlyCloseLeaks(Mutant):
    """A diff that is closed before its end keeps the layer mounted."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        self.wrapped.get(id)
        return super().diff(id, parent)


@mutant("DIF-004", bug="moby 1.12: Diff ignores its parent argument")
class DiffOfUpperOnly(Mutant):
    """diff without a parent returns the diff of the topmost layer only."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        lower = self.home / id / "lower"
        if not parent and lower.exists():
            link = os.readlink(self.home / lower.read_text().split(":")[0])
            parent = os.path.basename(os.path.dirname(link))
        return super().diff(id, parent)


@mutant("DIF-020", "DIF-021", bug="errors of the unpacking goroutine are logged and dropped")
class BadArchiveAccepted(Mutant):
    """apply_diff of a malformed archive succeeds and leaves an empty layer."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        try:
            return super().apply_diff(id, parent, diff)
        except BadArchive:
            return 0


@mutant("DIF-003", bug="moby over fuse-overlayfs 1.10")
class UntouchedDeviceDeleted(Mutant):
    """A device or fifo in a directory with more than forty entries is exported as a deletion."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        with super().diff(id, parent) as stream:
            members = members_of(stream.read())
        below = self.home / parent / "diff"
        names = os.listdir(below) if parent else []
        for name in names if len(names) > 40 else []:
            if stat.S_ISFIFO(os.lstat(below / name).st_mode):
                members.append((tarfile.TarInfo(f".wh.{name}"), b""))
        return archive_of(members)


@mutant("DIF-026", bug="buildkit #2614; moby: a directory that replaces its whiteout is not opaque")
class HiddenContentReappears(RewritesApply):
    """A whiteout `.wh.d` beside `d/` is ignored."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        directories = {member.name for member, _ in members if member.isdir()}
        for member, data in members:
            if member.name.replace(".wh.", "", 1) not in directories or not is_whiteout(member):
                yield member, data


@mutant("DIF-027", bug="moby UnpackLayer: f, then .wh.f, deletes f")
class WhiteoutDeletesOwnFile(RewritesApply):
    """A whiteout deletes the file of its own layer."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        hidden = {
            member.name.replace(".wh.", "", 1) for member, _ in members if is_whiteout(member)
        }
        return (one for one in members if one[0].name not in hidden or not one[0].isreg())


@mutant("DIF-030", bug="moby UnpackLayer: RemoveAll of the directory")
class BareWhiteoutWipes(RewritesApply):
    """A member `.wh.` deletes its parent directory."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.name.endswith(".wh."):
                member.name += ".wh..opq"
            yield member, data


@mutant("DIF-028", bug="containerd #4659")
class NestedWhiteoutFails(RewritesApply):
    """A whiteout inside a deleted directory fails with ENOTDIR."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        gone = {member.name.replace(".wh.", "", 1) for member, _ in members if is_whiteout(member)}
        for member, data in members:
            if is_whiteout(member) and os.path.dirname(member.name) in gone:
                raise NotADirectoryError(20, "Not a directory", member.name)
            yield member, data


@mutant("DIF-033", bug="moby UnpackLayer: missing parents are created with 0600")
class ParentsAreClosed(RewritesApply):
    """Implied directories get mode 0600."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return with_implied_directories(members, 0o600)


@mutant("DIF-031", bug="the kernel ignores the opaque xattr of the upper root")
class RootOpaqueIgnored(RewritesApply):
    """An opaque marker at the root is ignored."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return (one for one in members if one[0].name != ".wh..wh..opq")


@mutant("SEC-010", bug="uname takes precedence over uid")
class NamesOfOwnersObeyed(RewritesApply):
    """A member whose user name is root is owned by uid 0."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        def obey(member: tarfile.TarInfo) -> None:
            if member.uname == "root":
                member.uid = 0

        return _each(obey, members)


@mutant("DIF-023", bug="apply_diff that creates a missing directory")
class ApplyMakesLayer(Mutant):
    """apply_diff to an unknown layer creates it."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        if not self.wrapped.exists(id):
            self.wrapped.create(id)
        return super().apply_diff(id, parent, diff)
