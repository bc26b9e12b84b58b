"""FSX-021 to FSX-024, LIF-031 to LIF-034, ARC-012 to ARC-014, ARC-029, ARC-030: xattrs.

Each namespace has its own requirement, because file systems and users differ in the namespaces that
they support. Xattrs that cannot be set in a plain directory are not provable.
"""

import os
import struct
from functools import partial

import pytest

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject, refusal
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.oracle.archive import LayerEntry, build_archive, entry_of
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink
from graphdriver_conformance.suite.support.attributes import (
    ACCESS,
    ATTRIBUTES,
    DEFAULT,
    named_acl,
    nodes_with,
)
from graphdriver_conformance.suite.support.copying_up import copy_up_cases
from graphdriver_conformance.suite.support.differential import assert_calls_agree, plain_directory
from graphdriver_conformance.suite.support.names import assert_there


def _copied_up(graphdriver: Subject, kind: str) -> None:
    cases = copy_up_cases(nodes_with(graphdriver, kind))
    assert_calls_agree(graphdriver, cases, Aspect.DEFAULT)


@verifies("FSX-021")
def test_copy_up_keeps_file_capabilities(graphdriver: Subject) -> None:
    """ping of an image is modified, and afterwards works for root only."""
    _copied_up(graphdriver, "capability")


@verifies("FSX-022")
def test_copy_up_keeps_access_control_lists(graphdriver: Subject) -> None:
    """A log file that a group may read loses the permission at the first rotation."""
    _copied_up(graphdriver, "acl")


@verifies("FSX-023")
def test_copy_up_keeps_trusted_attributes(graphdriver: Subject) -> None:
    """trusted.* xattrs of a file in an image are lost at the first write."""
    _copied_up(graphdriver, "trusted")


@verifies("FSX-024")
def test_copy_up_keeps_user_attributes(graphdriver: Subject) -> None:
    """Checksums and labels in user.* xattrs are lost at the first write."""
    _copied_up(graphdriver, "user")


def _tree(graphdriver: Subject, kind: str) -> Tree:
    """Return a tree of files with xattrs, one of them with content."""
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
    """A driver that copies its parent's files lost these xattrs."""
    _inherited(graphdriver, "capability")


@verifies("LIF-032")
def test_child_shows_access_control_lists(graphdriver: Subject) -> None:
    """Permissions that an image grants or denies apply in its containers."""
    _inherited(graphdriver, "acl")


@verifies("LIF-033")
def test_child_shows_trusted_attributes(graphdriver: Subject) -> None:
    """trusted.* xattrs of a file are visible in a child layer."""
    _inherited(graphdriver, "trusted")


@verifies("LIF-034")
def test_child_shows_user_attributes(graphdriver: Subject) -> None:
    """user.* xattrs of a file are visible in a child layer."""
    _inherited(graphdriver, "user")


def _carried(graphdriver: Subject, kind: str) -> None:
    """Test a round trip of new files, of copied-up files, and of the flattened diff."""
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
        assert_same_tree(touched, graphdriver.tree(whole), "after the flattened diff")


@verifies("ARC-012")
def test_file_capabilities_are_carried(graphdriver: Subject) -> None:
    """New files, a copied-up file, and the flattened diff are tested."""
    _carried(graphdriver, "capability")


@verifies("ARC-013")
def test_user_attributes_are_carried(graphdriver: Subject) -> None:
    """New and copied-up files and directories, and the flattened diff, are tested."""
    _carried(graphdriver, "user")


@verifies("ARC-014")
def test_access_control_lists_are_carried(graphdriver: Subject) -> None:
    """New and copied-up files and directories, and the flattened diff, are tested."""
    _carried(graphdriver, "acl")


_MALFORMED = {
    "empty": b"",
    "without entries": struct.pack("<I", 2),
    "cut in the version": b"\2\0",
    "cut in an entry": named_acl(7, 8)[:-3],
    "unknown version": struct.pack("<I", 9) + named_acl(7, 8)[4:],
    "unknown tag": named_acl(7, 8) + struct.pack("<HHi", 64, 7, -1),
    "without the owner": struct.pack("<I", 2) + named_acl(7, 8)[12:],
    "duplicate entry": named_acl(7, 8) + named_acl(7, 8)[4:],
    "text": b"user::rw-,group::r--,other::r--",
}


@verifies("ARC-029")
@pytest.mark.parametrize("kind", list(_MALFORMED))
@pytest.mark.parametrize("name", [ACCESS, DEFAULT])
def test_malformed_access_control_lists(graphdriver: Subject, name: str, kind: str) -> None:
    """Refused, or left out, or stored as the kernel stores it; no other member is affected."""
    attributes = frozenset({(name, _MALFORMED[kind])})
    odd = directory() if name == DEFAULT else file(b"odd")
    nodes = {b"before": file(b"b"), b"odd": odd, b"past": file(b"p"), b"z": directory(0o700)}
    entries = [
        LayerEntry(key, node.but(xattrs=attributes) if key == b"odd" else node)
        for key, node in nodes.items()
    ]
    parent_tree = Tree.of({"kept": b"kept"})
    base = graphdriver.build(parent_tree)
    layer = graphdriver.new_layer(base)

    if error := refusal(
        "apply_diff", partial(graphdriver.apply_diff, layer, base, build_archive(entries))
    ):
        graphdriver.note(f"refused: {error}")
    else:
        # Group bits are the mask of an ACL that the kernel accepts.
        shown = graphdriver.tree(layer)
        assert_there(nodes, shown, "the layer")
        same = odd.but(mode=shown[b"odd"].mode)
        aspects = Aspect.DEFAULT & ~Aspect.XATTRS
        wanted = Tree({**parent_tree, **nodes, b"odd": same})
        assert_same_tree(wanted, shown, "after apply_diff", aspects)
    graphdriver.remove(layer)
    assert not graphdriver.exists(layer), "remove left the layer"
    assert_same_tree(parent_tree, graphdriver.tree(base), "the parent changed")


@verifies("ARC-030")
@pytest.mark.parametrize("where", ["below", "in the archive", "outside"])
def test_attributes_of_symlinks_do_not_reach_their_targets(
    graphdriver: Subject, where: str
) -> None:
    """The target is a file of the parent, of the same archive, or of the host."""
    own = file(b"own", xattrs=frozenset({("user.note", b"own")}))
    place = plain_directory(graphdriver, Tree.of({"target": b"own"})).resolve()
    with own_work(f"set user.note of {place}/target"):
        os.setxattr(place / "target", "user.note", b"own")
    before = observe(place)
    parent_tree = Tree.of({"target": own, "d": directory()})
    base = graphdriver.build(parent_tree)
    layer = graphdriver.new_layer(base)
    strange = frozenset({("user.note", b"strange"), *ATTRIBUTES["capability"]})
    target = f"{place}/target" if where == "outside" else "../target"
    member = entry_of("d/link", symlink(target).but(xattrs=strange))
    entries = [entry_of("target", own)] * (where == "in the archive") + [member]
    # A layer that is a copy may have lost attributes, which is judged elsewhere (LIF-034).
    of_parent = graphdriver.tree(layer)[b"target"].xattrs
    expected = dict(own.xattrs if where == "in the archive" else of_parent)

    if error := refusal(
        "apply_diff", partial(graphdriver.apply_diff, layer, base, build_archive(entries))
    ):
        graphdriver.note(f"refused: {error}")
    else:
        shown = graphdriver.tree(layer)
        assert_there([b"target", b"d/link"], shown, "the layer")
        assert dict(shown[b"target"].xattrs) == expected, "the target of the symlink"
    assert_same_tree(before, observe(place), "files outside the layer changed", Aspect.DEFAULT)
    assert_same_tree(parent_tree, graphdriver.tree(base), "the parent changed")
