"""DIF-058 to DIF-061, LIF-035, WHT-017: nodes of every kind in a layer and below it.

And directories whose entries come after their members.
"""

import itertools
import stat
from collections.abc import Callable, Iterator, Mapping

import pytest

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
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
from graphdriver_conformance.suite.support.attributes import needs_attribute
from graphdriver_conformance.suite.support.batches import applied, assert_cases, cases_of

NODES: Mapping[str, Node] = {
    "file": file(b"content", 0o640),
    "empty": file(),
    "directory": directory(0o1777),
    "symlink": symlink("../target"),
    "symlink-to-directory": symlink("/"),
    "dangling": symlink("nowhere"),
    "fifo": fifo(0o622),
    "character": device(NodeKind.CHARACTER, 1, 3, 0o666),
    "block": device(NodeKind.BLOCK, 259, 7, 0o640),
}
BELOW: Mapping[str, Node] = {
    **NODES,
    "full": directory(),
    ".dot": file(b"dot"),
    "socket": Node(NodeKind.SOCKET, 0o600),
}
"""The content of a lower layer; its socket is made in a view."""


def _below(top: str) -> Iterator[tuple[str, Node]]:
    """Yield a node of each kind in a directory."""
    for name, node in BELOW.items():
        yield f"{top}/{name}", node
    yield f"{top}/full/x", file(b"x")


def _deleting() -> tuple[Tree, list[LayerEntry]]:
    low = Tree.of({**dict(_below("deleted")), "deleted/kept": b"kept"})
    return low, [whiteout(f"deleted/{name}") for name in BELOW]


def _hiding() -> tuple[Tree, list[LayerEntry]]:
    low = Tree.of(dict(_below("hidden")))
    return low, [opaque("hidden"), entry_of("hidden/new", file(b"new"))]


def _replacing() -> tuple[Tree, list[LayerEntry]]:
    """Each kind by each, in a directory for each kind of the archive."""
    low = Tree.of({name: node for top in NODES for name, node in _below(f"by/{top}")})
    entries = [
        entry_of(f"by/{new}/{old}", NODES[new]) for new, old in itertools.product(NODES, BELOW)
    ]
    return low, entries


def _implying() -> tuple[Tree, list[LayerEntry]]:
    """Each kind in a directory without a member, which a lower layer has or none has."""
    low = Tree.of({f"in/{name}": directory(0o750) for name in NODES})
    return low, [
        entry_of(f"{top}/{name}/{name}", node)
        for top in ("in", "new")
        for name, node in NODES.items()
    ]


@verifies("DIF-058")
@pytest.mark.parametrize("made", [_deleting, _hiding, _replacing, _implying])
def test_each_kind_of_node(
    graphdriver: Subject, made: Callable[[], tuple[Tree, list[LayerEntry]]]
) -> None:
    """By a whiteout, an opaque marker, a member of each kind, and in directories without one."""
    low, entries = made()
    low = Tree({**low, **Tree.of({"target": b"target"})})
    base = graphdriver.build(low)
    layer = graphdriver.new_layer(base)

    graphdriver.apply_diff(layer, base, build_archive(entries))

    assert_same_tree(apply_layer(low, entries), graphdriver.tree(layer))


@verifies("WHT-017")
def test_each_kind_replaces_each_kind(graphdriver: Subject) -> None:
    """Made in a view; looked at when it is mounted again, in a child, and in a sibling."""
    low, entries = _replacing()
    wanted = apply_layer(low, entries)
    base = graphdriver.build(low)
    layer = graphdriver.build(wanted, base)

    assert_same_tree(wanted, graphdriver.tree(layer), "mounted again")
    assert_same_tree(wanted, graphdriver.tree(graphdriver.new_layer(layer)), "in a child")
    sibling = graphdriver.new_layer(base)
    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
    assert_same_tree(wanted, graphdriver.tree(sibling), "after diff and apply_diff")


@verifies("LIF-035")
def test_each_kind_in_a_child(graphdriver: Subject) -> None:
    """Each node has a different owner and mtime, and two names."""
    owned: dict[str | bytes, Node | bytes | str] = {
        name: node.but(uid=7 + number, gid=107 + number, mtime=EPOCH - number)
        for number, (name, node) in enumerate(NODES.items())
    }
    for name, node in list(owned.items()):
        if isinstance(node, Node) and not node.is_directory:
            owned[name] = owned[f"directory/{name!s}"] = node.but(link=str(name).encode())
    tree = Tree.of(owned).canonical()
    aspects = Aspect.DEFAULT | Aspect.DIRECTORY_MTIME
    if graphdriver.claims(Capability.HARDLINK_IDENTITY):
        aspects |= Aspect.HARDLINKS
    child = graphdriver.new_layer(graphdriver.build(tree), writable=True)

    assert_same_tree(tree, graphdriver.tree(child), "a child", aspects)
    grandchild = graphdriver.new_layer(child)
    assert_same_tree(tree, graphdriver.tree(grandchild), "a grandchild", aspects)


@verifies("DIF-059")
@pytest.mark.parametrize("name", sorted(name for name in NODES if name != "directory"))
def test_hard_link_to_each_kind_of_node(graphdriver: Subject, name: str) -> None:
    """Of a lower layer; Docker's overlay2 refuses these, others make the link."""
    node = NODES[name]
    low = Tree.of({"target": b"target", f"d/{name}": node})
    entry = entry_of("link", node.but(content=b"", link=b""), f"d/{name}".encode())
    layer = graphdriver.new_layer(graphdriver.build(low))

    if applied(graphdriver, layer, build_archive([entry])):
        aspects = Aspect.DEFAULT
        if graphdriver.claims(Capability.HARDLINK_IDENTITY):
            aspects |= Aspect.HARDLINKS
        assert_same_tree(apply_layer(low, [entry]), graphdriver.tree(layer), aspects=aspects)


def _around(name: str, entry: Node) -> Iterator[tuple[LayerEntry, ...]]:
    """Yield a directory's entry before and after a member of it, of one below, and of a marker."""
    inner = [
        entry_of(f"{name}/n", NODES["file"]),
        entry_of(f"{name}/l", NODES["symlink"]),
        entry_of(f"{name}/d", directory()),
        whiteout(f"{name}/old"),
        opaque(name),
    ]
    made = entry_of(name, entry)
    for one in inner:
        yield made, one
        yield one, made
    deep = entry_of(f"{name}/d/n", NODES["file"])
    # mkdir(2) gives a directory without an entry the group and the bit of a setgid directory.
    yield entry_of(name, entry.but(mode=entry.mode & ~stat.S_ISGID)), deep
    yield deep, made
    yield deep, made, inner[0]


def _assert_entries_count(graphdriver: Subject, old: Node, new: Node) -> None:
    low = Tree.of({"low": old, "low/old": file()})
    archives = [one for name in ("low", "new") for one in _around(name, new)]
    # Without an entry a directory stays as it is below.
    archives += [(one,) for one in (entry_of("low/n", file()), whiteout("low/old"), opaque("low"))]
    assert_cases(graphdriver, cases_of(low, archives))


@verifies("DIF-060")
def test_owner_of_a_directory_whose_entry_comes_late(graphdriver: Subject) -> None:
    """Of one that is below, and of one that its members have implied."""
    _assert_entries_count(
        graphdriver, directory(0o750, uid=7, gid=8), directory(0o2771, uid=11, gid=12)
    )


@verifies("DIF-061")
def test_attributes_of_a_directory_whose_entry_comes_late(graphdriver: Subject) -> None:
    """Likewise."""
    name = "user.of-the-entry"
    needs_attribute(graphdriver, name, b"value")
    _assert_entries_count(graphdriver, directory(), directory(xattrs=frozenset({(name, b"value")})))
