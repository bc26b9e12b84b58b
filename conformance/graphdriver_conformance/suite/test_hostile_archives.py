"""SEC: malicious archives. Applied or refused, no file outside the layer may change."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import LayerEntry, build_archive, entry_of, whiteout
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tar_blocks import END, Header, extended
from graphdriver_conformance.oracle.tree import NodeKind, Tree, device, directory, file, symlink
from graphdriver_conformance.suite.support.beside import directory_beside
from graphdriver_conformance.suite.support.breakouts import KINDS, breakouts, outside
from graphdriver_conformance.suite.support.effort import examples
from graphdriver_conformance.suite.support.names import assert_same_names

VICTIM = Tree.of({"hello": b"hello", "dir/inner": file(b"inner", 0o600)})


def _try(graphdriver: Subject, layer: str, archive: bytes) -> None:
    try:
        graphdriver.apply_diff(layer, graphdriver.parent_of(layer), archive)
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")


def _victim(graphdriver: Subject) -> "os.PathLike[str]":
    return directory_beside(graphdriver, "victim", VICTIM)


@verifies("SEC-001")
@pytest.mark.parametrize("kind", KINDS)
def test_archive_changes_nothing_outside_the_layer(graphdriver: Subject, kind: str) -> None:
    """The symlink or hard link is in the same archive, in an earlier one, or in the parent."""
    victim = os.fspath(_victim(graphdriver))
    sibling = graphdriver.build(VICTIM)
    beside = _state(graphdriver.home.parent)
    for name, entries in breakouts(victim, sibling)[kind].items():
        _try(graphdriver, graphdriver.new_layer(), build_archive(entries))
        for cut in range(1, len(entries)):
            first, rest = build_archive(entries[:cut]), build_archive(entries[cut:])
            layer = graphdriver.new_layer()
            _try(graphdriver, layer, first)
            _try(graphdriver, graphdriver.new_layer(layer), rest)
            _try(graphdriver, layer, rest)

        what = f"{kind}, {name}: files outside the layer changed"
        assert_same_tree(VICTIM, observe(victim), what, Aspect.ALL & ~Aspect.ROOT)
        assert_same_names(beside, _state(graphdriver.home.parent), what)
        assert _state(graphdriver.home.parent) == beside, what
    assert_same_tree(VICTIM, graphdriver.tree(sibling), f"{kind}: another layer changed")


def _state(directory: Path) -> dict[str, int]:
    """Return the names in a directory, each with its type and mode."""
    return {path.name: path.lstat().st_mode for path in directory.iterdir()}


@verifies("SEC-002")
def test_metadata_outside_is_not_touched(graphdriver: Subject) -> None:
    """A member with a symlink's or hard link's path changes the link, not its target."""
    victim = _victim(graphdriver)
    out = outside(f"{os.fspath(victim)}/hello")
    entries = [
        entry_of("s", symlink(out)),
        entry_of("h", file(), out.encode()),
        entry_of("h", file(b"", 0o4777, mtime=1)),
        entry_of("s", file(b"", 0o4777, mtime=1)),
    ]
    for some in (entries, entries[:1] + entries[3:], entries[1:3]):
        _try(graphdriver, graphdriver.new_layer(), build_archive(some))

    assert_same_tree(VICTIM, observe(os.fspath(victim)), "", Aspect.ALL & ~Aspect.ROOT)


@verifies("SEC-003")
@pytest.mark.parametrize("space", ["trusted.overlay.", "user.overlay."])
def test_private_attributes_are_not_obeyed(graphdriver: Subject, space: str) -> None:
    """opaque would hide lower files, redirect show another directory, whiteout delete."""
    below = Tree.of({"d/secret": b"s", "e/kept": b"k"})
    marks = frozenset({(f"{space}opaque", b"y"), (f"{space}redirect", b"/d")})
    layer = graphdriver.new_layer(graphdriver.build(below))
    entries = [entry_of("e", directory(xattrs=marks)), entry_of("e/new", file(b"n"))]

    _try(graphdriver, layer, build_archive(entries))

    tree = graphdriver.tree(layer)
    assert b"e/kept" in tree, "the overlay xattr opaque of the archive was applied"
    assert b"e/secret" not in tree, "the overlay xattr redirect of the archive was applied"


@verifies("SEC-004")
@pytest.mark.parametrize("numbers", [(1 << 12, 0), (0, 1 << 20), (2097151, 2097151)], ids=str)
def test_device_numbers_are_not_cut(graphdriver: Subject, numbers: tuple[int, int]) -> None:
    """The device is refused, or created with exactly these numbers."""
    layer = graphdriver.new_layer()
    wanted = device(NodeKind.CHARACTER, *numbers)

    _try(graphdriver, layer, build_archive([entry_of("node", wanted)]))

    found = graphdriver.tree(layer).get(b"node")
    assert found is None or found.rdev == numbers, f"the device became {found and found.rdev}"


class _Bomb(io.RawIOBase):
    """A header, followed by endless filler; reading stops at 64 MiB."""

    def __init__(self, start: bytes, filler: bytes) -> None:
        super().__init__()
        self._start, self._filler = start, filler * (1 << 16)
        self.left = 64 << 20

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        source = self._start or self._filler[: self.left]
        count = min(len(buffer), len(source))
        buffer[:count] = source[:count]
        if self._start:
            self._start = self._start[count:]
        else:
            self.left -= count
        return count


def _claiming(type: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("bomb")
    info.type, info.size = type, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _sparse_claiming(segments: int) -> bytes:
    info = tarfile.TarInfo("GNUSparseFile.0/bomb")
    info.size = 4 << 30
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "bomb",
        "GNU.sparse.realsize": str(1 << 40),
    }
    return info.tobuf(tarfile.PAX_FORMAT) + b"%d\n" % segments


@verifies("SEC-006")
@pytest.mark.parametrize(
    ("start", "filler"),
    [
        (_claiming(tarfile.XHDTYPE, 4 << 30), b"a"),
        (_claiming(tarfile.GNUTYPE_LONGNAME, 4 << 30), b"a"),
        (_claiming(tarfile.GNUTYPE_LONGLINK, 4 << 30), b"a"),
        (_sparse_claiming(10**12), b"1\n"),
    ],
    ids=["pax-header", "long-name", "long-link", "sparse-map"],
)
def test_headers_that_announce_gigabytes(graphdriver: Subject, start: bytes, filler: bytes) -> None:
    """The archive is refused with most of the filler unread, and the layer can be removed."""
    id = graphdriver.new_layer()
    bomb = _Bomb(start, filler)

    graphdriver.refuses("apply_diff", id, "", bomb)

    if graphdriver.source.in_process:
        # A server reads on after a refusal, so that its client receives the error.
        assert bomb.left, "64 MiB of it were read before it was refused"
    graphdriver.remove(id)


@verifies("SEC-006")
def test_header_that_announces_a_file_of_gigabytes(graphdriver: Subject) -> None:
    """The header declares 7 GiB, 1 KiB follows: an error, and the layer can be removed."""
    id = graphdriver.new_layer()
    archive = _claiming(tarfile.REGTYPE, 7 << 30) + bytes(1024)

    graphdriver.refuses("apply_diff", id, "", io.BytesIO(archive))

    graphdriver.remove(id)
    assert not graphdriver.exists(id)


@verifies("SEC-009")
def test_deep_paths_do_not_crash(graphdriver: Subject) -> None:
    """Two thousand levels: applied completely or refused."""
    layer = graphdriver.new_layer()
    name = b"/".join([b"d"] * 2000)

    _try(graphdriver, layer, build_archive([LayerEntry(name + b"/f", file(b"x"))]))

    graphdriver.remove(layer)
    assert not graphdriver.exists(layer)


@verifies("SEC-010")
def test_names_of_owners_are_ignored(graphdriver: Subject) -> None:
    """The owner uid 1234 with the name root is uid 1234."""
    info = tarfile.TarInfo("f")
    info.uid, info.gid, info.uname, info.gname = 1234, 1235, "root", "root"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info)
    layer = graphdriver.new_layer()

    graphdriver.apply_diff(layer, graphdriver.parent_of(layer), buffer.getvalue())

    tree = graphdriver.tree(layer)
    assert b"f" in tree, "the file is missing"
    assert (tree[b"f"].uid, tree[b"f"].gid) == (1234, 1235)


@verifies("SEC-013")
@given(places=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=8))
@examples(30)
def test_archives_with_changed_bytes_change_nothing_outside(
    graphdriver: Subject, places: list[tuple[int, int]]
) -> None:
    """Checksums are corrected, so that more than the checksum is tested."""
    base = Tree.of({"d/a": b"a", "top": b"t"})
    entries = [
        entry_of("d", directory()),
        entry_of("d/new", file(b"x" * 700)),
        entry_of("s", symlink("d")),
        whiteout("top"),
        entry_of("h", file(), b"d/new"),
    ]
    data = bytearray(build_archive(entries))
    for place, value in places:
        data[place % len(data)] = value
    for start in range(0, len(data) - 512, 512):
        _mend(data, start)
    outside = graphdriver.home.parent
    before = {path.name for path in outside.iterdir()}
    parent = graphdriver.build(base)

    _try(graphdriver, graphdriver.new_layer(parent), bytes(data))

    assert_same_names(before, [path.name for path in outside.iterdir()], "beside the home")
    assert_same_tree(base, graphdriver.tree(parent), "the parent changed")


_NUMBERS = (b"--5", b"-5", b"+", b"1_0", b"0x1", b"9" * 20, b"1.2.3", "\u0663".encode(), b"")
_TEXTS = (b"", b"a\0b", b"..", b"/", b"./.", b"x" * 300, b"\xff\n", b"../" * 30 + b"etc/passwd")
_RECORDS = [
    *(
        (key, value)
        for key in (b"uid", b"gid", b"mtime", b"size", b"atime", b"GNU.sparse.realsize")
        for value in _NUMBERS
    ),
    *((key, value) for key in (b"path", b"linkpath", b"GNU.sparse.name") for value in _TEXTS),
    *((b"GNU.sparse.map", value) for value in (b"", b"1", b"0,9,3", b"5,1,0,1", b"--1,2")),
    *((key, b"x") for key in (b"", b"SCHILY.xattr.", b"SCHILY.xattr.user.a\0b")),
]


@verifies("SEC-013")
def test_records_with_impossible_values(graphdriver: Subject) -> None:
    """PAX records of a file, of a symlink, and of sparse files."""
    before = _state(graphdriver.home.parent)
    layer = ""
    for number, (key, value) in enumerate(_RECORDS):
        sparse = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
        is_sparse = key.startswith(b"GNU.") and key != b"GNU.sparse.map"
        records = [*(sparse if is_sparse else []), (key, value)]
        header = Header(b"f", b"2" if key == b"linkpath" else b"0", link=b"to")
        archive = extended(records) + header.block() + END
        layer = graphdriver.new_layer()

        _try(graphdriver, layer, archive)

        if number % 16 == 0:
            graphdriver.tree(layer)
    assert_same_names(before, _state(graphdriver.home.parent), "beside the home")
    graphdriver.remove(layer)


def _mend(data: bytearray, start: int) -> None:
    """Write the correct checksum into a block with a header's magic."""
    block = data[start : start + 512]
    if block[257:262] == b"ustar":
        total = sum(block) - sum(block[148:156]) + 256
        data[start + 148 : start + 156] = b"%06o\0 " % total
