"""Take a layer archive apart, member by member, in bounded memory.

Not a general tar reader: what a layer cannot hold (a compressed stream, a member of unknown type, a
path that leaves the root) is refused with BadArchive before anything was done with it.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from graphdriver.archive.entry import DIRECTORY, FILE, HARDLINK, Entry, Kind
from graphdriver.archive.header import BLOCK, Raw, is_header, parse_pax, parse_ustar
from graphdriver.archive.source import Source
from graphdriver.archive.sparse import checked, from_gnu_block, from_pax
from graphdriver.errors import BadArchive
from graphdriver.tree.data import Segment
from graphdriver.tree.xattrs import NO_XATTRS

__all__ = ["Member", "Reader"]

_ZERO_BLOCK = bytes(BLOCK)
# A PAX header holds one path, one link and some attributes of 64 KiB each.
_LARGEST_HEADER = 1 << 20
# What may follow the end of the archive: tar pads to its record size, registries to theirs.
_LARGEST_PADDING = 1 << 30
_NOBODY = 2**32 - 1
_TOO_LARGE = 1 << 63
_XATTR = b"SCHILY.xattr."
# Flags of headers that speak of the next member.
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
    """Iterates over the members of `stream`; the data of one is gone when the next is asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._source = Source(stream)
        self._pending = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield every member. Raises BadArchive; what the stream raises passes through."""
        source = self._source
        records: dict[bytes, bytes] = {}
        self._refuse_compressed()
        while True:
            if left := self._pending + self._padding:
                source.skip(left)
                self._pending = self._padding = 0
            block = source.take(BLOCK)
            if block == _ZERO_BLOCK or not block:
                if records:
                    raise source.truncated(BLOCK)
                self._end(bool(block))
                return
            if len(block) < BLOCK:
                raise source.truncated(BLOCK - len(block))
            raw = parse_ustar(block)
            if raw.flag == b"0" and not records and raw.name[-1:] != b"/":
                yield self._plain(raw)
            elif raw.flag in _EXTENDED:
                self._extended(raw, records)
            else:
                yield self._member(raw, block, records)
                records = {}

    def read(self) -> bytes:
        """Return the current member's data, whole: for those known to be small."""
        data = self._source.exactly(self._pending, self._padding)
        self._pending = self._padding = 0
        return data

    def copy(self, count: int, target: int) -> None:
        """Write the next `count` bytes of the current member's data to the descriptor `target`."""
        self._source.copy(count, target)
        self._pending -= count

    def _refuse_compressed(self) -> None:
        """Say what a stream is compressed with; a first name may begin as such streams do."""
        start = self._source.take(BLOCK)
        for magic, name in _COMPRESSED:
            if start.startswith(magic) and not is_header(start):
                raise BadArchive(f"the stream is compressed with {name}", "decompress it first")
        self._source.give_back(start)

    def _end(self, marked: bool) -> None:
        """Read what is left, so that the sender is not cut off; only zeros may be.

        A stream that just stops between two members may have been cut there. Docker's reader lets
        it pass; but a layer without its end is a layer that may lack files. An empty stream is an
        empty layer, as Docker has it.
        """
        source = self._source
        if not marked:
            if source.offset:
                raise source.truncated(2 * BLOCK)
            return
        end = source.offset
        while padding := source.take(1 << 16):
            if padding.strip(b"\0"):
                raise BadArchive(f"something follows the archive's end at byte {source.offset}")
            if source.offset - end > _LARGEST_PADDING:
                raise BadArchive("the padding after the archive does not end")

    def _extended(self, raw: Raw, records: dict[bytes, bytes]) -> None:
        """Read a header that speaks of the next member."""
        if not 0 <= raw.size <= _LARGEST_HEADER:
            raise BadArchive(f"an extended header of {raw.size} bytes", "1 MiB at most are read")
        data = self._source.exactly(raw.size)
        self._source.skip(-raw.size % BLOCK)
        if raw.flag == b"L":
            records[b"path"] = data.rstrip(b"\0")
        elif raw.flag == b"K":
            records[b"linkpath"] = data.rstrip(b"\0")
        elif raw.flag in b"xX":
            records.update(parse_pax(data))
        # 'g' speaks of all members that follow; Docker ignores it, and so do layers.

    def _plain(self, raw: Raw) -> Member:
        """Return a file that its ustar header says all of, as nearly all members are."""
        name, mode, uid, gid, size, mtime, _, _, _, _ = raw
        name = clean_name(name)
        if not (0 <= uid < _NOBODY and 0 <= gid < _NOBODY and 0 <= size < _TOO_LARGE):
            _check_numbers(name, uid, gid, 0, 0)
            _check_size(name, size)
        self._pending, self._padding = size, -size % BLOCK
        # As Entry(...) and Member(...) would, in half the time.
        fields = (name, FILE, mode & 0o7777, uid, gid, mtime, size, b"", 0, 0, NO_XATTRS)
        return tuple.__new__(Member, (tuple.__new__(Entry, fields), size, None))

    def _member(self, raw: Raw, block: bytes, records: dict[bytes, bytes]) -> Member:
        kind = _KINDS.get(raw.flag)
        if kind is None:
            raise BadArchive(f"{raw.name!r} is of unknown type {raw.flag!r}")
        stored = _decimal(records, b"size", raw.size) if kind is FILE else 0
        _check_size(raw.name, stored)
        if kind is FILE and raw.name[-1:] == b"/" and b"path" not in records:
            kind = DIRECTORY  # tar before POSIX.1-1988 had no flag for them
        self._pending, self._padding = stored, -stored % BLOCK
        segments: list[Segment] | None = None
        size = stored
        name = records.get(b"path", raw.name)
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
        if segments is not None and sum(s.length for s in checked(segments, size)) != stored:
            raise BadArchive(f"the sparse map of {name!r} does not match its data")
        return Member(self._entry(raw, kind, name, size, records), stored, segments)

    def _entry(
        self, raw: Raw, kind: Kind, name: bytes, size: int, records: dict[bytes, bytes]
    ) -> Entry:
        name = clean_name(name)
        if not records:
            _check_numbers(name, raw.uid, raw.gid, raw.major, raw.minor)
            linkname = clean_name(raw.linkname) if kind is HARDLINK else raw.linkname
            return Entry(
                name, kind, raw.mode & 0o7777, raw.uid, raw.gid, raw.mtime, size, linkname,
                raw.major, raw.minor,
            )  # fmt: skip
        linkname = records.get(b"linkpath", raw.linkname)
        uid, gid = _decimal(records, b"uid", raw.uid), _decimal(records, b"gid", raw.gid)
        _check_numbers(name, uid, gid, raw.major, raw.minor)
        return Entry(
            name,
            kind,
            raw.mode & 0o7777,
            uid,
            gid,
            _seconds(records, raw.mtime),
            size,
            clean_name(linkname) if kind is HARDLINK else linkname,
            raw.major,
            raw.minor,
            {k[len(_XATTR) :]: v for k, v in records.items() if k.startswith(_XATTR)} or NO_XATTRS,
        )


def clean_name(name: bytes) -> bytes:
    """Return `name` relative and without `.` and empty parts; b"" is the root.

    Raises BadArchive for what leaves the root or is no file name.
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
    if text is None or text == b"":
        return otherwise
    if not text.lstrip(b"-").isdigit() or len(text) > 20:
        raise BadArchive(f"PAX {key.decode('ascii', 'replace')} is {text[:30]!r}, not a number")
    return int(text)


def _seconds(records: dict[bytes, bytes], otherwise: int) -> int:
    """Return whole seconds, rounded down as the kernel's tv_sec is."""
    text = records.get(b"mtime")
    if not text:
        return otherwise
    whole, point, fraction = text.partition(b".")
    seconds = _decimal({b"mtime": whole.removesuffix(b"-") or b"0"}, b"mtime", 0)
    negative = whole.startswith(b"-")
    return seconds - (negative and bool(point) and bool(fraction.strip(b"0")))
