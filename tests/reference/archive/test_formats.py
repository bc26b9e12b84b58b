"""Archives of the writer are read by tarfile and GNU tar; theirs are read by the reader."""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphdriver.archive.entry import Entry, Kind
from graphdriver.archive.header import encode
from graphdriver.archive.reader import Reader
from graphdriver.archive.stream import open_stream
from graphdriver.archive.writer import Record
from graphdriver.errors import DriverError

on_disk = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}
_UNMEANT = {b".", b"..", b""}

parts = st.binary(min_size=1, max_size=255).map(
    lambda b: b.replace(b"\0", b"0").replace(b"/", b"_")
)
paths = st.lists(parts.filter(lambda part: part not in _UNMEANT), min_size=1, max_size=5).map(
    b"/".join
)
# A PAX value may contain any bytes, but other readers decode it as UTF-8; raw bytes are preserved
# by surrogateescape.
xattrs = st.dictionaries(
    st.sampled_from([b"user.a", b"user.long.name", b"security.capability"]),
    st.binary(max_size=300),
    max_size=3,
)
numbers = st.one_of(st.integers(0, 70_000), st.integers(0, 2**32 - 2))
times = st.one_of(st.integers(0, 2**31), st.integers(-(2**40), 2**40))


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, bytes]:
    """Draw an entry and its data."""
    kind = draw(st.sampled_from(list(Kind)))
    data = draw(st.binary(max_size=2000)) if kind is Kind.FILE else b""
    is_device = kind in (Kind.CHARACTER, Kind.BLOCK)
    linkname = draw(paths) if kind in (Kind.HARDLINK, Kind.SYMLINK) else b""
    entry = Entry(
        draw(paths),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(numbers),
        draw(numbers),
        draw(times),
        len(data),
        linkname,
        draw(st.integers(0, 4095)) if is_device else 0,
        draw(st.integers(0, 2**20 - 1)) if is_device else 0,
        draw(xattrs),
    )
    return entry, data


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def _packed(members: list[tuple[Entry, bytes]], directory: int) -> bytes:
    """Return the writer's archive of data from files 0, 1, ... of `directory`."""

    def records() -> Iterator[Record]:
        for number, (entry, data) in enumerate(members):
            name = b"%d" % number
            flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            os.write(descriptor, data)
            os.close(descriptor)
            yield Record(entry, directory, name)

    with open_stream(records()) as stream:
        return stream.read()


def _names(info: tarfile.TarInfo) -> tuple[bytes, bytes]:
    return os.fsencode(info.name), os.fsencode(info.linkname)


@on_disk
@given(st.lists(entries(), max_size=4))
def test_tarfile_reads_what_the_writer_wrote(
    directory: int, members: list[tuple[Entry, bytes]]
) -> None:
    data = _packed(members, directory)

    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        found = archive.getmembers()
        assert len(found) == len(members)
        for (entry, content), info in zip(members, found, strict=True):
            assert _names(info) == (entry.name, entry.linkname)
            assert info.type == _TYPES[entry.kind]
            assert (info.mode, info.uid, info.gid) == (entry.mode, entry.uid, entry.gid)
            assert int(info.mtime) == entry.mtime
            assert (info.devmajor, info.devminor) == (entry.major, entry.minor)
            assert content == ((info.isreg() and archive.extractfile(info).read()) or b"")  # type: ignore[union-attr]
            assert {
                os.fsencode(key.removeprefix("SCHILY.xattr.")): os.fsencode(value)
                for key, value in info.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            } == dict(entry.xattrs)


@on_disk
@given(st.lists(entries(), max_size=4))
def test_reader_reads_what_the_writer_wrote(
    directory: int, members: list[tuple[Entry, bytes]]
) -> None:
    reader = Reader(io.BytesIO(_packed(members, directory)))

    assert [(member.entry, reader.read()) for member in reader] == members


@on_disk
@given(st.lists(entries(), max_size=4))
def test_same_records_give_the_same_bytes(
    directory: int, members: list[tuple[Entry, bytes]]
) -> None:
    assert _packed(members, directory) == _packed(members, directory)


@on_disk
@given(
    st.lists(entries(), max_size=4),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_reader_reads_what_tarfile_wrote(members: list[tuple[Entry, bytes]], format: int) -> None:
    buffer = io.BytesIO()
    written = []
    with tarfile.open(fileobj=buffer, mode="w", format=format, errors="surrogateescape") as archive:
        for entry, data in members:
            with_xattrs = entry if format == tarfile.PAX_FORMAT else entry._replace(xattrs={})
            try:
                archive.addfile(_info(with_xattrs), io.BytesIO(data))
            except ValueError:  # ustar cannot store it, GNU cannot store times before 1970
                continue
            written.append((with_xattrs, data))

    buffer.seek(0)
    reader = Reader(buffer)

    assert [(member.entry, reader.read()) for member in reader] == written


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(entry.name))
    info.type, info.mode, info.mtime = _TYPES[entry.kind], entry.mode, entry.mtime
    info.uid, info.gid, info.size = entry.uid, entry.gid, entry.size
    info.linkname = os.fsdecode(entry.linkname)
    info.devmajor, info.devminor = entry.major, entry.minor
    info.pax_headers = {
        f"SCHILY.xattr.{os.fsdecode(key)}": os.fsdecode(value)
        for key, value in entry.xattrs.items()
    }
    return info


@pytest.mark.parametrize("format", ["gnu", "posix", "ustar", "oldgnu", "v7"])
def test_reader_reads_what_gnu_tar_wrote(tmp_path: Path, format: str) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/file").write_bytes(b"content\n" * 1000)
    os.utime(tree / "dir/file", (1_000_000_000, 1_000_000_000))
    (tree / "link").symlink_to("dir/file")
    os.link(tree / "dir/file", tree / "hard")
    if format not in ("v7", "ustar"):
        (tree / ("n" * 200)).write_bytes(b"long")
        with (tree / "sparse").open("wb") as sparse:
            sparse.truncate(10 << 20)
            sparse.seek(5 << 20)
            sparse.write(b"middle")

    sparse_too = ["--sparse"] if format not in ("v7", "ustar") else []
    archive = subprocess.run(
        ["tar", "-C", tree, f"--format={format}", *sparse_too, "--sort=name", "-cf", "-", "."],
        check=True,
        capture_output=True,
    ).stdout
    reader = Reader(io.BytesIO(archive))
    found = {member.entry.name: (member, reader.read()) for member in reader}

    assert Kind.DIRECTORY is found[b""][0].entry.kind
    member, data = found[b"dir/file"]
    assert (data, member.entry.mtime) == (b"content\n" * 1000, 1_000_000_000)
    assert _kind_and_link(found[b"link"][0].entry) == (Kind.SYMLINK, b"dir/file")
    assert _kind_and_link(found[b"hard"][0].entry) == (Kind.HARDLINK, b"dir/file")
    if format not in ("v7", "ustar"):
        assert found[b"n" * 200][1] == b"long"
        assert found[b"sparse"][0].entry.size == 10 << 20
        assert b"middle" in found[b"sparse"][1]


def _kind_and_link(entry: Entry) -> tuple[Kind, bytes]:
    return entry.kind, entry.linkname


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(entries(), min_size=1, max_size=4))
def test_gnu_tar_lists_what_the_writer_wrote(
    directory: int, members: list[tuple[Entry, bytes]]
) -> None:
    done = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", "-"],
        input=_packed(members, directory),
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    names = [entry.name + b"/" * (entry.kind is Kind.DIRECTORY) + b"\n" for entry, _ in members]
    assert done.stdout == b"".join(names)


def test_attribute_that_no_record_can_hold_ends_the_diff(tmp_path: Path) -> None:
    entry = Entry(b"f", Kind.SYMLINK, linkname=b"x", xattrs={b"user.a=b": b"value"})

    with (
        open_stream(iter([Record(entry)])) as stream,
        pytest.raises(DriverError, match=r"user\.a=b"),
    ):
        stream.read()


@pytest.mark.parametrize("name", [b"BZh-notes", b"\x1f\x8b", b"\xfd7zXZ", b"\x04\x22\x4d\x18"])
def test_first_name_may_begin_as_a_compressed_stream(name: bytes) -> None:
    archive = encode(Entry(name, Kind.FILE)) + bytes(1024)

    assert [member.entry.name for member in Reader(io.BytesIO(archive))] == [name]
