"""Archives rewritten block by block, the base of mutants of header dialects."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant

__all__ = ["Blocks", "RewritesBlocks", "blocks_of"]

_BLOCK = 512
_LARGEST = 4 << 20
_WITHOUT_DATA = b"123456"


@dataclass(frozen=True, slots=True)
class Blocks:
    """A member with the bytes of its headers, and its parsed fields."""

    ahead: bytes
    """The headers before its own."""
    header: bytes
    data: bytes
    """What follows its own header."""
    name: bytes
    link: bytes
    records: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def raw(self) -> bytes:
        """The whole member."""
        return self.ahead + self.header + self.data

    @property
    def flag(self) -> bytes:
        """The type flag of its header."""
        return self.header[156:157]

    def with_header(self, **patches: bytes) -> bytes:
        """Return the member with bytes of its header replaced, `patches` being at_OFFSET=bytes."""
        header = bytearray(self.header)
        for where, piece in patches.items():
            at = int(where.removeprefix("at_"))
            header[at : at + len(piece)] = piece
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return self.ahead + bytes(header) + self.data


def blocks_of(data: bytes) -> tuple[list[Blocks], bytes]:
    """Return the members of an archive, and the bytes after the last one. Raises ValueError."""
    members: list[Blocks] = []
    start = at = 0
    long_names: dict[bytes, bytes] = {}
    records: dict[bytes, bytes] = {}
    while (header := data[at : at + _BLOCK]).strip(b"\0"):
        flag, size = header[156:157], _number(header[124:136])
        size = int(records.get(b"size") or size)
        stored = 0 if flag in _WITHOUT_DATA else size + -size % _BLOCK
        if flag == b"S":
            more, maps = header[482], 0
            while more:
                maps += _BLOCK
                more = data[at + maps + 504]
            stored += maps
        body = data[at + _BLOCK : at + _BLOCK + stored]
        if len(header) < _BLOCK or len(body) < stored:
            raise ValueError("a member is cut off")
        own, at = at, at + _BLOCK + stored
        if flag in (b"L", b"K"):
            long_names[flag] = body.partition(b"\0")[0]
        elif flag == b"x":
            records = _records(body[:size])
        elif flag != b"g":
            name = long_names.get(b"L") or records.get(b"path") or _name_in(header)
            link = long_names.get(b"K") or records.get(b"linkpath")
            link = link or header[157:257].partition(b"\0")[0]
            members.append(Blocks(data[start:own], header, body, name, link, records))
            start, long_names, records = at, {}, {}
    return members, data[start:]


def _name_in(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # A star header has times in the place of ustar's prefix, and ends with the magic `tar`.
    if header[257:263] != b"ustar\0" or header[508:512] == b"tar\0":
        return name
    prefix = header[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b"\0 ") or b"0", 8)


def _records(body: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    while body:
        length = int(body[: body.index(b" ")])
        key, _, value = body[: length - 1].partition(b" ")[2].partition(b"=")
        found[key] = value
        body = body[max(length, 1) :]
    return found


class RewritesBlocks(Mutant):
    """Lets a subclass change the blocks of an applied archive. Other data is passed through."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff of the rewritten archive."""
        data = diff.read(_LARGEST)
        if len(data) == _LARGEST:
            return super().apply_diff(id, parent, io.BytesIO(data + diff.read()))
        try:
            members, rest = blocks_of(data)
        except (ValueError, IndexError):
            return super().apply_diff(id, parent, io.BytesIO(data))
        changed = b"".join(self.rewritten(members)) + self.ended(rest)
        return super().apply_diff(id, parent, io.BytesIO(changed))

    def rewritten(self, members: list[Blocks]) -> Iterable[bytes]:
        """Return the members as the broken driver reads them."""
        return (member.raw for member in members)

    def ended(self, rest: bytes) -> bytes:
        """Return the bytes after the last member."""
        return rest
