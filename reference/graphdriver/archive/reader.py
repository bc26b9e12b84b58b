"""Read a layer archive, member by member, in bounded memory.

Not a general tar reader: a stream that is not a layer (a compressed stream, a member of unknown
type, a path that leaves the root) is refused with BadArchive before the member is used.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from graphdriver.archive.entry import DIRECTORY, FILE, HARDLINK, Entry, Kind
from graphdriver.archive.header import BLOCK, LARGEST_HEADER, Raw, is_header, parse_pax, parse_ustar
from graphdriver.archive.source import Source
from graphdriver.archive.sparse import checked, from_gnu_block, from_pax
from graphdriver.errors import BadArchive
from graphdriver.tree.data import Segment
from graphdriver.tree.xattrs import NO_XATTRS

__all__ = ["Member", "Reader"]

_ZERO_BLOCK = bytes(BLOCK)
# The maximum after the end of the archive: tar pads to its record size, registries to theirs.
_LARGEST_PADDING = 1 << 30
_NOBODY = 2**32 - 1
_TOO_LARGE = 1 << 63
_XATTR = b"SCHILY.xattr."
_INTEGER = re.compile(rb"[+-]?[0-9]{1,20}")
_TIME = re.compile(rb"[+-]?[0-9]{1,20}(\.[0-9]*)?")
_TIMES = (b"mtime", b"atime", b"ctime")
# Flags of headers that apply to the next member.
_EXTENDED = frozenset((b"x", b"g", b"L", b"K", b"X"))
_DOT_AND_SLASH = tuple(b"./")
_KINDS = {kind.value: kind for kind in Kind} | {b"\0": FILE, b"7": FILE, b"S": FILE}

_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


class Member(NamedTuple):
    """An entry and its data: `stored` bytes, at `segments` of the file (None: from its start)."""

    entry: Entry
    stored: int
    segments: list[Segment] | None


class Reader:
    """Iterates over the members of `stream`; the data of one is skipped when the next is
    requested.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._source = Source(stream)
        self._pending = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield every member. Raises BadArchive; errors of the stream are passed on."""
        source = self._source
        ahead: _Ahead | None = None
        self._refuse_compressed()
        while True:
            if left := self._pending + self._padding:
                source.skip(left)
                self._pending = self._padding = 0
            block = source.take(BLOCK)
            if block == _ZERO_BLOCK or not block:
                if ahead:
                    self._refuse_alone(ahead, bool(block))
                self._end(bool(block))
                return
            if len(block) < BLOCK:
                raise source.truncated(BLOCK - len(block))
            raw = parse_ustar(block)
            if raw.flag == b"0" and ahead is None and raw.name[-1:] != b"/":
                yield self._plain(raw)
            elif raw.flag in _EXTENDED:
                ahead = self._extended(raw, ahead)
            else:
                yield self._member(raw, block, ahead or _Ahead())
                ahead = None

    def read(self) -> bytes:
        """Return the current member's data completely: for small members."""
        data = self._source.exactly(self._pending, self._padding)
        self._pending = self._padding = 0
        return data

    def copy(self, count: int, target: int) -> None:
        """Write the next `count` bytes of the current member's data to the descriptor `target`."""
        self._source.copy(count, target)
        self._pending -= count

    def _refuse_compressed(self) -> None:
        """Detect the compression of a stream; a first name may have the same bytes."""
        start = self._source.take(BLOCK)
        for magic, name in _COMPRESSED:
            if start.startswith(magic) and not is_header(start):
                raise BadArchive(f"the stream is compressed with {name}", "decompress it first")
        self._source.unread(start)

    def _end(self, has_end: bool) -> None:
        """Read the rest, so that the sender does not get EPIPE; it must be zeros.

        A stream that ends between two members may have been truncated there. Docker's reader
        accepts it; but such a layer may lack files. An empty stream is an empty layer, as in
        Docker.
        """
        source = self._source
        if not has_end:
            if source.offset:
                raise source.truncated(2 * BLOCK)
            return
        end = source.offset
        while padding := source.take(1 << 16):
            if padding.strip(b"\0"):
                raise BadArchive(f"something follows the archive's end at byte {source.offset}")
            if source.offset - end > _LARGEST_PADDING:
                raise BadArchive("the padding after the archive does not end")

    def _refuse_alone(self, ahead: "_Ahead", has_end: bool) -> None:
        """Refuse headers without the member that they apply to."""
        if not has_end:
            raise self._source.truncated(BLOCK)
        parsed = parse_pax(ahead.pax)
        name = ahead.name or parsed.get(b"path", b"") or ahead.linkname
        raise BadArchive(
            f"an extended header at the archive's end belongs to no member: {name[:200]!r}",
            "its writer has left a member out",
        )

    def _extended(self, raw: Raw, ahead: "_Ahead | None") -> "_Ahead | None":
        """Read a header that applies to the next member; a later one of its kind replaces it."""
        if not 0 <= raw.size <= LARGEST_HEADER:
            raise BadArchive(
                f"the extended header {raw.name!r} has {raw.size} bytes", "1 MiB at most are read"
            )
        data = self._source.exactly(raw.size, -raw.size % BLOCK)
        if raw.flag == b"g":
            # It speaks of all members that follow; Docker ignores it, and so do layers. git archive
            # writes one even where no member follows.
            return ahead
        ahead = ahead or _Ahead()
        if raw.flag == b"L":
            return ahead._replace(name=data.partition(b"\0")[0])
        if raw.flag == b"K":
            return ahead._replace(linkname=data.partition(b"\0")[0])
        return ahead._replace(pax=data)

    def _plain(self, raw: Raw) -> Member:
        """Return a regular file without extended headers, as nearly all members are."""
        name, mode, uid, gid, size, mtime, _, _, _, _ = raw
        name = clean_name(name)
        if not (0 <= uid < _NOBODY and 0 <= gid < _NOBODY and 0 <= size < _TOO_LARGE):
            _check_numbers(name, uid, gid, 0, 0)
            _check_size(name, size)
        self._pending, self._padding = size, -size % BLOCK
        # Equivalent to Entry(...) and Member(...), in half the time.
        fields = (name, FILE, mode & 0o7777, uid, gid, mtime, size, b"", 0, 0, NO_XATTRS)
        return tuple.__new__(Member, (tuple.__new__(Entry, fields), size, None))

    def _member(self, raw: Raw, block: bytes, ahead: "_Ahead") -> Member:
        """Return any other member. Raises BadArchive, with its name."""
        name = ahead.name or raw.name
        try:
            records = parse_pax(ahead.pax)
            # If both are present, Go prefers GNU's long name to PAX's.
            name = ahead.name or records.get(b"path", raw.name)
            return self._described(name, raw, block, ahead, records)
        except BadArchive as error:
            if repr(name[:200])[:-1] in error.message:
                raise
            raise BadArchive(f"{name[:200]!r}: {error.message}", error.hint) from None

    def _described(
        self, name: bytes, raw: Raw, block: bytes, ahead: "_Ahead", records: dict[bytes, bytes]
    ) -> Member:
        kind = _KINDS.get(raw.flag)
        if kind is None:
            raise BadArchive(f"the member is of unknown type {raw.flag!r}")
        stored = _decimal(records, b"size", raw.size) if kind is FILE else 0
        _check_size(name, stored)
        if kind is FILE and name[-1:] == b"/":
            kind = DIRECTORY  # tar before POSIX.1-1988 had no type flag for them
        self._pending, self._padding = stored, -stored % BLOCK
        segments: list[Segment] | None = None
        size = stored
        if raw.flag == b"S":
            segments, size = from_gnu_block(block, self._source)
        elif any(key.startswith(b"GNU.sparse.") for key in records):
            segments, before = from_pax(records, self._source, stored)
            self._pending -= before
            stored -= before
            real = (
                b"GNU.sparse.realsize" if b"GNU.sparse.realsize" in records else b"GNU.sparse.size"
            )
            size = _decimal(records, real, stored)
            name = records.get(b"GNU.sparse.name", name)
        if segments is not None:
            if kind is not FILE:
                raise BadArchive("a sparse member that is no file")
            _check_size(name, size)
            if sum(segment.length for segment in checked(segments, size)) != stored:
                raise BadArchive("the sparse map does not match the data")
        name = clean_name(name)
        linkname = ahead.linkname or records.get(b"linkpath", raw.linkname)
        if kind is HARDLINK:
            linkname = clean_name(linkname)
        elif kind is Kind.SYMLINK and not linkname:
            raise BadArchive("a symlink to nowhere", "its target is empty")
        uid, gid = _decimal(records, b"uid", raw.uid), _decimal(records, b"gid", raw.gid)
        _check_numbers(name, uid, gid, raw.major, raw.minor)
        entry = Entry(
            name,
            kind,
            raw.mode & 0o7777,
            uid,
            gid,
            _seconds(records, raw.mtime),
            size if kind is FILE else 0,
            linkname if kind is HARDLINK or kind is Kind.SYMLINK else b"",
            raw.major,
            raw.minor,
            {k[len(_XATTR) :]: v for k, v in records.items() if k.startswith(_XATTR)} or NO_XATTRS,
        )
        return Member(entry, stored, segments)


class _Ahead(NamedTuple):
    """The values of the headers before a member's own: GNU's long names, and PAX records."""

    name: bytes = b""
    linkname: bytes = b""
    pax: bytes = b""


def clean_name(name: bytes) -> bytes:
    """Return `name` relative and without `.` and empty components; b"" is the root.

    Raises BadArchive for a path that leaves the root or has an invalid name.
    """
    name = name.removeprefix(b"./")
    # Nearly all names need no more than this; bytes.find is twice as fast as `in`.
    is_clean = name.find(b"/.") < 0 and name.find(b"//") < 0 and 0 not in name and len(name) < 256
    if is_clean and name and name[0] not in _DOT_AND_SLASH:
        return name.removesuffix(b"/")
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise BadArchive(f"{name[:200]!r} leaves the layer", "paths must not contain '..'")
    if b"\0" in name or any(len(part) > 259 for part in parts):
        # 255 bytes, and four more for a whiteout of such a name.
        raise BadArchive(f"{name[:200]!r} is not a file name")
    return b"/".join(parts)


def _check_numbers(name: bytes, uid: int, gid: int, major: int, minor: int) -> None:
    if not (0 <= uid < _NOBODY and 0 <= gid < _NOBODY):
        raise BadArchive(f"{name!r} belongs to {uid}:{gid}, which nobody can be")
    # The kernel's dev_t: 12 bits and 20 bits (include/linux/kdev_t.h).
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise BadArchive(f"{name!r} is device {major}:{minor}, which no kernel has")


def _check_size(name: bytes, size: int) -> None:
    if not 0 <= size < _TOO_LARGE:
        raise BadArchive(f"{name!r} claims a size of {size} bytes")


def _decimal(records: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
    text = records.get(key)
    if text is None:
        return otherwise
    if not _INTEGER.fullmatch(text):
        raise BadArchive(f"PAX {key.decode('ascii', 'replace')} is {text[:30]!r}, not a number")
    return int(text)


def _seconds(records: dict[bytes, bytes], otherwise: int) -> int:
    """Return whole seconds, rounded down as the kernel's tv_sec is."""
    for key in _TIMES:
        if key in records and not _TIME.fullmatch(records[key]):
            raise BadArchive(f"PAX {key.decode()} is {records[key][:30]!r}, not a time")
    text = records.get(b"mtime")
    if text is None:
        return otherwise
    whole, _, fraction = text.partition(b".")
    return int(whole) - (whole.startswith(b"-") and bool(fraction.strip(b"0")))
