"""DIF-001 to DIF-015: the archive of a layer."""

import shutil
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import archive_findings, read_archive
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.strategies import successors, trees
from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree, device, directory, fifo, file
from graphdriver_conformance.suite.support.effort import examples
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    assert_same_sequence,
    assert_there,
)

IMAGE = Tree.of({"d/a": b"a", "d/b": b"b", "e/sub/c": b"c", "top": b"top"})


def _edited(graphdriver: Subject) -> tuple[str, str]:
    """Return a base and a child that adds, changes, deletes and replaces files."""
    base = graphdriver.build(IMAGE)
    new = Tree.of({"d/a": b"changed", "e": file(b"now a file"), "new/deep/x": b"x"})
    return base, graphdriver.build(new, base)


@verifies("DIF-001")
@given(data=st.data(), old=trees())
@examples(10)
def test_diff_is_a_tar_archive(graphdriver: Subject, data: st.DataObject, old: Tree) -> None:
    """Complete blocks, two blocks of zeros at the end, and readable by an independent reader."""
    base = graphdriver.build(old)
    layer = graphdriver.build(data.draw(successors(old)), base)

    archive = graphdriver.diff_bytes(layer, base)

    assert len(archive) % 512 == 0, f"{len(archive)} bytes are not a multiple of 512"
    assert not archive[-1024:].strip(b"\0"), "it does not end with two blocks of zeros"
    read_archive(archive)


@verifies("DIF-003")
@given(data=st.data(), old=trees(12))
@examples(40)
def test_archive_means_the_layers_tree(
    graphdriver: Subject, data: st.DataObject, old: Tree
) -> None:
    """The oracle applies the archive to the model of the parent, according to the image-spec."""
    new = data.draw(successors(old, 8))
    base = graphdriver.build(old)
    layer = graphdriver.build(new, base)

    archive = graphdriver.diff_bytes(layer, base)

    meant = apply_layer(old, read_archive(archive))
    assert_same_tree(new, meant, "the archive does not result in the layer's tree")


def _untouched(graphdriver: Subject, special: Mapping[bytes, Node]) -> None:
    """A file is added to a directory with sixty files and special files; none is deleted."""
    plain = Tree.of({f"f{number}": b"x" for number in range(60)})
    old = Tree({**plain, **special})
    base = graphdriver.build(old)
    layer = graphdriver.build(old.with_(b"new", file()), base)

    names = {entry.name for entry in read_archive(graphdriver.diff_bytes(layer, base))}

    assert {name for name in names if b".wh." in name} == set(), "it deletes unchanged files"
    assert_there([b"new"], {name.removeprefix(b"./") for name in names}, "the archive")


@verifies("DIF-003")
def test_untouched_neighbours_in_a_large_directory(graphdriver: Subject) -> None:
    """A fifo in a directory of more than forty entries is kept."""
    _untouched(graphdriver, {b"pipe": fifo()})


@verifies("ARC-009")
def test_untouched_devices_in_a_large_directory(graphdriver: Subject) -> None:
    """Docker on fuse-overlayfs deleted a device in a directory of more than forty entries."""
    devices = {
        b"block": device(NodeKind.BLOCK, 7, 200),
        b"character": device(NodeKind.CHARACTER, 1, 3),
    }
    _untouched(graphdriver, devices)


@verifies("DIF-004")
@given(data=st.data(), old=trees())
@examples(10)
def test_diff_without_a_parent_is_everything(
    graphdriver: Subject, data: st.DataObject, old: Tree
) -> None:
    """A base layer and a chain of three are tested."""
    base = graphdriver.build(old)
    middle = graphdriver.build(data.draw(successors(old)), base)
    new = data.draw(successors(graphdriver.tree(middle)))
    layer = graphdriver.build(new, middle)

    for id, tree in ((base, old), (layer, new)):
        entries = read_archive(graphdriver.diff_bytes(id))
        assert_same_tree(tree, apply_layer(Tree(), entries), f"of layer {id}")
        assert not [e.name for e in entries if b".wh." in e.name], (
            "the flattened diff has whiteouts"
        )


@verifies("DIF-005")
@given(data=st.data(), old=trees())
@examples(10)
def test_diff_against_a_grandparent(graphdriver: Subject, data: st.DataObject, old: Tree) -> None:
    """The diff against the grandparent, applied to its tree, results in the layer's tree."""
    base = graphdriver.build(old)
    between = data.draw(successors(old))
    new = data.draw(successors(between))
    layer = graphdriver.build(new, graphdriver.build(between, base))

    entries = read_archive(graphdriver.diff_bytes(layer, base))

    assert_same_tree(new, apply_layer(old, entries))


@verifies("DIF-006")
def test_diff_is_repeatable(graphdriver: Subject) -> None:
    """The diff is taken before, between and after mounts, and after a remount."""
    base, layer = _edited(graphdriver)
    first = graphdriver.diff_bytes(layer, base)

    with graphdriver.view(layer) as root:
        observe(root)
        _assert_same_archive(first, graphdriver.diff_bytes(layer, base), "while it is held")
    _assert_same_archive(first, graphdriver.diff_bytes(layer, base), "after it was held")


def _assert_same_archive(first: bytes, again: bytes, when: str) -> None:
    if first != again:
        assert_same_sequence(read_archive(first), read_archive(again), f"other members {when}")
        shared = min(len(first), len(again))
        place = next((n for n in range(shared) if first[n] != again[n]), shared)
        raise AssertionError(f"the same members, {when} in other bytes, from byte {place} on")


@verifies("DIF-007")
def test_diff_of_an_empty_layer(graphdriver: Subject) -> None:
    """The archive may contain the root; it has no other members."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base)

    entries = read_archive(graphdriver.diff_bytes(layer, base))

    held = sorted(one.name for one in entries if one.name.strip(b"./"))
    assert not held, f"it holds {held}"


@verifies("DIF-008")
@pytest.mark.parametrize(("id", "parent"), [("nope", ""), ("nope", "BASE"), ("BASE", "nope")])
def test_diff_of_unknown_layers_is_an_error(graphdriver: Subject, id: str, parent: str) -> None:
    """Docker pushed a valid empty archive as the layer."""
    base = graphdriver.build(IMAGE)

    graphdriver.refuses("diff", id.replace("BASE", base), parent.replace("BASE", base))


@verifies("DIF-009")
def test_closing_early_releases_everything(graphdriver: Subject) -> None:
    """The stream is closed at the start, within a file, and unread; then the layer is removed."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(Tree.of({"big": b"x" * (1 << 21), "top": b"2"}), base)
    for parent in (base, ""):
        for read in (0, 1, 600, 1 << 20):
            with graphdriver.diff(layer, parent) as stream:
                stream.read(read)
            assert graphdriver.mounts() == [], f"closed after {read} bytes, mounts are left"

    graphdriver.remove(layer)

    assert not graphdriver.exists(layer)


@verifies("DIF-014")
def test_new_directories_keep_mode_and_owner(graphdriver: Subject) -> None:
    """A new directory, a recreated one, and one with a changed mode are tested."""
    old = Tree.of({"again/x": b"old", "changed/x": b"kept"})
    new = Tree.of(
        {
            "again": directory(0o2750),
            "again/y": b"new",
            "changed": directory(0o1777),
            "changed/x": b"kept",
            "fresh": directory(0o700),
            "fresh/z": b"",
        }
    )
    base = graphdriver.build(old)
    layer = graphdriver.new_layer(base)
    with graphdriver.view(layer) as root:
        shutil.rmtree(root / "again")
    graphdriver.fill(layer, new)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(new, graphdriver.tree(sibling), "in the sibling")


@verifies("DIF-015")
def test_renamed_and_chmodded_nodes_are_complete(graphdriver: Subject) -> None:
    """A directory is moved, another one is moved into a new one, a file becomes executable."""
    old = Tree.of({"a/sub/f": b"moved", "b/g": b"nested", "tool": b"#!" * 5000, "keep/h": b""})
    base = graphdriver.build(old)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        # As mv(1) does: a rename, or a copy if the kernel returns EXDEV.
        shutil.move(root / "a", root / "moved")
        (root / "new").mkdir()
        shutil.move(root / "b", root / "new" / "b")
        (root / "tool").chmod(0o755)
    whole = graphdriver.tree(layer)
    assert_there([b"moved/sub/f", b"new/b/g", b"tool"], whole, "after mv the layer")
    assert whole[b"moved/sub/f"].content == b"moved", "moved/sub/f, in the layer"
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(whole, graphdriver.tree(sibling), "in the sibling")


@verifies("DIF-010")
@given(data=st.data(), old=trees(12))
@examples(15)
def test_members_are_in_order(graphdriver: Subject, data: st.DataObject, old: Tree) -> None:
    """Normalized names, no duplicates, every directory before its entries."""
    base = graphdriver.build(old)
    layer = graphdriver.build(data.draw(successors(old)), base)

    archive = graphdriver.diff_bytes(layer, base)

    assert archive_findings(archive) == []
    seen: list[bytes] = []
    for entry in read_archive(archive):
        name = entry.path
        early = [one for one in seen if one.startswith(name + b"/")] if name else []
        assert not early, f"{early[0]!r} comes before its directory {name!r}"
        seen.append(name)


@verifies("DIF-011")
def test_deletions_are_whiteouts(graphdriver: Subject) -> None:
    """Files and directories in the root and in directories are deleted; twelve share an inode."""
    old = Tree.of({**{f"d/f{n}": b"" for n in range(12)}, "gone/x": b"", "top": b"", "d/kept": b""})
    base = graphdriver.build(old)
    layer = graphdriver.build(Tree.of({"d/kept": b""}), base)

    entries = {
        e.name.removeprefix(b"./"): e for e in read_archive(graphdriver.diff_bytes(layer, base))
    }

    wanted = {b".wh.gone", b".wh.top", *(b"d/.wh.f%d" % n for n in range(12))}
    markers = {name for name in entries if b".wh." in name}
    assert_same_names(wanted, markers, "the whiteouts")
    for name in markers:
        entry = entries[name]
        assert entry.hardlink is None, f"{name!r} is a hard link"
        assert (entry.node.kind.value, entry.node.content) == ("file", b""), f"{name!r}"


@verifies("DIF-012")
def test_whiteouts_come_first(graphdriver: Subject) -> None:
    """Names that sort before and after `.wh.`."""
    old = Tree.of({"d/a": b"", "d/z": b"", "d/-": b""})
    base = graphdriver.build(old)
    layer = graphdriver.build(Tree.of({"d/-": b"2", "d/z": b"2", "d/0": b""}), base)

    entries = read_archive(graphdriver.diff_bytes(layer, base))
    names = [e.name.removeprefix(b"./") for e in entries]

    inside = [name[2:] for name in names if name.startswith(b"d/") and name != b"d/"]
    assert inside, "the archive has no member in d"
    assert inside[0] == b".wh.a", f"in d: {inside}"


@verifies("DIF-013")
def test_private_marks_are_not_exported(graphdriver: Subject) -> None:
    """After copy-ups and deletions, with a recreated and a renamed directory."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)
    graphdriver.fill(layer, Tree.of({"top": b"top"}))
    graphdriver.fill(layer, Tree.of({"d/new": b"", "e": directory(), "top": file(b"top", 0o600)}))

    for entry in read_archive(graphdriver.diff_bytes(layer, base)):
        private = [k for k, _ in entry.node.xattrs if ".overlay." in k or k.startswith("trusted.")]
        assert not private, f"{entry.name!r} carries {private}"
        base_name = entry.name.rpartition(b"/")[2]
        marker = base_name.startswith(b".wh..wh.") and base_name != b".wh..wh..opq"
        assert not marker, f"{entry.name!r} is a marker of aufs"
