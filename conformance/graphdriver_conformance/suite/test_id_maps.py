"""IDM, and MNT-020: owners of files with id maps."""

import io
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import IDMap
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import build_archive, entry_of, read_archive
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.strategies import trees
from graphdriver_conformance.oracle.tree import Node, Tree, directory, file
from graphdriver_conformance.suite.support.effort import examples
from graphdriver_conformance.suite.support.names import assert_there

# Host ids that a user namespace with 65536 subordinate ids has, too.
UID, GID = 10_000, 20_000
UIDS, GIDS = [IDMap(0, UID, 1000)], [IDMap(0, GID, 1000)]
# Three ranges with gaps between them, inside and outside, the last with one id.
RANGES = [IDMap(0, 10_000, 10), IDMap(10, 30_000, 20), IDMap(100, 5_000, 1)]
BOUNDARIES = {0: 10_000, 9: 10_009, 10: 30_000, 29: 30_019, 100: 5_000}
BETWEEN = (30, 99, 101, 60_000)


def _mapped(graphdriver: Subject, uids: list[IDMap] = UIDS, gids: list[IDMap] = GIDS) -> Path:
    """Use a driver with id maps for the test; return its home."""
    home = graphdriver.home.parent / graphdriver.new_id("mapped")
    graphdriver.use(graphdriver.open_another(home, None, uids, gids))
    return home


def _outside(tree: Tree) -> Tree:
    """Return the tree as on disk."""
    return Tree({name: n.but(uid=UID + n.uid, gid=GID + n.gid) for name, n in tree.items()})


def _owners(archive: bytes) -> dict[bytes, tuple[int, int]]:
    return {one.path: (one.node.uid, one.node.gid) for one in read_archive(archive)}


def _owned(draw: st.DataObject, tree: Tree) -> Tree:
    """Give each file an owner; hard links of a file have the same owner."""
    ids = st.sampled_from([0, 1, 33, 999])
    groups: dict[bytes, tuple[int, int]] = {}
    owned: dict[bytes, Node] = {}
    for name, node in tree.items():
        owner = (draw.draw(ids), draw.draw(ids))
        uid, gid = groups.setdefault(node.link, owner) if node.link else owner
        owned[name] = node.but(uid=uid, gid=gid) if name else node
    return Tree(owned)


@verifies("IDM-001")
def test_new_layer_belongs_to_the_mapped_root(graphdriver: Subject) -> None:
    """The mapped root owns the layer's root; the directories above belong to the daemon."""
    home = _mapped(graphdriver)
    base = graphdriver.new_layer()
    child = graphdriver.new_layer(base, writable=True)

    for id in (base, child):
        with graphdriver.view(id) as view:
            root = view.lstat()
            above = [view.parent, *view.parent.parents]
            assert (root.st_uid, root.st_gid) == (UID, GID), (
                f"the root of {id} is owned by uid 0 of the host"
            )
            owners = {p: p.lstat().st_uid for p in above if p.is_relative_to(home)}
        assert UID not in owners.values(), (
            f"the mapped root owns a directory outside its layer: {owners}"
        )


@verifies("IDM-002")
@given(data=st.data(), tree=trees())
@examples(12)
def test_owners_are_mapped_both_ways(graphdriver: Subject, data: st.DataObject, tree: Tree) -> None:
    """From an archive to disk, to another archive, to another layer."""
    inside = _owned(data, tree)
    _mapped(graphdriver)
    base = graphdriver.new_layer()
    layer = graphdriver.build(_outside(inside), base)

    archive = graphdriver.diff_bytes(layer, base)
    sibling = graphdriver.new_layer(base)
    graphdriver.apply_diff(sibling, base, archive)

    wanted = {name: (node.uid, node.gid) for name, node in inside.items() if name}
    shown = {name: owner for name, owner in _owners(archive).items() if name}
    assert shown == wanted, f"the archive's owners are {shown}, expected {wanted}"
    assert_same_tree(_outside(inside), graphdriver.tree(sibling), "after diff and apply_diff")


@verifies("IDM-003")
def test_ids_at_the_ends_of_ranges(graphdriver: Subject) -> None:
    """The first and the last id of each of three ranges."""
    _mapped(graphdriver, RANGES, RANGES)
    layer = graphdriver.new_layer()
    files = [entry_of(f"f{id}", file(b"x", uid=id, gid=id)) for id in BOUNDARIES]

    graphdriver.apply_diff(layer, "", build_archive(files))

    tree = graphdriver.tree(layer)
    assert_there([b"f%d" % id for id in BOUNDARIES], tree, "the layer")
    on_disk = {id: (tree[b"f%d" % id].uid, tree[b"f%d" % id].gid) for id in BOUNDARIES}
    assert on_disk == {id: (out, out) for id, out in BOUNDARIES.items()}
    owners = _owners(graphdriver.diff_bytes(layer))
    archived = {name: owner for name, owner in owners.items() if name}
    assert archived == {b"f%d" % id: (id, id) for id in BOUNDARIES}, "the owners in the archive"


@verifies("IDM-004")
def test_archive_with_an_unmapped_owner_is_refused(graphdriver: Subject) -> None:
    """Ids between two ranges and beyond the last; no file of the archive is left."""
    _mapped(graphdriver, RANGES, RANGES)
    for id in BETWEEN:
        layer = graphdriver.new_layer()
        entries = [entry_of("known", file(b"x")), entry_of("f", file(b"x", uid=id, gid=0))]

        graphdriver.refuses("apply_diff", layer, "", io.BytesIO(build_archive(entries)))

        graphdriver.remove(layer)


@verifies("IDM-004")
def test_unmapped_owner_on_disk_ends_the_diff(graphdriver: Subject) -> None:
    """Docker omits such a file from the archive without an error."""
    _mapped(graphdriver)
    base = graphdriver.new_layer()
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        (root / "strange").touch()
        os.chown(root / "strange", UID + 1000, GID)

    try:
        names = set(_owners(graphdriver.diff_bytes(layer, base)))
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return
    assert b"strange" in names, "a file is missing from the archive, and there was no error"


@verifies("IDM-005")
def test_deletions_survive_mapping(graphdriver: Subject) -> None:
    """A file, a directory, and a recreated directory."""
    _mapped(graphdriver)
    image = _outside(Tree.of({"f": b"", "d/a": b"", "again/old": b"", "kept": b""}))
    wanted = _outside(Tree.of({"again/new": b"", "kept": b""}))
    base = graphdriver.build(image)
    layer = graphdriver.new_layer(base, writable=True)
    graphdriver.fill(layer, _outside(Tree.of({"kept": b""})))
    graphdriver.fill(layer, wanted)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(wanted, graphdriver.tree(layer), "in the layer itself")
    assert_same_tree(wanted, graphdriver.tree(sibling), "after diff and apply_diff")


@verifies("IDM-006")
def test_whole_tree_is_mapped_back(graphdriver: Subject) -> None:
    """A base layer, and the flattened diff of a child."""
    _mapped(graphdriver)
    tree = Tree.of({"d": directory(uid=3, gid=4), "d/f": file(b"x", uid=999, gid=1)})
    base = graphdriver.build(_outside(tree))
    child = graphdriver.new_layer(base)

    wanted = {b"d": (3, 4), b"d/f": (999, 1)}
    for id in (base, child):
        shown = {name: o for name, o in _owners(graphdriver.diff_bytes(id)).items() if name}
        assert shown == wanted, f"diff({id!r}, '') has the owners {shown}"


@verifies("MNT-020")
def test_kernels_work_directory_belongs_to_the_mapped_root(graphdriver: Subject) -> None:
    """For each layer with a writable view, from its first get on."""
    home = _mapped(graphdriver)
    id = graphdriver.new_layer(graphdriver.new_layer(), writable=True)
    with graphdriver.view(id):
        made = (home / id / "work" / "work").lstat()

    assert (made.st_uid, made.st_gid) == (UID, GID), f"work/work is {made.st_uid}:{made.st_gid}"
