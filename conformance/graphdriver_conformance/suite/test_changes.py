"""CHG: changes. The oracle computes the differences of two known trees, which the driver must
report.
"""

import itertools
import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Change, ChangeKind
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import read_archive
from graphdriver_conformance.oracle.changes import change_findings, expected_changes
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.strategies import successors, trees
from graphdriver_conformance.oracle.tree import (
    EPOCH,
    Node,
    NodeKind,
    Tree,
    device,
    directory,
    fifo,
    file,
    symlink,
)
from graphdriver_conformance.suite.support.effort import examples
from graphdriver_conformance.suite.support.metadata_changes import (
    changed_capabilities,
    changed_devices,
    changed_owners,
)
from graphdriver_conformance.suite.support.names import assert_same_sequence, assert_there

IMAGE = Tree.of({"d/a": b"a", "d/b": b"b", "e/sub/c": b"c", "top": b"top"})


def _assert_changes(
    graphdriver: Subject, old: Tree | None, new: Tree, id: str, parent: str
) -> None:
    reported = graphdriver.changes(id, parent)
    findings = change_findings(old, new, reported)
    shown = ", ".join(map(str, reported))
    assert not findings, "\n  ".join([f"changes reported: {shown}", *findings])


def _check(graphdriver: Subject, old: Tree, *steps: Tree) -> None:
    """Build `old` and a layer that takes the trees of `steps`, of which the last is compared."""
    base = graphdriver.build(old)
    layer = graphdriver.new_layer(base, writable=True)
    for step in steps:
        graphdriver.fill(layer, step)
    _assert_changes(graphdriver, old, steps[-1], layer, base)


@verifies("CHG-001")
def test_empty_layer_has_no_changes(graphdriver: Subject) -> None:
    """A new layer is tested before and after a mount."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)

    assert graphdriver.changes(layer, base) == [], "a new layer has changes"
    with graphdriver.view(layer):
        pass
    assert graphdriver.changes(layer, base) == [], "mounting alone is reported as a change"


@verifies("CHG-002")
def test_added_modified_and_deleted_files(graphdriver: Subject) -> None:
    """The twenty files of graphtest, added, modified and deleted in rotation."""
    old = Tree.of({f"dir/file-{n}": b"old" for n in range(20)})
    new = old
    for number in range(20):
        name = b"dir/file-%d" % number
        if number % 3 == 0:
            new = new.with_(name, file(b"modified"))
        elif number % 3 == 1:
            new = new.without(name)
        else:
            new = new.with_(b"dir/added-%d" % number, file(b"added"))
    base = graphdriver.build(old)
    layer = graphdriver.build(new, base)

    _assert_changes(graphdriver, old, new, layer, base)
    assert Change(b"/dir", ChangeKind.MODIFY) in graphdriver.changes(layer, base), (
        "changes has no row C /dir, though names in it were added and deleted"
    )


@verifies("CHG-003")
@given(data=st.data(), tree=trees())
@examples(10)
def test_without_a_parent_every_path_is_added(
    graphdriver: Subject, data: st.DataObject, tree: Tree
) -> None:
    """A base layer and a chain are tested."""
    base = graphdriver.build(tree)
    new = data.draw(successors(tree))
    layer = graphdriver.build(new, base)

    _assert_changes(graphdriver, None, tree, base, "")
    _assert_changes(graphdriver, None, new, layer, "")


@verifies("CHG-004")
def test_paths_are_normalized_and_unique(graphdriver: Subject) -> None:
    """No blank or duplicate rows, no root, no markers, no trailing slashes."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(Tree.of({"d": directory(0o700), "new/x": b"", "top": b"2"}), base)

    paths = [change.path for change in graphdriver.changes(layer, base)]

    twice = sorted(path for path, count in Counter(paths).items() if count > 1)
    assert not twice, f"listed more than once: {twice}"
    for path in paths:
        clean = path.startswith(b"/") and path != b"/" and b"//" not in path + b"/"
        assert clean, f"{path!r} is not a normalized absolute path"
        assert not os.path.basename(path).startswith(b".wh."), f"{path!r} is a marker"


@verifies("CHG-005")
def test_kinds_are_modify_add_delete(graphdriver: Subject) -> None:
    """The values are those of the plugin protocol."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(Tree.of({"d/a": b"changed", "new": b""}), base)

    kinds = {change.path: change.kind for change in graphdriver.changes(layer, base)}

    wanted = {b"/d/a": 0, b"/new": 1, b"/top": 2}
    assert_there(wanted, kinds, "changes")
    for path, kind in wanted.items():
        assert kinds[path] == kind, f"the kind of {path.decode()}"


@verifies("CHG-006")
def test_deleted_directory_is_one_row(graphdriver: Subject) -> None:
    """A deleted directory is one row, not one row for each of its files."""
    _check(graphdriver, IMAGE, IMAGE.without(b"e"))


@verifies("CHG-007")
def test_new_directory_is_added(graphdriver: Subject) -> None:
    """Some kernels mark every new directory as opaque."""
    new = IMAGE.with_(b"d/new", directory()).with_(b"d/new/deep", file(b"x"))
    _check(graphdriver, IMAGE, new.with_(b"empty", directory()))


@verifies("CHG-008")
def test_directory_made_again(graphdriver: Subject) -> None:
    """Of the old entries one is recreated with another content; there is one new entry."""
    old = Tree.of({"d/gone": b"1", "d/back": b"1", "d/sub/deep": b"1", "top": b""})
    new = Tree.of({"d/back": b"two", "d/new": b"2", "top": b""})

    _check(graphdriver, old, Tree.of({"top": b""}), new)


@verifies("CHG-009")
@pytest.mark.parametrize(
    ("old", "new"),
    list(itertools.permutations([file(b"f"), directory(), symlink("top")], 2)),
    ids=lambda node: node.kind.value,
)
def test_changed_type_is_reported(graphdriver: Subject, old: Node, new: Node) -> None:
    """The result is one modification, or a deletion and an addition."""
    before, after = Tree.of({"x": old}), Tree.of({"x": new})
    _check(graphdriver, before, Tree(), after)


@verifies("CHG-010")
def test_changed_mode_is_reported(graphdriver: Subject) -> None:
    """The mode of a file, an executable and a directory is changed."""
    old = Tree.of({"file": b"x", "tool": file(b"x", 0o755), "dir/x": b""})
    new = old.with_(b"file", file(b"x", 0o600)).with_(b"tool", file(b"x", 0o4755))

    _check(graphdriver, old, new.with_(b"dir", directory(0o700)))


@verifies("CHG-025")
def test_changed_owner_is_reported(graphdriver: Subject) -> None:
    """The user, the group or both, of a file, a directory, a symlink and a fifo."""
    _check(graphdriver, *changed_owners())


@verifies("CHG-026")
def test_changed_capability_is_reported(graphdriver: Subject) -> None:
    """One is added, one is removed, and one is replaced."""
    _check(graphdriver, *changed_capabilities(graphdriver))


@verifies("CHG-027")
def test_changed_device_numbers_are_reported(graphdriver: Subject) -> None:
    """The major or the minor number, of a character and a block device."""
    _check(graphdriver, *changed_devices())


@verifies("CHG-011")
def test_symlink_with_a_new_target(graphdriver: Subject) -> None:
    """Length and mtime are unchanged."""
    _check(graphdriver, Tree.of({"current": symlink("v1")}), Tree.of({"current": symlink("v2")}))


@verifies("CHG-012")
def test_edit_that_keeps_size_and_time(graphdriver: Subject) -> None:
    """Only the content differs."""
    _check(graphdriver, Tree.of({"a": b"one", "b": b"x"}), Tree.of({"a": b"two", "b": b"x"}))


@verifies("CHG-013")
def test_edits_within_a_second(graphdriver: Subject) -> None:
    """Each of five layers changes a file without a change of its size in the same second."""
    tree = Tree.of({"log": file(b"0")})
    parent = graphdriver.build(tree)
    for number in range(1, 6):
        new = Tree.of({"log": file(b"%d" % number, mtime=EPOCH)})
        layer = graphdriver.build(new, parent)
        _assert_changes(graphdriver, tree, new, layer, parent)
        tree, parent = new, layer


@verifies("CHG-014")
def test_name_recreated_after_a_whiteout_below(graphdriver: Subject) -> None:
    """The whiteout of the middle layer is not a file."""
    first = graphdriver.build(Tree.of({"x": b"1", "y": b""}))
    second = graphdriver.build(Tree.of({"y": b""}), first)
    third = graphdriver.build(Tree.of({"x": b"3", "y": b""}), second)

    rows = graphdriver.changes(third, second)
    assert_same_sequence([Change(b"/x", ChangeKind.ADD)], rows, "changes")


@verifies("CHG-015")
def test_file_replaced_by_a_full_directory(graphdriver: Subject) -> None:
    """lstat of base/x/y fails with ENOTDIR, which means that the file does not exist."""
    old = Tree.of({"x": b"file", "d/x": b"file"})
    new = Tree.of({"x/y": b"inside", "d/x/deep/y": b"inside"})

    _check(graphdriver, old, new)


@verifies("CHG-016")
def test_against_a_grandparent(graphdriver: Subject) -> None:
    """A change of the middle layer that the upper layer reverts is not a change."""
    first = Tree.of({"kept": b"1", "gone": b"1", "undone": b"1"})
    second = Tree.of({"kept": b"1", "undone": b"2", "middle": b"2"})
    third = Tree.of({"kept": b"1", "undone": b"1", "middle": b"2", "new": b"3"})
    a = graphdriver.build(first)
    b = graphdriver.build(second, a)
    c = graphdriver.build(third, b)

    _assert_changes(graphdriver, first, third, c, a)


@verifies("CHG-017")
def test_against_an_unrelated_layer(graphdriver: Subject) -> None:
    """Right or refused."""
    one, other = Tree.of({"a": b"1", "same": b"s"}), Tree.of({"b": b"2", "same": b"s"})
    layer, unrelated = graphdriver.build(one), graphdriver.build(other)

    try:
        reported = graphdriver.changes(layer, unrelated)
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return
    assert change_findings(other, one, reported) == [], "changes against an unrelated layer"


@verifies("CHG-018")
def test_changes_changes_nothing(graphdriver: Subject) -> None:
    """The layer is held and not held; the holder's view stays."""
    base = graphdriver.build(IMAGE)
    new = Tree.of({"d/a": b"changed", "d/b": b"b", "new": b""})
    layer = graphdriver.build(new, base)

    _assert_changes(graphdriver, IMAGE, new, layer, base)
    assert graphdriver.mounts() == [], "changes left mounts"
    with graphdriver.view(layer) as root:
        _assert_changes(graphdriver, IMAGE, new, layer, base)
        assert_same_tree(new, observe(root), "changes unmounted or changed a held view")
    assert graphdriver.mounts() == [], "changes left mounts"


@verifies("CHG-019")
@given(data=st.data(), old=trees(12))
@examples(40)
def test_changes_between_any_two_trees(
    graphdriver: Subject, data: st.DataObject, old: Tree
) -> None:
    """Files are added, edited, replaced, linked and removed in random order."""
    new = data.draw(successors(old, 8))
    base = graphdriver.build(old)
    layer = graphdriver.build(new, base)

    reported = graphdriver.changes(layer, base)

    findings = change_findings(old, new, reported)
    assert not findings, "\n  ".join([f"from {old} to {new}", *findings])


@verifies("CHG-019")
def test_changes_in_a_large_directory(graphdriver: Subject) -> None:
    """A file is added to a directory with sixty files and a fifo."""
    old = Tree.of({**{f"f{n}": b"x" for n in range(60)}, "pipe": fifo()})

    _check(graphdriver, old, old.with_(b"new", file()))


@verifies("CHG-023")
def test_untouched_devices_are_no_change(graphdriver: Subject) -> None:
    """Docker on fuse-overlayfs deleted a device in a directory of more than forty entries."""
    devices = {b"blk": device(NodeKind.BLOCK, 7, 1), b"chr": device(NodeKind.CHARACTER, 1, 3)}
    old = Tree({**Tree.of({f"f{n}": b"x" for n in range(60)}), **devices})

    _check(graphdriver, old, old.with_(b"new", file()))


@verifies("CHG-020")
def test_copy_up_alone_is_no_change(graphdriver: Subject) -> None:
    """Files are opened for writing, moved and moved back, read, listed."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        with (root / "top").open("r+b") as opened:
            opened.read()
        (root / "d/a").rename(root / "d/z")
        (root / "d/z").rename(root / "d/a")
        (root / "e/sub/c").read_bytes()

    reported = [change for change in graphdriver.changes(layer, base) if change.path != b"/d"]

    assert reported == [], f"reported {', '.join(map(str, reported))}"


@verifies("CHG-021")
@pytest.mark.parametrize(("id", "parent"), [("nope", ""), ("nope", "BASE"), ("BASE", "nope")])
def test_unknown_layers_are_errors(graphdriver: Subject, id: str, parent: str) -> None:
    """An empty list would mean that there are no changes."""
    base = graphdriver.build(IMAGE)

    graphdriver.refuses("changes", id.replace("BASE", base), parent.replace("BASE", base))


@verifies("CHG-022")
@given(data=st.data(), old=trees())
@examples(15)
def test_changes_and_archive_agree(graphdriver: Subject, data: st.DataObject, old: Tree) -> None:
    """docker diff lists the same changes that docker commit stores."""
    new = data.draw(successors(old))
    base = graphdriver.build(old)
    layer = graphdriver.build(new, base)

    members = {entry.path for entry in read_archive(graphdriver.diff_bytes(layer, base))}
    missing = [
        name
        for name, kind in expected_changes(old, new).items()
        if kind is not ChangeKind.DELETE
        and name not in members
        and new[name].kind is not NodeKind.SOCKET
    ]

    assert not missing, f"changed, but not in the archive: {missing}"
