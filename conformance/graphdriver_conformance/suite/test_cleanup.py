"""CLN: nothing is left."""

import os
import shutil

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree

IMAGE = Tree.of({"etc/hosts": b"one\n"})


@verifies("CLN-001")
def test_cleanup_ends_held_mounts(graphdriver: Subject) -> None:
    """The machine is going down, whoever holds what."""
    base = graphdriver.build(IMAGE)
    for _ in range(3):
        graphdriver.get(graphdriver.new_layer(base, writable=True))

    graphdriver.cleanup()

    assert [] == graphdriver.mounts(), "mounts are left after cleanup"


@verifies("CLN-002")
def test_cleanup_twice(graphdriver: Subject) -> None:
    """And on a driver that has done nothing."""
    graphdriver.cleanup()
    child = graphdriver.new_layer(graphdriver.build(IMAGE))

    graphdriver.cleanup()
    graphdriver.cleanup()

    assert_same_tree(IMAGE, graphdriver.tree(child))


@verifies("CLN-003")
def test_layers_survive_cleanup_and_init(graphdriver: Subject) -> None:
    """Held ones too: what was written is there."""
    id = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    (graphdriver.get(id) / "new").write_bytes(b"new")

    graphdriver.reopen()

    assert {b"", b"etc", b"etc/hosts", b"new"} == set(graphdriver.tree(id))


@verifies("CLN-006")
def test_removing_everything_leaves_the_home_as_it_was(graphdriver: Subject) -> None:
    """By names: a file system may keep its own blocks, and a store the index it makes at first."""
    graphdriver.remove(graphdriver.build(IMAGE))
    before = sorted(graphdriver.home.rglob("*"))
    ids = [graphdriver.build(IMAGE)]
    for _ in range(5):
        ids.append(graphdriver.new_layer(ids[-1], writable=True))
        with graphdriver.view(ids[-1]) as root:
            (root / "new").write_bytes(b"x")

    for id in reversed(ids):
        graphdriver.remove(id)

    assert before == sorted(graphdriver.home.rglob("*")), "something of removed layers is left"


@verifies("CLN-009")
def test_home_can_be_deleted(graphdriver: Subject) -> None:
    """rm -rf after the daemon has stopped."""
    id = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    graphdriver.get(id)

    graphdriver.cleanup()
    shutil.rmtree(graphdriver.home)

    assert not graphdriver.home.exists()
    os.makedirs(graphdriver.home)
