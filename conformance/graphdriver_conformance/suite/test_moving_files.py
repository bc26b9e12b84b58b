"""DIF-016, DIF-017, SEC-005: files change while a layer is read, or while it is written to."""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import LayerEntry, build_archive, entry_of, read_archive
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Tree, file
from graphdriver_conformance.suite.support.beside import directory_beside

SIZE = 300_000


def _disturbed(
    graphdriver: Subject, disturb: Callable[[Path], None], size: int
) -> dict[bytes, LayerEntry] | None:
    """Return a layer's members if `m` was changed during its diff; None for an error."""
    base = graphdriver.build(Tree.of({"below": b""}))
    tree = Tree.of({"a": b"a" * SIZE, "m": b"m" * size, "z": b"z" * SIZE, "below": b""})
    layer = graphdriver.build(tree, base)
    with graphdriver.view(layer) as root, graphdriver.diff(layer, base) as stream:
        data = stream.read(600)
        disturb(root / "m")
        try:
            while chunk := stream.read(1 << 16):
                data += chunk
        except (DriverError, OSError) as error:
            graphdriver.note(f"ended with {error}")
            return None
    entries = {entry.name: entry for entry in read_archive(data)}
    whole = {name for name in (b"a", b"z") if name in entries and _is(entries[name], name, SIZE)}
    assert whole == {b"a", b"z"}, (
        f"the archive has a regular end, but of a and z it contains {sorted(whole)} only"
    )
    return entries


def _is(entry: LayerEntry, letter: bytes, size: int) -> bool:
    return entry.node.content == letter * size


@verifies("DIF-016")
@pytest.mark.parametrize("size", [1000, SIZE])
def test_file_that_vanishes_during_diff(graphdriver: Subject, size: int) -> None:
    """An error; or all other files are complete, and the file is complete or missing."""
    entries = _disturbed(graphdriver, os.unlink, size)

    if entries and b"m" in entries:
        assert _is(entries[b"m"], b"m", size), "the archive contains another file in its place"


@verifies("DIF-017")
@pytest.mark.parametrize("change", [-200_000, -1, 1, 50_000])
def test_file_that_is_written_during_diff(graphdriver: Subject, change: int) -> None:
    """An error; or the content that the file had at some time."""
    entries = _disturbed(graphdriver, lambda path: _resize(path, SIZE + change), SIZE)

    if entries and b"m" in entries:
        content = entries[b"m"].node.content
        assert not content.strip(b"m"), "the archive contains bytes that the file never had"
        assert len(content) in (SIZE, SIZE + change), f"it holds {len(content)} bytes"


def _resize(path: Path, size: int) -> None:
    with path.open("r+b") as opened:
        opened.truncate(min(size, SIZE))
        opened.seek(0, os.SEEK_END)
        opened.write(b"m" * max(0, size - SIZE))


class _Swapping(io.RawIOBase):
    """The archive arrives in small pieces; before each, a directory and a symlink are exchanged."""

    def __init__(self, data: bytes, root: Path, victim: Path) -> None:
        super().__init__()
        self._data, self._root, self._victim = io.BytesIO(data), root, victim

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._swap()
        chunk = self._data.read(min(len(buffer), 2048))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _swap(self) -> None:
        way, aside = self._root / "d", self._root / "aside"
        with suppress(OSError):
            if way.is_symlink():
                way.unlink()
                aside.rename(way)
            else:
                way.rename(aside)
                way.symlink_to(self._victim)


@verifies("SEC-005")
def test_symlink_swapped_in_while_an_archive_is_applied(graphdriver: Subject) -> None:
    """By a process in the held layer. An error is accepted; a change outside the layer is not."""
    outside = Tree.of({"f1": file(b"hello", 0o600), "sub/f": b"inner"})
    victim = directory_beside(graphdriver, "victim", outside)
    layer = graphdriver.new_layer(graphdriver.build(Tree.of({"below": b""})), writable=True)
    entries = [entry_of(f"d/f{number}", file(b"x" * 3000, 0o4777)) for number in range(40)]

    with graphdriver.view(layer) as root:
        (
            root / "d"
        ).mkdir()  # the layer's own: a lower directory cannot be renamed with all options
        stream = _Swapping(build_archive(entries), root, victim)
        try:
            graphdriver.apply_diff(
                layer, graphdriver.parent_of(layer), io.BufferedReader(stream, 2048)
            )
        except (DriverError, OSError) as error:
            graphdriver.note(f"refused: {error}")

    found = observe(os.fspath(victim))
    assert_same_tree(outside, found, "files outside changed", Aspect.ALL & ~Aspect.ROOT)
