"""C-58 to C-65, C-69, C-70: unusual and truncated streams, files that change during reading."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from graphdriver.contract import IDMap
from graphdriver.errors import BadArchive, UnmappedId
from graphdriver.linux.mounts import mountinfo
from graphdriver.overlay2 import Driver
from graphdriver_conformance.oracle.archive import build_archive, entry_of, whiteout
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Tree, directory, file
from reference.archive.corners.layers import ON_PLAIN_MOUNTS, Layers

IMAGE = Tree.of({"d/a": b"a", "top": b"top"})
ARCHIVE = build_archive(
    [entry_of("d", directory()), entry_of("d/new", file(b"n" * 3000)), whiteout("top")]
)


def test_c58_owner_without_a_map_ends_diff_and_apply(layers: Layers, tmp_path: Path) -> None:
    maps = [IDMap(0, 100_000, 1000)]
    driver = Driver(tmp_path / "mapped", (), maps, maps)
    driver.create("base")
    driver.create("layer", "base")

    with pytest.raises(UnmappedId, match="uid 1000 has no"):
        driver.apply_diff(
            "layer", "base", io.BytesIO(build_archive([entry_of("f", file(uid=1000))]))
        )
    assert os.listdir(tmp_path / "mapped/layer/diff") == []
    (tmp_path / "mapped/layer/diff/f").touch()  # owned by root outside of the id maps
    with driver.diff("layer", "base") as stream, pytest.raises(UnmappedId, match="uid 0 on disk"):
        stream.read()


def test_c58_whiteouts_survive_the_maps(layers: Layers, tmp_path: Path) -> None:
    maps = [IDMap(0, 100_000, 1000)]
    driver = Driver(tmp_path / "mapped", (), maps, maps)
    driver.create("base")
    driver.apply_diff("base", "", io.BytesIO(build_archive([entry_of("gone", file(uid=5))])))
    for id in ("layer", "sibling"):
        driver.create_read_write(id, "base")
    (driver.get("layer") / "gone").unlink()
    driver.put("layer")

    with driver.diff("layer", "base") as stream:
        driver.apply_diff("sibling", "base", stream)

    assert os.listdir(driver.get("sibling")) == []
    driver.cleanup()


@pytest.mark.parametrize("length", [0, 1024, 10240])
def test_c59_nothing_is_an_empty_layer(layers: Layers, length: int) -> None:
    base = layers.built(IMAGE)
    layer = layers.new(base)

    assert layers.apply(layer, bytes(length)) == 0
    assert layers.changes(layer, base) == []
    assert layers.archive(layer, base) == bytes(1024)


def test_c60_zeros_after_the_end_are_read_and_junk_is_refused(layers: Layers) -> None:
    layer = layers.new(layers.built(IMAGE))
    stream = io.BytesIO(ARCHIVE + bytes(1 << 20))

    layers.driver.apply_diff(layer, "", stream)

    assert stream.read() == b""
    layers.refuses(BadArchive, "follows the archive's end", ARCHIVE + bytes(512) + b"junk")


@ON_PLAIN_MOUNTS
def test_c60_endless_padding_is_refused(layers: Layers) -> None:
    class Endless(io.RawIOBase):
        """An archive, followed by zeros without end, from a single buffer."""

        zeros = bytes(64 << 20)
        start = ARCHIVE

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1, /) -> bytes:
            if self.start:
                piece, self.start = self.start, b""
                return piece
            return self.zeros

    layer = layers.new(layers.built(IMAGE))
    with pytest.raises(BadArchive, match=r"padding.*does not end"):
        layers.driver.apply_diff(layer, "", Endless())  # type: ignore[arg-type]
    assert_same_tree(IMAGE, layers.tree(layer))


@pytest.mark.parametrize("cut", [1, 511, 512, 513, 1024, 1536, 2048, 4608])
def test_c61_cut_stream_leaves_the_layer_as_it_was(layers: Layers, cut: int) -> None:
    assert cut < len(ARCHIVE.rstrip(b"\0")) + 512, "it ends before the end marker"

    layers.refuses(BadArchive, "too early", ARCHIVE[:cut])


@pytest.mark.parametrize(
    ("name", "compress"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)]
)
def test_c62_compressed_stream_is_refused_by_its_name(
    layers: Layers, name: str, compress: Callable[[bytes], bytes]
) -> None:
    layers.refuses(BadArchive, f"compressed with {name}", compress(ARCHIVE))


def test_c63_global_headers_are_passed_over(layers: Layers) -> None:
    """git archive writes one; its path= would apply to every member."""
    buffer = io.BytesIO()
    headers = {"comment": "0" * 40, "path": "elsewhere", "uid": "99"}
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers
    ) as t:
        t.addfile(tarfile.TarInfo("f"))

    tree = layers.applied(IMAGE, buffer.getvalue())

    assert set(tree) - {b""} == {b"d", b"d/a", b"f", b"top"}
    assert tree[b"f"].uid == 0


def _moves(layers: Layers, edit: Callable[[Path], object], words: str, size: int) -> None:
    """Edit a layer's file when a part of its archive is read; the rest must be an error."""
    base = layers.built(IMAGE)
    tree = IMAGE.with_(b"big", file(b"x" * size)).with_(b"a", file(b"a" * 70_000))
    layer = layers.built(tree, base)
    for parent in (base, ""):
        with layers.driver.diff(layer, parent) as stream:
            assert stream.read(600)
            with layers.view(layer) as root:
                edit(root / "big")
            with pytest.raises(OSError, match=words):
                deque(iter(partial(stream.read, 1 << 16), b""), maxlen=0)
            with pytest.raises(OSError, match=words):
                stream.read()
        layers.fill(layer, tree)
    assert mountinfo(layers.home) == [], "a failed diff keeps nothing mounted"


@pytest.mark.parametrize("size", [3000, 300_000])
def test_c64_file_that_vanishes_ends_the_stream(layers: Layers, size: int) -> None:
    _moves(layers, lambda path: path.unlink(), "No such file", size)


@pytest.mark.parametrize("size", [3000, 300_000])
def test_c64_file_that_became_something_else_ends_the_stream(layers: Layers, size: int) -> None:
    def edit(path: Path) -> None:
        path.unlink()
        path.symlink_to("/etc/passwd")

    _moves(layers, edit, "symbolic links", size)


@pytest.mark.parametrize("size", [3000, 300_000])
@pytest.mark.parametrize("change", [-1, -2000, 1, 5000])
def test_c65_file_that_grows_or_shrinks_ends_the_stream(
    layers: Layers, size: int, change: int
) -> None:
    _moves(layers, lambda p: os.truncate(p, size + change), "changed while the diff read it", size)


@pytest.fixture
def marked(layers: Layers) -> Iterator[str]:
    """A layer for tests that set inode flags, which would remain after a failed test."""
    yield layers.built(Tree.of({"d/f": b"x", "d/g": b"y"}), layers.built(IMAGE))
    subprocess.run(["chattr", "-R", "-ia", layers.home], check=False, capture_output=True)


@pytest.mark.parametrize("flag", ["i", "a"])
def test_c69_immutable_files_can_be_removed(layers: Layers, marked: str, flag: str) -> None:
    for name in ("d/f", "d"):
        command = ["chattr", f"+{flag}", str(layers.upper(marked) / name)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this file system keeps no such flags")

    layers.driver.remove(marked)

    assert not layers.driver.exists(marked)
    assert [path.name for path in layers.home.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("held", [True, False], ids=["held", "put"])
def test_c70_mounts_of_others_in_a_layer_are_not_deleted_through(
    layers: Layers, held: bool, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    base = layers.built(IMAGE)
    layer = layers.new(base)
    view = layers.driver.get(layer)
    subprocess.run(["mount", "--bind", victim, view / "d"], check=True)
    subprocess.run(["mount", "--bind", victim, layers.upper(base) / "d"], check=True)

    if not held:
        layers.driver.put(layer)
        layers.driver.remove(layer)
    else:  # the holder has died
        Driver(layers.home).remove(layer)
    layers.driver.remove(base)

    assert os.listdir(victim) == ["precious"]
    assert set(observe(victim)) == {b"", b"precious"}
    assert mountinfo(layers.home) == []
