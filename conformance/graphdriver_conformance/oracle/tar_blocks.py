"""tar archives block by block: written in every dialect of layer archives, and read strictly.

POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar's manual, "Basic
Tar Format" and "Storing Sparse Files"; star(5). This module is independent of layers.
"""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

__all__ = [
    "BLOCK",
    "END",
    "Format",
    "Header",
    "RawMember",
    "UnreadableArchive",
    "extended",
    "long_name",
    "padded",
    "raw_members",
    "record",
    "sparse_map",
]

BLOCK = 512
END = bytes(2 * BLOCK)
_XATTR = b"SCHILY.xattr."
_CHECKSUM = slice(148, 156)
_DEVICES = (b"3", b"4")


class UnreadableArchive(AssertionError, tarfile.TarError, ValueError):
    """An archive that no reader accepts, or with invalid values: an error of its writer."""


class Format(Enum):
    """The format of a header; the value is the content of offset 257."""

    V7 = bytes(8)
    USTAR = b"ustar\x0000"
    GNU = b"ustar  \0"
    STAR = b"ustar\x0000 "

    @property
    def magic(self) -> bytes:
        """The eight bytes of magic and version."""
        return self.value[:8]

    @property
    def prefix(self) -> int:
        """The maximum length of the prefix of a path: 0 without such a field."""
        return {Format.USTAR: 155, Format.STAR: 131}.get(self, 0)


@dataclass(frozen=True, slots=True)
class Header:
    """One header block. `patches` are bytes written at offsets before the checksum is computed.

    `block` raises ValueError for values that do not fit into the format.
    """

    name: bytes
    flag: bytes = b"0"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    prefix: bytes = b""
    format: Format = Format.USTAR
    base256: bool = False
    patches: tuple[tuple[int, bytes], ...] = ()

    def block(self) -> bytes:
        """Return the 512 bytes."""
        name = self.name.ljust(100, b"\0")
        link = self.link.ljust(100, b"\0")
        prefix = self.prefix.ljust(self.format.prefix, b"\0")
        if len(name) > 100 or len(link) > 100 or len(prefix) > self.format.prefix:
            raise ValueError(f"{self.format} has no room for {self.name!r} -> {self.link!r}")
        octal = self._number
        raw = bytearray(BLOCK)
        raw[0:148] = b"".join(
            [
                name,
                octal(self.mode, 8),
                octal(self.uid, 8),
                octal(self.gid, 8),
                octal(self.size, 12),
                octal(self.mtime, 12),
            ]
        )
        raw[156:265] = self.flag + link + self.format.magic
        if self.flag in _DEVICES:
            raw[329:345] = octal(self.device[0], 8) + octal(self.device[1], 8)
        raw[345 : 345 + len(prefix)] = prefix
        if self.format is Format.STAR:
            # Access and change time overlap ustar's prefix field; the trailer identifies this
            # format.
            raw[476:500] = octal(self.mtime, 12) * 2
            raw[508:512] = b"tar\0"
        for offset, chunk in self.patches:
            raw[offset : offset + len(chunk)] = chunk
        raw[_CHECKSUM] = b" " * 8
        raw[_CHECKSUM] = b"%06o\0 " % sum(raw)
        return bytes(raw)

    def _number(self, value: int, width: int) -> bytes:
        if not self.base256 and 0 <= value < 8 ** (width - 1):
            return b"%0*o\0" % (width - 1, value)
        if self.format not in (Format.GNU, Format.STAR):
            raise ValueError(f"{self.format} has no room for {value} in {width} bytes")
        raw = bytearray(value.to_bytes(width, "big", signed=True))
        raw[0] |= 0x80
        return bytes(raw)


def padded(data: bytes) -> bytes:
    """Return the data, padded to a complete block."""
    return data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record, whose length includes its own digits."""
    length = rest = len(key) + len(value) + 3
    while length != rest + len(b"%d" % length):
        length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


def extended(
    records: Iterable[tuple[bytes, bytes]], flag: bytes = b"x", format: Format = Format.USTAR
) -> bytes:
    """Return a PAX header for the next member; `g` is for all following members."""
    data = b"".join(record(*one) for one in records)
    # As git names a global one: without a directory, which some readers would make.
    name = b"pax_global_header" if flag == b"g" else b"PaxHeaders/x"
    return Header(name, flag, size=len(data), format=format).block() + padded(data)


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    """Return GNU's header for a long name; flag K is for the target of a link."""
    header = Header(b"././@LongLink", flag, 0, size=len(name) + 1, format=Format.GNU)
    return header.block() + padded(name + b"\0")


def sparse_map(segments: Iterable[tuple[int, int]]) -> bytes:
    """Return the map of PAX sparse 1.0, which precedes the data."""
    pairs = list(segments)
    return padded(b"".join([b"%d\n" % len(pairs), *(b"%d\n%d\n" % pair for pair in pairs)]))


@dataclass(frozen=True, slots=True)
class RawMember:
    """A member as read: `header` includes the values of extended headers.

    `own` is its own header block and `ahead` are the blocks before it, as stored in the archive;
    `data` is the stored data.
    """

    header: Header
    data: bytes
    records: dict[bytes, bytes] = field(default_factory=dict)
    ahead: bytes = b""
    own: bytes = b""

    @property
    def blocks(self) -> bytes:
        """The member as stored in the archive."""
        return self.ahead + self.own + padded(self.data)

    @property
    def content(self) -> bytes:
        """The file's content, including the holes of a sparse member."""
        if self.header.flag == b"S":
            pairs, real, start = _gnu_sparse(self.own, self.data)
        elif b"GNU.sparse.major" in self.records:
            pairs, start = _map_before_data(self.data)
            real = _decimal(self.records[b"GNU.sparse.realsize"])
        elif b"GNU.sparse.map" in self.records:
            numbers = [_decimal(one) for one in self.records[b"GNU.sparse.map"].split(b",")]
            pairs, start = list(zip(numbers[::2], numbers[1::2], strict=True)), 0
            real = _decimal(self.records[b"GNU.sparse.size"])
        else:
            return self.data
        whole = bytearray(real)
        for offset, length in pairs:
            if offset + length > real or start + length > len(self.data):
                raise UnreadableArchive(f"{self.header.name!r}: a sparse map beyond its file")
            whole[offset : offset + length] = self.data[start : start + length]
            start += length
        return bytes(whole)


def raw_members(data: bytes) -> Iterator[RawMember]:
    """Yield the members of an archive up to its end. Raises UnreadableArchive.

    Cases in which readers differ, or which no format defines, are refused: two headers of one kind
    for one member, numbers that are not octal, unknown types, a header without a member.
    """
    at, start, ahead = 0, 0, _Ahead()
    while block := data[at : at + BLOCK]:
        if not block.strip(b"\0"):
            if ahead.kinds:
                raise UnreadableArchive("an extended header without a member")
            if data[at:].strip(b"\0"):
                raise UnreadableArchive(f"data follows the end of the archive at byte {at}")
            return
        header = _parsed(block, at)
        if ahead.size is not None and header.flag not in _EXTENDED:
            header = replace(header, size=ahead.size)
        stored = header.size if header.flag in _STORED or header.flag in _EXTENDED else 0
        if header.flag == b"S":
            stored += _extensions(data, at)
        body = data[at + BLOCK : at + BLOCK + stored]
        at += BLOCK + stored + -stored % BLOCK
        if at > len(data):
            raise UnreadableArchive(f"{header.name!r}: the archive ends within this member")
        if header.flag in _EXTENDED:
            ahead = ahead.with_(header, body)
            continue
        whole = ahead.overruled(header)
        own = at - stored - -stored % BLOCK - BLOCK
        yield RawMember(whole, body, ahead.records, data[start:own], data[own : own + BLOCK])
        start, ahead = at, _Ahead()
    if ahead.kinds:
        raise UnreadableArchive("an extended header without a member")


_EXTENDED = (b"x", b"g", b"L", b"K")
_STORED = (b"0", b"\0", b"7", b"S")
_KNOWN = (*_EXTENDED, *_STORED, b"1", b"2", b"3", b"4", b"5", b"6")


@dataclass(frozen=True, slots=True)
class _Ahead:
    """The values of the extended headers before a member."""

    kinds: bytes = b""
    name: bytes = b""
    link: bytes = b""
    records: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        return _decimal(self.records[b"size"]) if self.records.get(b"size") else None

    def with_(self, header: Header, body: bytes) -> "_Ahead":
        if header.flag == b"g":
            _records(body)
            return self
        if header.flag in self.kinds:
            raise UnreadableArchive(f"two headers of type {header.flag!r} for one member")
        kinds = self.kinds + header.flag
        if header.flag == b"x":
            return replace(self, kinds=kinds, records=_records(body))
        text = _text(body)
        if header.flag == b"L":
            return replace(self, kinds=kinds, name=text)
        return replace(self, kinds=kinds, link=text)

    def overruled(self, header: Header) -> Header:
        records = self.records
        name = records.get(b"path") or self.name or header.name
        link = records.get(b"linkpath") or self.link or header.link
        if records.get(b"GNU.sparse.name"):
            name = records[b"GNU.sparse.name"]
        if b"\0" in name or b"\0" in link:
            raise UnreadableArchive(f"{name!r}: a NUL in a path")
        return replace(
            header,
            name=name,
            link=link,
            mtime=_seconds(records[b"mtime"]) if records.get(b"mtime") else header.mtime,
            uid=_decimal(records[b"uid"]) if records.get(b"uid") else header.uid,
            gid=_decimal(records[b"gid"]) if records.get(b"gid") else header.gid,
        )


def _parsed(block: bytes, at: int) -> Header:
    """Return the content of a header block, with the prefix in the path."""
    raw = block[:148] + b" " * 8 + block[156:]
    if len(block) == BLOCK and _octal(block[_CHECKSUM]) != sum(raw):
        raise UnreadableArchive(f"the block at byte {at} is not a header: its checksum is wrong")
    magic = block[257:265]
    formats = {one.magic: one for one in (Format.V7, Format.USTAR, Format.GNU)}
    if magic not in formats:
        raise UnreadableArchive(f"the header at byte {at} has the magic {magic!r}")
    format = formats[magic]
    if format is Format.USTAR and block[508:512] == b"tar\0":
        format = Format.STAR
    name, flag = _text(block[:100]), block[156:157]
    prefix = _text(block[345 : 345 + format.prefix])
    if flag not in _KNOWN:
        raise UnreadableArchive(f"{name!r}: a member of type {flag!r}")
    devices = (_number(block[329:337]), _number(block[337:345])) if flag in _DEVICES else (0, 0)
    return Header(
        prefix + b"/" + name if prefix else name,
        flag,
        _number(block[100:108]),
        _number(block[108:116]),
        _number(block[116:124]),
        _number(block[124:136]),
        _number(block[136:148]),
        _text(block[157:257]),
        devices,
        format=format,
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") - (1 << bits)
        return value - (1 << bits) if field[0] & 0x40 else value
    return _octal(field)


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise UnreadableArchive(f"a header holds {field!r}, which is not an octal number")
    return int(digits or b"0", 8)


def _decimal(text: bytes) -> int:
    if not text.removeprefix(b"-").isdigit():
        raise UnreadableArchive(f"a record holds {text[:30]!r}, which is not a number")
    return int(text)


def _seconds(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    if fraction.strip(b"0123456789"):
        raise UnreadableArchive(f"a record holds {text[:30]!r}, which is not a time")
    return _decimal(whole) - (whole.startswith(b"-") and bool(fraction.strip(b"0")))


def _records(body: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    pairs: list[bytes] = []
    while at < len(body):
        digits, space, _ = body[at : at + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        one = body[at : at + length]
        key, equals, value = one[len(digits) + 1 : -1].partition(b"=")
        if not length or len(one) != length or one[-1:] != b"\n" or not equals or not key:
            raise UnreadableArchive(f"a PAX record is malformed: {body[at : at + 40]!r}")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
        elif key in found:
            raise UnreadableArchive(f"two PAX records for {key!r}")
        else:
            found[key] = value
        at += length
    if pairs:
        found[b"GNU.sparse.map"] = b",".join(pairs)
    return found


def _extensions(data: bytes, at: int) -> int:
    """Return the length of the map after the header of a GNU sparse member."""
    more, length = data[at + 482 : at + 483] not in (b"", b"\0"), 0
    while more:
        length += BLOCK
        more = data[at + length + 504 : at + length + 505] not in (b"", b"\0")
    return length


def _gnu_sparse(own: bytes, data: bytes) -> tuple[list[tuple[int, int]], int, int]:
    fields, start = own[386:482], 0
    more = own[482:483] != b"\0"
    while more:
        fields += data[start : start + 504]
        more = data[start + 504 : start + 505] != b"\0"
        start += BLOCK
    pairs = [fields[at : at + 24] for at in range(0, len(fields), 24)]
    found = [(_number(one[:12]), _number(one[12:])) for one in pairs if one.strip(b"\0")]
    return found, _number(own[483:495]), start


def _map_before_data(data: bytes) -> tuple[list[tuple[int, int]], int]:
    count, _, rest = data.partition(b"\n")
    lines = rest.split(b"\n", 2 * _decimal(count))[: 2 * _decimal(count)]
    used = len(count) + 1 + sum(len(line) + 1 for line in lines)
    numbers = [_decimal(line) for line in lines]
    return list(zip(numbers[::2], numbers[1::2], strict=True)), used + -used % BLOCK
