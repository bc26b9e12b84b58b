"""Sparse members: the positions of data and holes.

GNU's old format ('S'), and PAX sparse 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
The size of a map is limited, because an attacker could exhaust the memory (CVE-2025-58183).
"""

from itertools import pairwise

from graphdriver.archive.header import BLOCK, number, padding
from graphdriver.archive.source import Source
from graphdriver.errors import BadArchive
from graphdriver.tree.data import Segment

__all__ = ["bounded", "checked", "from_gnu_block", "from_pax", "map_block"]

_LARGEST_MAP = 100_000


def checked(segments: list[Segment], size: int) -> list[Segment]:
    """Return `segments` if they are in order and within `size`. Raises BadArchive."""
    position = 0
    for offset, length in segments:
        if offset < position or length < 0 or offset + length > size:
            raise BadArchive(f"a sparse map of {len(segments)} segments contradicts itself")
        position = offset + length
    return segments


def from_gnu_block(block: bytes, source: Source) -> tuple[list[Segment], int]:
    """Read the map of an old GNU sparse member and its real size; extension blocks follow it."""
    segments = _octal_pairs(block[386:482])
    more = block[482:483] != b"\0"
    while more:
        extension = source.exactly(BLOCK)
        segments += _octal_pairs(extension[:504])
        more = extension[504:505] != b"\0"
        if len(segments) > _LARGEST_MAP:
            raise BadArchive(f"a sparse map has more than {_LARGEST_MAP} segments")
    return segments, number(block[483:495])


def from_pax(records: dict[bytes, bytes], source: Source, stored: int) -> tuple[list[Segment], int]:
    """Return the map of PAX records, and the length of its part before the data."""
    if records.get(b"GNU.sparse.major") == b"1":
        return _map_before_data(source, stored)
    if (text := records.get(b"GNU.sparse.map")) is not None:
        return _pairs(text.split(b",") if text else []), 0
    raise BadArchive("a sparse member without a map", "PAX sparse 0.0, 0.1 and 1.0 are read")


def bounded(segments: list[Segment]) -> list[Segment]:
    """Return segments of which there are not more than are read; the smallest holes become data."""
    surplus = len(segments) - _LARGEST_MAP
    if surplus <= 0:
        return segments
    holes = [after.offset - before.offset - before.length for before, after in pairwise(segments)]
    filled = set(sorted(range(len(holes)), key=holes.__getitem__)[:surplus])
    merged = segments[:1]
    for index, (offset, length) in enumerate(segments[1:]):
        if index in filled:
            start = merged[-1].offset
            merged[-1] = Segment(start, offset + length - start)
        else:
            merged.append(Segment(offset, length))
    return merged


def map_block(segments: list[Segment]) -> bytes:
    """Return the map of PAX sparse 1.0, which precedes the data."""
    lines = [b"%d\n" % len(segments)]
    lines += [b"%d\n%d\n" % segment for segment in segments]
    text = b"".join(lines)
    return text + padding(len(text))


def _map_before_data(source: Source, stored: int) -> tuple[list[Segment], int]:
    text, lines, read = bytearray(), 0, 0
    needed = 1
    while lines < needed:
        if read + BLOCK > stored or read > _LARGEST_MAP * 40:
            raise BadArchive("a sparse map does not end within its member")
        block = source.exactly(BLOCK)
        text += block
        lines += block.count(b"\n")
        if needed == 1 and lines:
            needed = 1 + 2 * _decimal(bytes(text[: text.index(b"\n")]))
            if needed > 1 + 2 * _LARGEST_MAP:
                raise BadArchive(f"a sparse map has more than {_LARGEST_MAP} segments")
        read += BLOCK
    return _pairs(bytes(text).split(b"\n", needed)[1:needed]), read


def _pairs(numbers: list[bytes]) -> list[Segment]:
    if len(numbers) % 2 or len(numbers) > 2 * _LARGEST_MAP:
        raise BadArchive(f"a sparse map of {len(numbers)} numbers is odd or too large")
    values = [_decimal(number) for number in numbers]
    return [Segment(*pair) for pair in zip(values[::2], values[1::2], strict=True)]


def _octal_pairs(field: bytes) -> list[Segment]:
    pairs = (field[at : at + 24] for at in range(0, len(field) - 23, 24))
    return [Segment(number(pair[:12]), number(pair[12:])) for pair in pairs if pair.strip(b"\0 ")]


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise BadArchive(f"a sparse map holds {digits[:30]!r} where a number belongs")
    return int(digits)
