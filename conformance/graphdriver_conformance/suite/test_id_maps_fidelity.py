"""IDM-007 to IDM-012: metadata that must be preserved when owners are mapped."""

import pytest

from graphdriver.contract import IDMap
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    read_archive,
    whiteout,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.tar_blocks import END
from graphdriver_conformance.oracle.tree import (
    EPOCH,
    Node,
    Tree,
    directory,
    fifo,
    file,
    symlink,
)
from graphdriver_conformance.suite.support.attributes import (
    ACCESS,
    CAPABILITY,
    DEFAULT,
    capability,
    named_acl,
    needs_attribute,
)
from graphdriver_conformance.suite.support.batches import applied
from graphdriver_conformance.suite.support.forms import COMMON, nodes_of

# Host ids that a user namespace with 65536 subordinate ids has, too.
UID, GID = 10_000, 20_000
UIDS, GIDS = [IDMap(0, UID, 1000)], [IDMap(0, GID, 1000)]


def _mapped(graphdriver: Subject) -> None:
    """Use a driver with id maps for the test."""
    home = graphdriver.home.parent / graphdriver.new_id("mapped")
    graphdriver.use(graphdriver.open_another(home, None, UIDS, GIDS))


def _outside(tree: Tree) -> Tree:
    """Return the tree as on disk; the test compares its xattrs."""
    return Tree({name: n.but(uid=UID + n.uid, gid=GID + n.gid) for name, n in tree.items()})


def _round_trip(graphdriver: Subject, inside: Tree) -> Tree:
    """Apply an archive of the tree, copy it by diff to a sibling, and return the sibling's tree.

    The first layer must have the same tree.
    """
    entries = [LayerEntry(name, inside[name], _linked(inside, name)) for name in sorted(inside)]
    base = graphdriver.new_layer()
    layer, sibling = graphdriver.new_layer(base), graphdriver.new_layer(base)
    graphdriver.apply_diff(layer, base, build_archive(one for one in entries if one.name))
    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
    shown = graphdriver.tree(sibling)
    aspects = Aspect.ALL & ~Aspect.ROOT & ~Aspect.HARDLINKS
    assert_same_tree(graphdriver.tree(layer), shown, "the sibling differs", aspects)
    return shown


def _linked(tree: Tree, name: bytes) -> bytes | None:
    """Return the first name of the file that `name` is a later hard link to."""
    group = tree[name].link
    return group if group and group != name else None


@verifies("IDM-007")
def test_modes_links_and_kinds_survive_mapping(graphdriver: Subject) -> None:
    """chown(2) to the mapped owner clears setuid bits; chown(2) of a symlink may follow it."""
    pair = file(b"pair", 0o640, uid=7, gid=8, link=b"a")
    inside = Tree.of(
        {
            "a": pair,
            "b": pair,
            "d": directory(0o2775, uid=1, gid=2),
            "d/setuid": file(b"x", 0o4755),
            "d/both": file(b"x", 0o6711, uid=33, gid=34),
            "d/closed": file(b"x", 0),
            "d/pipe": fifo(0o622, uid=5, gid=6),
            "link": symlink("d/setuid", uid=9, gid=10),
            "sticky": directory(0o1777, uid=999, gid=999),
        }
    )
    _mapped(graphdriver)

    shown = _round_trip(graphdriver, inside)

    assert_same_tree(_outside(inside), shown, "after apply_diff, diff and apply_diff")


@verifies("IDM-007")
def test_every_dialect_is_read_under_maps(graphdriver: Subject) -> None:
    """Owners of members are mapped, independent of the program that wrote the archive."""
    _mapped(graphdriver)
    layer = graphdriver.new_layer()

    graphdriver.apply_diff(layer, "", b"".join(form.blocks for form in COMMON) + END)

    assert_same_tree(_outside(nodes_of(COMMON)), graphdriver.tree(layer), "in the layer")


@verifies("IDM-012")
def test_times_survive_mapping(graphdriver: Subject) -> None:
    """Files, and directories whose entries are created after they were mapped."""
    inside = Tree.of(
        {
            "d": directory(uid=3, gid=3, mtime=EPOCH - 7),
            "d/e": directory(mtime=EPOCH - 8),
            "d/e/f": file(b"x", uid=4, gid=4, mtime=EPOCH - 9),
            "empty": directory(uid=5, gid=5, mtime=EPOCH + 9),
            "s": symlink("d", uid=6, gid=6, mtime=EPOCH + 8),
        }
    )
    _mapped(graphdriver)

    shown = _round_trip(graphdriver, inside)

    aspects = Aspect.MTIME | Aspect.DIRECTORY_MTIME | Aspect.OWNER
    assert_same_tree(_outside(inside), shown, "after apply_diff, diff and apply_diff", aspects)


def _assert_attributes(
    graphdriver: Subject, inside: dict[bytes, Node], outside: dict[bytes, Node]
) -> None:
    """Assert that the files are on disk as `outside`, and in a diff as `inside`."""
    base = graphdriver.new_layer()
    layer = graphdriver.new_layer(base)
    entries = [LayerEntry(name, node) for name, node in inside.items()]

    graphdriver.apply_diff(layer, base, build_archive(entries))

    what = Aspect.OWNER | Aspect.XATTRS
    assert_same_tree(Tree(outside), graphdriver.tree(layer), "on disk", what)
    alone = graphdriver.new_layer()
    graphdriver.apply_diff(alone, "", build_archive(entries))
    for id, parent in ((layer, base), (alone, "")):
        exported = read_archive(graphdriver.diff_bytes(id, parent))
        nodes = {one.path: one.node for one in exported}
        found = {name: nodes[name].xattrs for name in inside if name in nodes}
        wanted = {name: node.xattrs for name, node in inside.items()}
        assert found == wanted, f"in the archive of diff({id!r}, {parent!r})"


@verifies("IDM-008")
def test_root_of_a_file_capability_is_mapped(graphdriver: Subject) -> None:
    """A program for the container's root, and for the root of a nested container."""
    needs_attribute(graphdriver, CAPABILITY, capability(UID))
    _mapped(graphdriver)
    roots = {b"ping-%d" % root: root for root in (0, 500)}
    plain = file(b"x", 0o755, uid=1, gid=1)

    def nodes(offset: int, owners: tuple[int, int]) -> dict[bytes, Node]:
        return {
            name: plain.but(
                uid=1 + owners[0],
                gid=1 + owners[1],
                xattrs=frozenset({(CAPABILITY, capability(root + offset))}),
            )
            for name, root in roots.items()
        }

    _assert_attributes(graphdriver, nodes(0, (0, 0)), nodes(UID, (UID, GID)))


@verifies("IDM-009")
def test_ids_of_access_control_lists_are_mapped(graphdriver: Subject) -> None:
    """Users and groups in the ACL of a file and the default ACL of a directory."""
    needs_attribute(graphdriver, DEFAULT, named_acl(UID, GID))
    _mapped(graphdriver)

    def nodes(uid: int, gid: int) -> dict[bytes, Node]:
        access = frozenset({(ACCESS, named_acl(7 + uid, 8 + gid))})
        default = frozenset({(DEFAULT, named_acl(999 + uid, gid))})
        return {
            b"f": file(b"x", 0o674, uid=uid, gid=gid, xattrs=access),
            b"d": directory(uid=uid, gid=gid, xattrs=default),
        }

    _assert_attributes(graphdriver, nodes(0, 0), nodes(UID, GID))


@verifies("IDM-010")
def test_markers_and_implied_directories_under_maps(graphdriver: Subject) -> None:
    """Deletions, a recreated directory, and implied directories."""
    low = Tree.of(
        {
            "d": directory(0o750, uid=3, gid=4),
            "d/x": file(b"x", uid=5, gid=6),
            "d/e/z": file(b"z", uid=7, gid=8),
            "o/old": b"old",
            "f": b"f",
        }
    )
    entries = [
        whiteout("d/x"),
        entry_of("d/e/n", file(b"n", uid=9, gid=9)),
        opaque("o"),
        entry_of("o/new", file(b"new", uid=1, gid=1)),
        whiteout("f"),
        entry_of("implied/by/n", file(b"n", uid=2, gid=2)),
        entry_of("h", file(b"", uid=7, gid=8), b"d/e/z"),
    ]
    _mapped(graphdriver)
    base = graphdriver.new_layer()
    graphdriver.apply_diff(
        base, "", build_archive(LayerEntry(name, low[name]) for name in sorted(low) if name)
    )
    layer, sibling = graphdriver.new_layer(base), graphdriver.new_layer(base)
    graphdriver.apply_diff(layer, base, build_archive(entries))
    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    wanted = _outside(apply_layer(low, entries))
    for id, what in ((layer, "the layer"), (sibling, "the sibling")):
        assert_same_tree(wanted, graphdriver.tree(id), what)


@verifies("IDM-011")
@pytest.mark.parametrize(
    ("name", "value"),
    [(CAPABILITY, capability(5000)), (ACCESS, named_acl(5000, 0))],
    ids=["capability", "acl"],
)
def test_attribute_with_an_unmapped_id(graphdriver: Subject, name: str, value: bytes) -> None:
    """The member is refused, or created without the xattr; the id is never stored unmapped."""
    needs_attribute(graphdriver, name, value)
    _mapped(graphdriver)
    layer = graphdriver.new_layer()
    node = file(b"x", 0o755, xattrs=frozenset({(name, value)}))

    if applied(graphdriver, layer, build_archive([entry_of("f", node)])):
        found = dict(graphdriver.tree(layer).get(b"f", node.but(xattrs=frozenset())).xattrs)
        assert name not in found, f"{name} is on disk with {found.get(name)!r}"
