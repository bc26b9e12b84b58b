"""FSX-021 to FSX-024, LIF-031 to LIF-034, and ARC-012 to ARC-014: attributes of each name space.

Each is a requirement of its own, because file systems and users differ in which they can have: what
cannot be set beside the driver is not provable, and says nothing of the others.
"""

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.attributes import nodes_with
from graphdriver_conformance.suite.support.copying_up import copy_up_cases
from graphdriver_conformance.suite.support.twins import assert_calls_agree


def _copied_up(graphdriver: Subject, kind: str) -> None:
    cases = copy_up_cases(nodes_with(graphdriver, kind))
    assert_calls_agree(graphdriver, cases, Aspect.DEFAULT)


@verifies("FSX-021")
def test_copy_up_keeps_file_capabilities(graphdriver: Subject) -> None:
    """ping of an image is touched, and works for root only."""
    _copied_up(graphdriver, "capability")


@verifies("FSX-022")
def test_copy_up_keeps_access_control_lists(graphdriver: Subject) -> None:
    """A log file that a group may read is closed to it after the first rotation."""
    _copied_up(graphdriver, "acl")


@verifies("FSX-023")
def test_copy_up_keeps_trusted_attributes(graphdriver: Subject) -> None:
    """Root's own notes in an image are gone with the first write."""
    _copied_up(graphdriver, "trusted")


@verifies("FSX-024")
def test_copy_up_keeps_user_attributes(graphdriver: Subject) -> None:
    """Checksums and labels of files are gone with the first write."""
    _copied_up(graphdriver, "user")


def _tree(graphdriver: Subject, kind: str) -> Tree:
    """Return a tree of nodes with attributes, one of them with something in it."""
    nodes = {name.encode(): node for name, node in nodes_with(graphdriver, kind).items()}
    return Tree({**Tree.of({"plain": b"plain", "a plain directory/file": b"x"}), **nodes})


def _inherited(graphdriver: Subject, kind: str) -> None:
    tree = _tree(graphdriver, kind)
    parent = graphdriver.build(tree)
    child = graphdriver.new_layer(parent, writable=True)
    for id, what in (
        (parent, "the layer that was written"),
        (child, "a child"),
        (graphdriver.new_layer(child), "a grandchild"),
    ):
        assert_same_tree(tree, graphdriver.tree(id), what)


@verifies("LIF-031")
def test_child_shows_file_capabilities(graphdriver: Subject) -> None:
    """A driver that copies its parent's files copied all but these."""
    _inherited(graphdriver, "capability")


@verifies("LIF-032")
def test_child_shows_access_control_lists(graphdriver: Subject) -> None:
    """What an image opens or closes to a user is so in its containers."""
    _inherited(graphdriver, "acl")


@verifies("LIF-033")
def test_child_shows_trusted_attributes(graphdriver: Subject) -> None:
    """What root has noted of a file is there one layer up."""
    _inherited(graphdriver, "trusted")


@verifies("LIF-034")
def test_child_shows_user_attributes(graphdriver: Subject) -> None:
    """What a program has noted of a file is there one layer up."""
    _inherited(graphdriver, "user")


def _carried(graphdriver: Subject, kind: str) -> None:
    """Carry attributes by diff: new ones, those of what was copied up, and in the whole archive."""
    tree = _tree(graphdriver, kind)
    base = graphdriver.new_layer()
    layer = graphdriver.build(tree, base)
    sibling = graphdriver.new_layer(base)
    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
    assert_same_tree(tree, graphdriver.tree(sibling), "after diff and apply_diff")

    touched = Tree({name: node.but(mtime=node.mtime + bool(name)) for name, node in tree.items()})
    above = graphdriver.build(touched, layer)
    copied = graphdriver.new_layer(layer)
    graphdriver.apply_diff(copied, layer, graphdriver.diff_bytes(above, layer))
    assert_same_tree(touched, graphdriver.tree(copied), "after utime, diff and apply_diff")

    if graphdriver.claims(Capability.FLATTENED_DIFF):
        whole = graphdriver.new_layer()
        graphdriver.apply_diff(whole, "", graphdriver.diff_bytes(above))
        assert_same_tree(touched, graphdriver.tree(whole), "after the whole archive")


@verifies("ARC-012")
def test_file_capabilities_are_carried(graphdriver: Subject) -> None:
    """Of new files, of one that was copied up, and in an export."""
    _carried(graphdriver, "capability")


@verifies("ARC-013")
def test_user_attributes_are_carried(graphdriver: Subject) -> None:
    """Of new files and directories, of those that were copied up, and in an export."""
    _carried(graphdriver, "user")


@verifies("ARC-014")
def test_access_control_lists_are_carried(graphdriver: Subject) -> None:
    """Of new files and directories, of those that were copied up, and in an export."""
    _carried(graphdriver, "acl")
