"""Reading and writing ustar headers and PAX records.

Values that fit into ustar are written in ustar; PAX records are used only for others (long or many
bytes, large numbers, times before 1970, xattrs). The same entry always has the same bytes. Bytes
beyond ASCII stay raw in ustar's name, as in Docker, GNU tar and Go: PAX requires UTF-8, which names
need not be. POSIX.1-2017, pax, "pax Interchange Format"; GNU numbers in base 256 are read, never
written.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

from graphdriver.archive.entry import DIRECTORY, FILE, Entry, Kind
from graphdriver.errors import BadArchive, DriverError

__all__ = [
    "BLOCK",
    "LARGEST_HEADER",
    "Raw",
    "encode",
    "is_header",
    "number",
    "padding",
    "parse_pax",
    "parse_ustar",
]

BLOCK = 512
LARGEST_HEADER = 1 << 20
"""The limit of an extended header, here and in Go: a path, a link, attributes of 64 KiB each."""

_ZEROS = bytes(BLOCK)
_XATTR = b"SCHILY.xattr."
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_TEXTS = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_NOT_OCTAL = frozenset(b"89")
_OCTAL7 = 0o7777777
_OCTAL11 = 0o77777777777
# The fields that are constant in every written header, and their share of the checksum.
_TAIL = b"ustar\x0000" + bytes(64)
_FLAGS = {kind: kind.value for kind in Kind}
_DEVICES = frozenset((Kind.CHARACTER, Kind.BLOCK))
_CONSTANT_SUM = {kind: sum(_TAIL) + 8 * 32 + kind.value[0] - 1 for kind in Kind}
# The bytes after the type flag of a member without link target, device numbers and prefix.
_PLAIN_REST = bytes(100) + _TAIL + bytes(183)


class Raw(NamedTuple):
    """A decoded ustar header, before PAX records overrule its values."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    flag: bytes
    linkname: bytes
    major: int
    minor: int


def encode(entry: Entry, pax: Mapping[bytes, bytes] = {}) -> bytes:
    """Return the header blocks of `entry`; `pax` adds records of the caller.

    Raises DriverError for an xattr whose name cannot be in a PAX record.
    """
    name = entry.name or b"."
    if entry.kind is DIRECTORY:
        name += b"/"
    size = entry.size if entry.kind is FILE else 0
    if (
        len(name) <= 100
        and not entry.xattrs
        and not pax
        and 0 <= entry.mtime <= _OCTAL11
        and 0 <= entry.uid <= _OCTAL7
        and 0 <= entry.gid <= _OCTAL7
        and size <= _OCTAL11
        and len(entry.linkname) <= 100
    ):  # most members need no more
        return _ustar(name, entry, entry.uid, entry.gid, size, entry.mtime, entry.linkname, b"")
    return _with_records(name, entry, size, dict(pax))


def padding(size: int) -> bytes:
    """Return the zeros that pad `size` bytes of data to a complete block."""
    return _ZEROS[: -size % BLOCK]


def parse_ustar(block: bytes) -> Raw:
    """Decode one block. Raises BadArchive if its checksum is wrong.

    Nearly all headers of an archive are equal except for name, size and time, so the rest is
    decoded once.
    """
    stored, own = _checksum(block[148:156])
    # The field itself counts as blanks. The sum of nearly all headers is less than Adler-32's
    # modulus, so one call on the whole block computes it.
    if stored != (adler32(block) & 0xFFFF) - 1 - own + 256:
        _check_sum(block, stored)
    end = block.find(0, 0, 100)
    name = block[:end] if end >= 0 else block[:100]
    try:
        mode, uid, gid = _owner_numbers(block[100:124])
        flag, linkname, major, minor, prefix = _rest(block[156:])
        size, mtime = number(block[124:136]), number(block[136:148])
    except BadArchive as error:
        raise BadArchive(f"{name!r}: {error.message}", error.hint) from None
    if prefix:
        name = prefix + b"/" + name
    return tuple.__new__(Raw, (name, mode, uid, gid, size, mtime, flag, linkname, major, minor))


def is_header(block: bytes) -> bool:
    """Return whether a block is a header by its length and its checksum."""
    if len(block) < BLOCK:
        return False
    try:
        parse_ustar(block)
    except BadArchive:
        return False
    return True


def _check_sum(block: bytes, stored: int) -> None:
    """Compare with the sum of unsigned bytes, or of signed ones, which some tars write."""
    unsigned = _byte_sum(block[:148]) + 256 + _byte_sum(block[156:345]) + _byte_sum(block[345:])
    if stored != unsigned and stored != unsigned - 256 * sum(byte > 127 for byte in block):
        raise BadArchive(
            "a header's checksum is wrong", "this is not a tar archive, or a damaged one"
        )


@lru_cache(maxsize=4096)
def _checksum(field: bytes) -> tuple[int, int]:
    """Return the value of the checksum field, -1 if it is empty, and the sum of its own bytes."""
    digits = field.strip(b" \0")
    stored = int(digits, 8) if digits.isdigit() and not set(digits) & _NOT_OCTAL else -1
    return stored, _byte_sum(field)


@lru_cache(maxsize=256)
def _rest(fields: bytes) -> tuple[bytes, bytes, int, int, bytes]:
    """Decode the fields after the checksum: type flag, link target, major, minor, prefix."""
    flag = fields[:1]
    major = minor = 0
    if flag in b"34":
        major, minor = number(fields[173:181]), number(fields[181:189])
    return flag, fields[1:101].split(b"\0", 1)[0], major, minor, _prefix(fields)


def _prefix(fields: bytes) -> bytes:
    """Return the prefix of the path; star stores two times behind it."""
    magic = fields[101:109]
    if magic[:6] == b"ustar\0":
        room = fields[189:320] if fields[352:356] == b"tar\0" else fields[189:344]
        return room.split(b"\0", 1)[0]
    if magic == b"ustar  \0":
        # GNU's old format has two times there, but Go before 1.8 wrote prefixes (golang #12594).
        try:
            for field in (fields[189:201], fields[201:213]):
                if field[0]:
                    number(field)
        except BadArchive:
            prefix = fields[189:344].split(b"\0", 1)[0]
            return prefix if prefix.isascii() else b""
    return b""


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Decode the records `length key=value newline`; later ones win. Raises BadArchive.

    A record without a value leaves the header's value, except for xattrs, which may be empty.
    Sparse 0.0 has two records with the same keys for each segment; they are converted to the map of
    0.1.
    """
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    position = 0
    while position < len(data) and data[position]:  # GNU tar lets zeros end the records
        digits, space, _ = data[position : position + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[position : position + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) < 5 or len(record) != length or not equals or record[-1:] != b"\n":
            raise BadArchive(f"a PAX record is malformed: {data[position : position + 40]!r}")
        value = value[:-1]
        if not key or b"\0" in key or (key in _TEXTS and b"\0" in value):
            raise BadArchive(f"a PAX record holds a NUL or no name: {record[:40]!r}")
        if key in _SPARSE_PAIR:
            sparse.append(value)
        if value or key.startswith(_XATTR):
            records[key] = value
        else:
            records.pop(key, None)
        position += length
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def _with_records(name: bytes, entry: Entry, size: int, records: dict[bytes, bytes]) -> bytes:
    """Return headers with PAX records for values that do not fit into ustar."""
    prefix = b""
    if len(name) > 100:
        prefix, name = _split(name, records)
    linkname = _fit(entry.linkname, 100, b"linkpath", records)
    uid = _number_field(entry.uid, _OCTAL7, b"uid", records)
    gid = _number_field(entry.gid, _OCTAL7, b"gid", records)
    mtime = _number_field(entry.mtime, _OCTAL11, b"mtime", records)
    stored = _number_field(size, _OCTAL11, b"size", records)
    for key, value in entry.xattrs.items():
        if b"=" in key:
            # A PAX key ends at the first '='; GNU tar escapes it, Go refuses it, and neither reads
            # the other.
            raise DriverError(
                f"the attribute {key!r} of {entry.name!r} cannot be in an archive",
                "rename it without '='",
            )
        records[_XATTR + key] = value
    header = _ustar(name, entry, uid, gid, stored, mtime, linkname, prefix)
    return _pax_header(entry, records) + header if records else header


def _ustar(
    name: bytes,
    entry: Entry,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    linkname: bytes,
    prefix: bytes,
) -> bytes:
    kind = entry.kind
    owner = _owner_fields(entry.mode, uid, gid)
    front = b"%b%b%011o\0%011o\0" % (name.ljust(100, b"\0"), owner, size, mtime)
    # Adding the fields that are not constant is faster than adding the whole block.
    checksum = _CONSTANT_SUM[kind] + (adler32(front) & 0xFFFF)
    rest = _PLAIN_REST
    if linkname or prefix or kind in _DEVICES:
        is_device = kind in _DEVICES
        devices = b"%07o\0%07o\0" % (entry.major, entry.minor) if is_device else b""
        checksum += _byte_sum(linkname) + _byte_sum(prefix) + _byte_sum(devices)
        rest = b"%b%b%b%b%b" % (
            linkname.ljust(100, b"\0"),
            _TAIL,
            devices.ljust(16, b"\0"),
            prefix.ljust(155, b"\0"),
            _ZEROS[:12],
        )
    return b"%b%06o\0 %b%b" % (front, checksum, _FLAGS[kind], rest)


@lru_cache(maxsize=4096)
def _owner_fields(mode: int, uid: int, gid: int) -> bytes:
    """Return the three fields that are equal for most files of a layer."""
    return b"%07o\0%07o\0%07o\0" % (mode, uid, gid)


@lru_cache(maxsize=4096)
def _owner_numbers(fields: bytes) -> tuple[int, int, int]:
    """Read these three fields: mode, uid, gid."""
    return number(fields[:8]), number(fields[8:16]), number(fields[16:])


def _byte_sum(data: bytes) -> int:
    """Return the sum of up to 256 bytes: twenty times as fast as sum().

    Adler-32's low half is this sum plus one, modulo 65521 (RFC 1950, section 9).
    """
    return (adler32(data) & 0xFFFF) - 1


def _pax_header(entry: Entry, records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    if len(body) > LARGEST_HEADER:
        raise DriverError(
            f"the names and attributes of {entry.name!r} take {len(body)} bytes",
            f"no reader of archives takes more than {LARGEST_HEADER}; remove attributes",
        )
    # Go and GNU tar accept any name here; this one is short and shows the member.
    name = (b"PaxHeaders/" + (entry.name.rpartition(b"/")[2] or b"."))[:100]
    header = Entry(name, FILE, 0o644)
    numbers = _ustar(name, header, 0, 0, len(body), 0, b"", b"")
    flagged = bytearray(numbers)
    flagged[156:157] = b"x"
    flagged[148:156] = b"%06o\0 " % (int(numbers[148:154], 8) - ord("0") + ord("x"))
    block = bytes(flagged)
    return b"%b%b%b" % (block, body, padding(len(body)))


def _record(key: bytes, value: bytes) -> bytes:
    """Return a record whose length includes its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _split(name: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return ustar's prefix and name for a path over 100 bytes; a record if it does not fit."""
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut > 0 and len(name) - cut - 1 <= 100:
        return name[:cut], name[cut + 1 :]
    records[b"path"] = name
    return b"", name[:100]


def _fit(value: bytes, room: int, key: bytes, records: dict[bytes, bytes]) -> bytes:
    if len(value) > room:
        records[key] = value
    return value[:room]


def _number_field(value: int, largest: int, key: bytes, records: dict[bytes, bytes]) -> int:
    if 0 <= value <= largest:
        return value
    records[key] = b"%d" % value
    return 0


@lru_cache(maxsize=4096)
def number(field: bytes) -> int:
    """Read a number: octal digits, or GNU's base 256 marked by the top bit. Raises BadArchive.

    Leading blanks are allowed; a blank or NUL ends it, and GNU tar ignores the rest.
    """
    digits = field[:-1]
    if field[-1] == 0 and digits.isdigit():
        try:
            return int(digits, 8)  # as nearly all tars write it
        except ValueError:
            pass
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") - (1 << bits)
        value -= (field[0] & 0x40) << bits - 6
        if not -(1 << 63) <= value < 1 << 63:
            raise BadArchive(f"a header holds {field!r}, a number of more than 64 bits")
        return value
    digits = field.lstrip(b" \0").partition(b"\0")[0].partition(b" ")[0]
    if not digits:
        return 0
    if not digits.isdigit() or _NOT_OCTAL.intersection(digits):
        raise BadArchive(f"a header holds {field!r} where a number belongs")
    return int(digits, 8)
