"""Headers of archives, byte by byte, and damaged variants of a valid archive."""

import tarfile

from hypothesis import strategies as st

from graphdriver_conformance.oracle.archive import build_archive, entry_of, whiteout
from graphdriver_conformance.oracle.tree import directory, file, symlink

__all__ = [
    "END",
    "SAMPLE",
    "block",
    "changed",
    "damaged",
    "extended",
    "long",
    "pax",
    "record",
]

END = bytes(1024)


def block(name: str, **fields: object) -> bytes:
    """Return the ustar block of a file, with `fields` of tarfile's TarInfo replaced."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT)


def changed(header: bytes, **at: bytes) -> bytes:
    """Return the block with bytes replaced at offsets (`_OFFSET=bytes`) and a new checksum."""
    raw = bytearray(header)
    for offset, value in at.items():
        start = int(offset.removeprefix("_"))
        raw[start : start + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record."""
    length = len(key) + len(value) + 3
    digits = next(n for n in range(1, 9) if len(str(length + n)) == n)
    return b"%d %b=%b\n" % (length + digits, key, value)


def extended(data: bytes, flag: bytes = b"x") -> bytes:
    """Return a header with data for the next member."""
    padded = data + bytes(-len(data) % 512)
    return block("PaxHeaders/x", type=flag, size=len(data)) + padded


def pax(*records: tuple[bytes, bytes]) -> bytes:
    """Return an extended header of PAX records."""
    return extended(b"".join(record(*one) for one in records))


def long(name: bytes, flag: bytes = b"L") -> bytes:
    """Return GNU's header for a long name; flag K is for link targets."""
    return extended(name + b"\0", flag)


def _sample() -> bytes:
    """Return an archive with members of every kind, to be damaged."""
    entries = [
        entry_of("d", directory()),
        entry_of("d/" + "n" * 150, file(b"data" * 200)),
        entry_of("d/attributed", file(b"x").but(xattrs=frozenset({("user.a", b"value")}))),
        entry_of("s", symlink("t" * 150)),
        entry_of("h", file(), b"d/attributed"),
        whiteout("gone"),
    ]
    sparse = pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"sparse"),
        (b"GNU.sparse.realsize", b"10000"),
    )
    sparse += block("GNUSparseFile.0/sparse", size=517) + b"1\n0\n5\n".ljust(512, b"\0")
    return sparse + b"12345".ljust(512, b"\0") + build_archive(entries)


SAMPLE = _sample()
_SUMS = [at for at in range(0, len(SAMPLE) - 1024, 512) if SAMPLE[at + 257 : at + 262] == b"ustar"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw the sample with a few bytes replaced; checksums are updated, so that they match."""
    raw = bytearray(SAMPLE)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw) - 1))
        piece = draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([b"--5", b"\0", b"=", b"\n", b"9" * 8, b"/../", b"\xff" * 8]),
            )
        )
        raw[at : at + len(piece)] = piece
    for at in _SUMS:
        raw[at + 148 : at + 156] = b" " * 8
        raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    return bytes(raw)
