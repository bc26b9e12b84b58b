"""The oracle is tested by laws, with GNU tar and with a real directory, never with a driver."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphdriver import Change, ChangeKind
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    UnreadableArchive,
    archive_findings,
    build_archive,
    entry_of,
    opaque,
    read_archive,
    whiteout,
)
from graphdriver_conformance.oracle.changes import change_findings, expected_changes
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree, differences
from graphdriver_conformance.oracle.layer import apply_layer, make_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import plant, rebuild
from graphdriver_conformance.oracle.strategies import successors, trees
from graphdriver_conformance.oracle.tree import Tree, directory, file

on_disk = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
pairs = trees().flatmap(lambda old: st.tuples(st.just(old), successors(old)))
numbers = itertools.count()
WITHOUT_LINKS = Aspect.ALL & ~Aspect.HARDLINKS


@given(pairs, st.booleans())
def test_layer_between_two_trees_turns_one_into_the_other(
    pair: tuple[Tree, Tree], use_opaque: bool
) -> None:
    old, new = pair

    assert (
        differences(
            new, apply_layer(old, make_layer(old, new, use_opaque=use_opaque)), WITHOUT_LINKS
        )
        == []
    )


@given(pairs, st.randoms(use_true_random=False))
def test_order_of_whiteouts_does_not_matter(pair: tuple[Tree, Tree], random: object) -> None:
    old, new = pair
    layer = make_layer(old, new, use_opaque=True)
    markers = [entry for entry in layer if b".wh." in entry.name]
    content = [entry for entry in layer if b".wh." not in entry.name]

    assert differences(apply_layer(old, layer), apply_layer(old, content + markers)) == []


@given(trees())
def test_a_tree_does_not_differ_from_itself(tree: Tree) -> None:
    assert make_layer(tree, tree) == [] or any(node.link for node in tree.values())
    assert expected_changes(tree, tree) == {}
    assert differences(tree, tree, Aspect.ALL) == []


@given(trees())
def test_archive_is_unchanged_after_a_round_trip(tree: Tree) -> None:
    entries = make_layer(Tree(), tree)

    data = build_archive(entries)

    assert archive_findings(data) == []
    assert differences(tree, apply_layer(Tree(), read_archive(data)), WITHOUT_LINKS) == []


@on_disk
@given(trees())
def test_planted_tree_is_observed_as_it_is(tmp_path: Path, tree: Tree) -> None:
    root = tmp_path / str(next(numbers))
    root.mkdir()

    plant(_mine(tree), root)

    assert_same_tree(_mine(tree), observe(root), aspects=Aspect.ALL)


@on_disk
@given(pairs)
def test_rebuilt_tree_is_observed_as_it_is(tmp_path: Path, pair: tuple[Tree, Tree]) -> None:
    old, new = map(_mine, pair)
    root = tmp_path / str(next(numbers))
    root.mkdir()
    plant(old, root)

    rebuild(old, new, root)

    assert_same_tree(new, observe(root), aspects=Aspect.ALL)


@on_disk
@given(trees())
def test_gnu_tar_unpacks_the_tree_of_the_model(tmp_path: Path, tree: Tree) -> None:
    root = tmp_path / str(next(numbers))
    root.mkdir()
    data = build_archive(make_layer(Tree(), _mine(tree)))

    subprocess.run(["tar", "-C", root, "-xpf", "-"], input=data, check=True, capture_output=True)

    assert_same_tree(_mine(tree), observe(root), aspects=Aspect.DEFAULT | Aspect.HARDLINKS)


def _mine(tree: Tree) -> Tree:
    """Return the tree with the owner replaced by the user of the test, who may not be root."""
    uid, gid = os.getuid(), os.getgid()
    return Tree({name: node.but(uid=uid, gid=gid) for name, node in tree.items()})


def test_whiteout_does_not_delete_members_of_its_own_layer() -> None:
    below = Tree.of({"d/old": b"old"})

    tree = apply_layer(
        below, [entry_of("d", directory()), entry_of("d/new", file(b"")), whiteout("d")]
    )

    assert set(tree) == {b"", b"d", b"d/new"}


def test_opaque_root_hides_everything_below() -> None:
    assert set(apply_layer(Tree.of({"old": b""}), [opaque(""), entry_of("new", file())])) == {
        b"",
        b"new",
    }


GONE = Change(b"/gone", ChangeKind.DELETE)


@pytest.mark.parametrize(
    ("reported", "finding"),
    [
        ([GONE], "expected A /new"),
        ([Change(b"/new", ChangeKind.DELETE), GONE], "reported DELETE"),
        ([Change(b"", ChangeKind.MODIFY)], "malformed"),
        ([Change(b"/other", ChangeKind.ADD)], "nothing happened there"),
    ],
)
def test_untrue_changes_are_found(reported: list[Change], finding: str) -> None:
    old, new = Tree.of({"gone": b""}), Tree.of({"new": b""})

    assert any(finding in line for line in change_findings(old, new, reported))


def test_true_changes_have_no_findings() -> None:
    old, new = Tree.of({"d/gone": b"", "d/same": b""}), Tree.of({"d/new": b"", "d/same": b""})
    reported = [
        Change(b"/d", ChangeKind.MODIFY),
        Change(b"/d/new", ChangeKind.ADD),
        Change(b"/d/gone", ChangeKind.DELETE),
    ]

    assert change_findings(old, new, reported) == []


@pytest.mark.parametrize("member", [entry_of("l", file()), entry_of("l", file(), b"f")])
def test_marker_through_a_symlink_whose_directory_is_replaced_deletes_nothing(
    member: LayerEntry,
) -> None:
    below = Tree.of({"b/x": b"x", "f": b"f", "l/t": "../b"})

    for entries in ([whiteout("l/t/x"), member], [member, whiteout("l/t/x")]):
        assert b"b/x" in apply_layer(below, entries)


@pytest.mark.parametrize(
    ("entries", "left"),
    [
        ([entry_of("loop", directory()), opaque("loop")], {b"", b"loop", b"x"}),
        ([whiteout("loop"), whiteout("loop/x")], {b"", b"x"}),
    ],
    ids=["replaced", "deleted"],
)
def test_marker_in_a_deleted_loop_of_symlinks_deletes_nothing(
    entries: list[LayerEntry], left: set[bytes]
) -> None:
    below = Tree.of({"loop": "/loop", "x": b""})

    assert set(apply_layer(below, entries)) == left


def test_marker_in_a_kept_loop_of_symlinks_is_unreadable() -> None:
    with pytest.raises(UnreadableArchive, match="loop of symlinks"):
        apply_layer(Tree.of({"loop": "/loop"}), [opaque("loop")])
