"""C-1 to C-12, C-50, C-51, C-67, C-68: deletions, and files with the name of a whiteout."""

import os
import shutil
import stat

import pytest

from graphdriver.errors import BadArchive, DriverError
from graphdriver_conformance.oracle.archive import LayerEntry, entry_of, opaque, whiteout
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import NodeKind, Tree, directory, file
from reference.archive.corners.layers import Layers

IMAGE = Tree.of({"d/a": b"a", "d/sub/b": b"b", "top": b"top"})
BOTH_ORDERS = pytest.mark.parametrize("marker_first", [True, False], ids=["before", "after"])


def _ordered(
    markers: list[LayerEntry], content: list[LayerEntry], marker_first: bool
) -> list[LayerEntry]:
    return markers + content if marker_first else content + markers


def test_c01_deleted_file_is_an_empty_file_named_wh(layers: Layers) -> None:
    base = layers.built(IMAGE)
    layer = layers.built(IMAGE.without(b"d/a"), base)

    entry = next(e for e in layers.entries(layer, base) if b".wh." in e.name)

    assert entry.name == b"d/.wh.a"
    assert (entry.node.kind, entry.node.content, entry.hardlink) == (NodeKind.FILE, b"", None)
    layers.assert_travels(layer, base)


def test_c02_deleted_directory_is_one_whiteout_and_one_row(layers: Layers) -> None:
    base = layers.built(IMAGE)
    layer = layers.built(IMAGE.without(b"d"), base)

    assert layers.names(layer, base) == [b".wh.d"]
    assert layers.shown(layer, base) == ["D /d"]


def test_c03_recreated_directory_hides_its_old_entries(layers: Layers) -> None:
    base = layers.built(IMAGE)
    layer = layers.new(base)
    with layers.view(layer) as root:
        shutil.rmtree(root / "d")
        (root / "d").mkdir(mode=0o700)
        (root / "d/new").write_bytes(b"new")

    assert set(layers.tree(layer)) - {b""} == {b"d", b"d/new", b"top"}
    layers.assert_travels(layer, base)
    assert layers.shown(layer, base) == ["C /d", "D /d/a", "A /d/new", "D /d/sub"]


def test_c04_opaque_mark_over_nothing_is_not_exported(layers: Layers) -> None:
    """Kernels from 4.10 to 5.13 set it on every new directory; so does redirect_dir."""
    base = layers.built(IMAGE)
    layer = layers.new(base)
    with layers.view(layer) as root:
        (root / "fresh").mkdir(mode=0o1770)
        (root / "fresh/file").touch()
    os.setxattr(layers.upper(layer) / "fresh", "trusted.overlay.opaque", b"y")

    assert layers.names(layer, base) == [b"fresh", b"fresh/file"]
    assert layers.shown(layer, base) == ["A /fresh", "A /fresh/file"]
    layers.assert_travels(layer, base)


@BOTH_ORDERS
def test_c05_whiteout_beside_its_directory_hides_the_lower_one(
    layers: Layers, marker_first: bool
) -> None:
    content = [entry_of("d", directory()), entry_of("d/new", file(b"new"))]

    tree = layers.applied(IMAGE, _ordered([whiteout("d")], content, marker_first))

    assert set(tree) - {b""} == {b"d", b"d/new", b"top"}


@BOTH_ORDERS
def test_c06_whiteout_beside_its_file_keeps_the_file(layers: Layers, marker_first: bool) -> None:
    entries = _ordered([whiteout("top")], [entry_of("top", file(b"new"))], marker_first)

    assert layers.applied(IMAGE, entries)[b"top"].content == b"new"


@BOTH_ORDERS
def test_c07_whiteout_below_a_whiteout_is_no_error(layers: Layers, marker_first: bool) -> None:
    entries = _ordered([whiteout("d")], [whiteout("d/a"), whiteout("d/sub/b")], marker_first)

    assert set(layers.applied(IMAGE, entries)) - {b""} == {b"top"}


def test_c08_whiteout_of_nothing_leaves_no_trace(layers: Layers) -> None:
    base = layers.built(IMAGE)
    layer = layers.new(base)

    layers.apply(layer, [whiteout("nope"), whiteout("d/nope"), whiteout("no/such"), opaque("no")])

    assert layers.changes(layer, base) == []
    assert [p for p in layers.upper(layer).rglob("*") if stat.S_ISCHR(p.lstat().st_mode)] == []
    assert_same_tree(IMAGE, layers.tree(layer))


@pytest.mark.parametrize("name", [b".wh.", b"d/.wh.", b"d/sub/.wh."])
def test_c09_bare_whiteout_is_refused(layers: Layers, name: bytes) -> None:
    layers.refuses(BadArchive, "whiteout of nothing", [LayerEntry(name, file())])


@pytest.mark.parametrize("name", [b".wh..", b".wh...", b"d/.wh..", b"d/.wh..."])
def test_c10_whiteout_of_dots_is_refused(layers: Layers, name: bytes) -> None:
    layers.refuses(BadArchive, "whiteout of nothing", [LayerEntry(name, file())])


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_c11_opaque_marker_counts_wherever_it_stands(layers: Layers, place: int) -> None:
    content = [
        entry_of("d", directory(0o711)),
        entry_of("d/new", file(b"new")),
        entry_of("d/sub/x", file(b"x")),
    ]

    tree = layers.applied(IMAGE, [*content[:place], opaque("d"), *content[place:]])

    assert set(tree) - {b""} == {b"d", b"d/new", b"d/sub", b"d/sub/x", b"top"}


@BOTH_ORDERS
def test_c12_opaque_root_hides_everything_below(layers: Layers, marker_first: bool) -> None:
    content = [entry_of("d", directory()), entry_of("d/new", file(b"new"))]
    base = layers.built(IMAGE)
    layer = layers.new(base)

    layers.apply(layer, _ordered([opaque("")], content, marker_first))

    assert set(layers.tree(layer)) - {b""} == {b"d", b"d/new"}
    layers.assert_travels(layer, base)


def test_c50_file_that_is_named_like_a_whiteout_is_refused_by_diff(layers: Layers) -> None:
    """podman #3582: a user's file .wh.passwd deleted root's passwd when the layer was applied."""
    base = layers.built(IMAGE)
    layer = layers.new(base)
    with layers.view(layer) as root:
        (root / ".wh.top").touch()

    with pytest.raises(DriverError, match=r"\.wh\.top.*would delete another"):
        layers.archive(layer, base)


def test_c51_markers_of_aufs_create_no_files(layers: Layers) -> None:
    names = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk/5.7", b"d/.wh..wh.tmp"]

    tree = layers.applied(IMAGE, [LayerEntry(name, file(b"x")) for name in names])

    assert_same_tree(IMAGE, tree)


def test_c67_whiteouts_that_share_an_inode_are_files_of_their_own(layers: Layers) -> None:
    """Since 5.8 the kernel links whiteouts to one inode; buildkit #4516 exported hard links."""
    old = Tree.of({f"d/f{n}": b"x" for n in range(5)})
    base = layers.built(old)
    layer = layers.built(Tree.of({"d": directory()}), base)
    inodes = {(layers.upper(layer) / f"d/f{n}").lstat().st_ino for n in range(5)}

    found = [e for e in layers.entries(layer, base) if b".wh." in e.name]

    assert len(inodes) == 1, "this kernel shares them"
    assert [(e.node.kind, e.hardlink) for e in found] == [(NodeKind.FILE, None)] * 5
    layers.assert_travels(layer, base)


def test_c68_whiteout_by_attribute_counts_as_one(layers: Layers) -> None:
    """Since 6.7 an empty file with an xattr is a whiteout if its directory has an xattr, too."""
    middle = layers.built(IMAGE, layers.built(IMAGE))
    marked = layers.upper(middle) / "d"
    marked.mkdir(exist_ok=True)
    (marked / "a").touch()
    os.setxattr(marked / "a", "trusted.overlay.whiteout", b"y")
    os.setxattr(marked, "trusted.overlay.opaque", b"x")
    layer = layers.new(middle)
    with layers.view(layer) as root:
        if (root / "d/a").exists():
            pytest.skip("this kernel has no whiteouts by attribute, it is older than 6.7")
        (root / "d/a").write_bytes(b"anew")

    assert layers.shown(layer, middle) == ["C /d", "A /d/a"]
    assert set(layers.names(layer, middle)) == {b"d", b"d/a"}
