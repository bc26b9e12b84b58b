"""Ruling 36: headers are read like GNU tar and Go do; invalid ones are refused by name."""

import io
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphdriver.archive.entry import Entry, Kind
from graphdriver.archive.reader import Reader
from graphdriver.errors import BadArchive
from reference.archive.headers import (
    END,
    block,
    changed,
    damaged,
    extended,
    long,
    pax,
    record,
)

LONG = "L" * 120


def _read(archive: bytes) -> list[tuple[Entry, bytes]]:
    reader = Reader(io.BytesIO(archive + END))
    return [(member.entry, reader.read()) for member in reader]


def _one(archive: bytes) -> Entry:
    (entry, _) = _read(archive)[0]
    return entry


F, S = block("f"), block("s", type=b"2", linkname="target")


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime"])
def test_record_without_a_value_leaves_what_the_header_says(key: bytes) -> None:
    plain = block("s", type=b"2", linkname="target", uid=5, gid=6, mtime=7)

    assert _one(plain) == _one(pax((key, b"")) + plain)


def test_record_without_a_value_takes_back_one_before_it() -> None:
    assert _one(pax((b"path", b"other"), (b"path", b"")) + F).name == b"f"


def test_attribute_may_be_empty() -> None:
    assert _one(pax((b"SCHILY.xattr.user.a", b"")) + F).xattrs == {b"user.a": b""}


def test_later_of_two_records_wins() -> None:
    assert _one(pax((b"path", b"one"), (b"path", b"two")) + F).name == b"two"


def test_second_extended_header_replaces_the_first() -> None:
    """As in Go and GNU tar; records of the first header do not apply to the member."""
    entry = _one(pax((b"path", b"one"), (b"uid", b"5")) + pax((b"gid", b"6")) + F)

    assert (entry.name, entry.uid, entry.gid) == (b"f", 0, 6)


def test_zeros_end_the_records() -> None:
    data = record(b"path", b"one") + bytes(20)

    assert _one(extended(data) + F).name == b"one"


@pytest.mark.parametrize("number", [b"+5", b"5", b"0005"])
def test_numbers_may_have_one_sign(number: bytes) -> None:
    entry = _one(pax((b"uid", number), (b"mtime", number + b".75")) + F)

    assert (entry.uid, entry.mtime) == (5, 5)


@pytest.mark.parametrize(
    ("time", "seconds"), [(b"-1", -1), (b"-1.5", -2), (b"-0.5", -1), (b"1.999", 1), (b"-2.000", -2)]
)
def test_times_are_rounded_down(time: bytes, seconds: int) -> None:
    assert seconds == _one(pax((b"mtime", time)) + F).mtime


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in (b"uid", b"gid", b"size", b"mtime", b"atime", b"ctime")
        for value in (b"--5", b"+-5", b"5-", b" 5", b"5 ", b"0x5", b"1_0", b"\xd9\xa5", b"9" * 40)
        if (key, value[:1]) != (b"atime", b"")
    ]
    + [
        (b"mtime", b"-.5"),
        (b"mtime", b"."),
        (b"mtime", b"1.2.3"),
        (b"mtime", b"1.5x"),
        (b"uid", b"-1"),
        (b"uid", b"4294967295"),
        (b"size", b"-1"),
        (b"size", b"9223372036854775808"),
        (b"path", b"a\0b"),
        (b"linkpath", b"a\0b"),
        (b"uname", b"a\0b"),
        (b"SCHILY.xattr.user.a\0b", b"x"),
        (b"path", b"../f"),
        (b"GNU.sparse.realsize", b"--5"),
        (b"GNU.sparse.map", b"0,--1"),
        (b"GNU.sparse.map", b"0"),
        (b"GNU.sparse.map", b"5,1,0,1"),
        (b"GNU.sparse.major", b"1"),
    ],
)
def test_record_that_no_reader_takes_is_refused_by_the_name_of_its_member(
    key: bytes, value: bytes
) -> None:
    archive = pax((key, value)) + block("the-member")

    with pytest.raises(BadArchive, match=r"the-member|'\.\./f'|a\\x00b"):
        _read(archive)


@pytest.mark.parametrize(
    "data",
    [b"junk", b"99 path=f\n", b"3 \n", b"9 path=f", b"-9 path=f\n", b"6 =abc\n", b"10 pathabc\n"],
)
def test_malformed_records_are_refused(data: bytes) -> None:
    with pytest.raises(BadArchive, match="b'f': a PAX record"):
        _read(extended(data) + F)


@pytest.mark.parametrize("flag", [b"\0", b"0", b"7"])
@pytest.mark.parametrize("front", [long(b"%b/" % LONG.encode()), pax((b"path", b"d/"))])
def test_trailing_slash_of_a_name_in_any_header_is_a_directory(flag: bytes, front: bytes) -> None:
    """tar before POSIX.1-1988 had no type flag for directories (cpython #141707)."""
    assert _one(front + changed(F, _156=flag)).kind is Kind.DIRECTORY


@pytest.mark.parametrize("flag", [b"\0", b"0", b"7"])
def test_cut_name_that_ends_with_a_slash_makes_no_directory(flag: bytes) -> None:
    """The header of a long name contains its first hundred bytes, which may end with a slash."""
    header = changed(block("d" * 99 + "/"), _156=flag)

    assert _one(long(b"d" * 99 + b"/file") + header).kind is Kind.FILE
    assert _one(pax((b"path", b"d" * 99 + b"/file")) + header).kind is Kind.FILE


def test_long_names_end_at_their_first_nul() -> None:
    entry = _one(extended(b"one\0two\0", b"L") + extended(b"to\0x", b"K") + S)

    assert (entry.name, entry.linkname) == (b"one", b"to")


def test_last_of_several_long_names_counts() -> None:
    assert _one(long(b"one") + long(b"two") + F).name == b"two"


def test_names_of_go_before_1_8_have_a_prefix_in_gnu_headers() -> None:
    """golang #12594: other writers store two times there, which are not part of the name."""
    gnu = changed(F, _257=b"ustar  \0")

    assert _one(changed(gnu, _345=b"00000000017\000000000017\0")).name == b"f"
    assert _one(changed(gnu, _345=b"\x80" + bytes(10) + b"\5")).name == b"f"
    assert _one(changed(gnu, _345=b"dir/sub")).name == b"dir/sub/f"


def test_prefix_of_star_ends_before_its_times() -> None:
    prefix = b"p" * 100 + b"/" + b"q" * 30
    star = changed(F, _345=prefix, _476=b"00000000017\000000000017\0", _508=b"tar\0")

    assert prefix + b"/f" == _one(star).name


def test_header_of_the_seventh_edition_has_neither_magic_nor_prefix() -> None:
    v7 = changed(F, _257=bytes(8) + b"u" * 32, _345=b"rubbish")

    assert _one(v7).name == b"f"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000005\0", 5),
        (b"      5\0", 5),
        (b"5       ", 5),
        (b"5\0junk..", 5),
        (b"\0" * 8, 0),
        (b" " * 8, 0),
        (b"\x80" + bytes(6) + b"\5", 5),
        (b"\x80\0\0\0\0\x01\0\0", 65536),
    ],
)
def test_numbers_of_headers(field: bytes, value: int) -> None:
    assert value == _one(changed(F, _108=field)).uid


@pytest.mark.parametrize(
    "field", [b"0000009\0", b"-000005\0", b"+5\0    ", b"1_0\0    ", b"0o5\0    ", b"\xff" * 8]
)
def test_number_of_a_header_that_no_reader_takes(field: bytes) -> None:
    with pytest.raises(BadArchive, match="b'f'"):
        _read(changed(F, _108=field))


def test_number_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(BadArchive, match=r"b'f'.*64 bits"):
        _read(changed(F, _136=b"\x80" + b"\x7f" * 11))


def test_times_before_1970_in_base_256() -> None:
    assert _one(changed(F, _136=b"\xff" * 12)).mtime == -1


@pytest.mark.parametrize("name", ["f", "./f", "/f", "//f", ".//f/.", "f/./"])
def test_names_are_relative_to_the_root(name: str) -> None:
    assert _one(block(name, type=b"5")).name == b"f"


@pytest.mark.parametrize("target", ["d/f", "./d/f", "/d/f", "d//f"])
def test_targets_of_hard_links_are_relative_to_the_root(target: str) -> None:
    assert _one(block("h", type=b"1", linkname=target)).linkname == b"d/f"


@pytest.mark.parametrize("flag", [b"D", b"V", b"M", b"N", b"A", b"Z", b"8", b" "])
def test_unknown_types_are_refused_by_the_name_of_their_member(flag: bytes) -> None:
    with pytest.raises(BadArchive, match=r"b'f': .*type"):
        _read(changed(F, _156=flag))


def test_symlink_to_nowhere_is_refused() -> None:
    with pytest.raises(BadArchive, match="b's': a symlink to nowhere"):
        _read(block("s", type=b"2"))


@pytest.mark.parametrize("flag", [b"1", b"2", b"5", b"6"])
def test_members_without_data_have_size_zero(flag: bytes) -> None:
    """As in Go: the size is that of the link target, or undefined."""
    archive = block("n", type=flag, linkname="t", size=700) + F

    assert [entry.name for entry, _ in _read(archive)] == [b"n", b"f"]


@pytest.mark.parametrize("flag", [b"1", b"2", b"5"])
def test_sparse_map_of_a_member_that_is_no_file_is_refused(flag: bytes) -> None:
    sparse = pax((b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"0"))
    with pytest.raises(BadArchive, match=r"b'n/?': a sparse member that is no file"):
        _read(sparse + block("n", type=flag, linkname="t"))


class _Endless:
    """A stream of extended headers of 1 MiB, generated on demand, and a file."""

    def __init__(self, count: int) -> None:
        self._pieces = self._made(count)

    @staticmethod
    def _made(count: int) -> Iterator[bytes]:
        for number in range(count):
            yield extended(record(b"key%d" % number, bytes(1 << 19)))
        yield F + END

    def read(self, size: int) -> bytes:
        return next(self._pieces, b"")


def test_extended_headers_take_bounded_memory() -> None:
    """All of them were kept: headers of 400 MiB took 372 MiB."""
    tracemalloc.start()
    try:
        names = [member.entry.name for member in Reader(cast(BinaryIO, _Endless(100)))]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert names == [b"f"]
    assert peak < 16 << 20


@settings(max_examples=int(os.environ.get("DAMAGE_EXAMPLES", "400")), deadline=None)
@given(st.data())
def test_damaged_archives_end_in_bad_archive_and_nothing_else(data: st.DataObject) -> None:
    """Checksums are updated, so that the damage is not detected by them."""
    reader = Reader(io.BytesIO(data.draw(damaged())))
    with suppress(BadArchive):
        for member in reader:
            if member.stored < 1 << 20:
                assert member.stored == len(reader.read())


def test_global_header_may_stand_alone() -> None:
    """git archive writes one for an empty tree."""
    comment = extended(record(b"comment", b"0123456789abcdef"), b"g")

    assert _read(comment) == []
    assert [entry.name for entry, _ in _read(comment + F + comment)] == [b"f"]


@pytest.mark.parametrize("ahead", [pax((b"path", b"lost")), long(b"lost")])
def test_extended_header_without_a_member_is_refused_by_the_name_that_it_has(ahead: bytes) -> None:
    """The error was "cut short", which suggests a network problem."""
    with pytest.raises(BadArchive, match="belongs to no member: b'lost'"):
        _read(F + ahead)
    with pytest.raises(BadArchive, match="too early"):
        list(Reader(io.BytesIO(F + ahead)))
