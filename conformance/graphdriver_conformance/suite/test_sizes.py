"""SIZ: diff_size, and the result of apply_diff."""

import pytest

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import Tree, directory, file

EMPTY = Tree.of({"below": b"below"})


@verifies("SIZ-001")
def test_size_grows_with_added_data(graphdriver: Subject) -> None:
    """For a base layer, from no files to many."""
    base = graphdriver.build(Tree.of({"below": b"x" * 1000}))
    layer = graphdriver.new_layer(base, writable=True)
    assert graphdriver.diff_size(layer, base) == 0
    tree, total = Tree.of({"below": b"x" * 1000}), 0
    for size in (1, 10, 5000):
        tree, total = tree.with_(b"f%d" % size, file(b"y" * size)), total + size
        graphdriver.fill(layer, tree)
        assert graphdriver.diff_size(layer, base) == total


@verifies("SIZ-002")
def test_apply_returns_the_size(graphdriver: Subject) -> None:
    """Without hard links the size is unambiguous."""
    entries = [
        entry_of("d", directory()),
        entry_of("d/a", file(b"x" * 700)),
        entry_of("b", file(b"y")),
    ]
    base = graphdriver.build(EMPTY)
    layer = graphdriver.new_layer(base)

    returned = graphdriver.apply_diff(layer, base, build_archive(entries))

    assert 701 == returned == graphdriver.diff_size(layer, base)


@verifies("SIZ-003")
def test_hard_links_count_once_and_deletions_not_at_all(graphdriver: Subject) -> None:
    """A file with two names counts once; deletions and directories do not count."""
    base = graphdriver.build(Tree.of({"gone": b"x" * 999, "kept": b"k"}))
    pair = file(b"y" * 300, link=b"pair")
    tree = Tree.of({"kept": b"k", "d": directory(), "p1": pair, "d/p2": pair})
    layer = graphdriver.build(tree.canonical(), base)

    assert graphdriver.diff_size(layer, base) == 300


@verifies("SIZ-005")
def test_sizes_of_more_than_32_bits(graphdriver: Subject) -> None:
    """A hole of 5 GiB is part of diff_size."""
    base = graphdriver.build(EMPTY)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root, (root / "large").open("wb") as opened:
        opened.truncate(5 << 30)

    assert graphdriver.diff_size(layer, base) == 5 << 30


@verifies("SIZ-004")
@pytest.mark.parametrize(("id", "parent"), [("nope", ""), ("nope", "BASE"), ("BASE", "nope")])
def test_size_of_unknown_layers_is_an_error(graphdriver: Subject, id: str, parent: str) -> None:
    """0 would mean that the layer is empty."""
    base = graphdriver.build(EMPTY)

    graphdriver.refuses("diff_size", id.replace("BASE", base), parent.replace("BASE", base))
