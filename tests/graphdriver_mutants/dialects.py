"""Mutants of header dialects that misread, omit or refuse members."""

import errno
import os
import tarfile
from collections.abc import Iterable, Iterator

from graphdriver.errors import BadArchive
from graphdriver_mutants.raw import Blocks, RewritesBlocks
from graphdriver_mutants.registry import mutant

__all__: list[str] = []

_GNU = b"ustar  \0"


def _clean(name: bytes) -> bytes:
    return os.path.normpath(b"/" + name).strip(b"/")


@mutant("ARC-021", bug="moby #10907, docker/for-linux #112: types that a reader does not support")
class UnusualTypesSkipped(RewritesBlocks):
    """Members of the types 7, D and V, and of unknown types, are skipped."""

    def rewritten(self, members: list[Blocks]) -> Iterable[bytes]:
        return (one.raw for one in members if one.flag in b"\x000123456S")


@mutant(
    "ARC-021", "ARC-024", bug="python/cpython #83869: the map and the data are the file's content"
)
class SparseMapIsContent(RewritesBlocks):
    """The PAX records of sparse members are ignored, so that the map becomes part of the file."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            is_sparse = any(key.startswith(b"GNU.sparse.") for key in one.records)
            yield one.header + one.data if is_sparse else one.raw


@mutant("ARC-021", bug="python/cpython #141707: the slash is searched in the truncated name field")
class CutNameIsADirectory(RewritesBlocks):
    """A header of type NUL whose name field ends with a slash is read as a directory."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            is_taken = one.flag == b"\0" and one.header[:100].rstrip(b"\0").endswith(b"/")
            if is_taken:
                head = one.with_header(at_124=b"%011o\0" % 0, at_156=b"5")
                yield head[: len(head) - len(one.data)]
            else:
                yield one.raw


@mutant("ARC-021", bug="confidential-containers/guest-components #1737, in reverse")
class EmptyRecordsOverrule(RewritesBlocks):
    """A PAX record `path` without a value makes the name empty, and the member is omitted."""

    def rewritten(self, members: list[Blocks]) -> Iterable[bytes]:
        return (one.raw for one in members if one.records.get(b"path") != b"")


@mutant("ARC-023", bug="osscontainertools/kaniko #959")
class AbsoluteTargetsRefused(RewritesBlocks):
    """A hard link with an absolute target is refused."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            if one.flag == b"1" and one.link.startswith(b"/"):
                raise BadArchive(f"invalid hard link target {one.link!r}")
            yield one.raw


@mutant("ARC-023", bug="containers/storage #2191, kaniko #1375: mkdirat of the root")
class RootMemberRefused(RewritesBlocks):
    """A member for the root directory is refused."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            if not _clean(one.name):
                raise BadArchive("mkdirat /: no such file or directory")
            yield one.raw


@mutant("ARC-023", bug="apple/container #1797")
class LinkNeedsItsDirectory(RewritesBlocks):
    """A hard link is refused if it is the first member below a directory without an entry."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        known = {b""}
        for one in members:
            name = _clean(one.name)
            above = os.path.dirname(name)
            if one.flag == b"1" and above not in known:
                raise BadArchive(f"{above!r} is not there")
            while name:
                known.add(name)
                name = os.path.dirname(name)
            yield one.raw


@mutant("ARC-023", bug="golang/go #12594")
class GnuTimesArePrefix(RewritesBlocks):
    """The time fields of GNU headers are read as the prefix of the path."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            is_gnu = (
                one.header[257:265] == _GNU
                and one.header[345]
                and one.header.startswith(one.name + b"\0")
            )
            yield one.with_header(at_257=b"ustar\x0000") if is_gnu else one.raw


@mutant("ARC-023", bug="moby #41978, fixed in moby #41984; containerd's archive/tar.go")
class GlobalHeaderMakesDirectories(RewritesBlocks):
    """The directory in the name of a PAX global header is created."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            for at in range(0, len(one.ahead), len(one.header)):
                header = one.ahead[at : at + len(one.header)]
                above = os.path.dirname(header[:100].rstrip(b"\0"))
                if header[156:157] == b"g" and header[257:262] == b"ustar" and above:
                    yield _directory(above)
            yield one.raw


def _directory(name: bytes) -> bytes:
    made = tarfile.TarInfo(os.fsdecode(name).lstrip("/"))
    made.type, made.mode = tarfile.DIRTYPE, 0o755
    return made.tobuf()


@mutant("ARC-028", bug="buildah #2717: unrecognized Typeflag")
class GlobalHeaderAloneRefused(RewritesBlocks):
    """An archive whose only header is a global one is refused."""

    def ended(self, rest: bytes) -> bytes:
        if rest[156:157] == b"g":
            raise BadArchive("unrecognized Typeflag g")
        return rest


@mutant("ARC-029", bug="podman #12416, with the error of setxattr(2) ignored")
class MalformedAclEndsArchive(RewritesBlocks):
    """A member with a malformed ACL, and all that follow it, are omitted without an error."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            for key, value in one.records.items():
                if b".posix_acl_" in key and (value[:4] != b"\2\0\0\0" or len(value) % 8 != 4):
                    return
            yield one.raw


@mutant("ARC-024", bug="docker/cli #6153, moby #4066: unhandled tar header type 83")
class SparseTypeRefused(RewritesBlocks):
    """Members of GNU's sparse type S are refused."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            if one.flag == b"S":
                raise BadArchive("unhandled tar header type 83")
            yield one.raw


@mutant("ARC-025", bug="quay/claircore #683, with one block missing instead of two")
class OneBlockIsTruncation(RewritesBlocks):
    """An archive that ends with one block of zeros is refused as truncated."""

    def ended(self, rest: bytes) -> bytes:
        if len(rest) == 512:
            raise BadArchive("unexpected EOF")
        return rest


@mutant("ARC-022", bug="moby #47517, ko-build/ko #1525")
class ForeignAttributesFatal(RewritesBlocks):
    """An xattr of a namespace that Linux does not support makes apply_diff fail with ENOTSUP."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        known = (b"user", b"trusted", b"security", b"system")
        for one in members:
            for key in one.records:
                space = key.removeprefix(b"SCHILY.xattr.").partition(b".")[0]
                if key.startswith(b"SCHILY.xattr.") and space not in known:
                    raise OSError(errno.ENOTSUP, "operation not supported", os.fsdecode(key))
            yield one.raw


@mutant("ARC-026", bug="busybox tar: numbers in base 256 are not octal and are read as 0")
class OctalOnly(RewritesBlocks):
    """Owners in base 256 become root."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            patches = {f"at_{at}": b"%07o\0" % 0 for at in (108, 116) if one.header[at] & 0x80}
            yield one.with_header(**patches) if patches else one.raw


@mutant("SEC-013", bug="golang/go #32264; int() and symlink(2) with an unchecked record")
class RecordsAreTrusted(RewritesBlocks):
    """A malformed number, or a NUL in a link target, raises ValueError."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            if b"\0" in one.records.get(b"linkpath", b""):
                raise ValueError("embedded null byte")
            int(one.records.get(b"uid") or b"0")
            yield one.raw
