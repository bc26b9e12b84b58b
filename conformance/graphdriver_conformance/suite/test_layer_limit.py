"""LIM: the depth limit, and views of long chains."""

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree, file
from graphdriver_conformance.suite.support.effort import scaled
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)


def _chain(graphdriver: Subject, lowers: int, hint: str = "layer") -> list[str]:
    """Create a chain whose last layer has `lowers` lowers; only its base layer has a file."""
    ids = [graphdriver.build(Tree.of({"bottom": b"still here"}))]
    for _ in range(lowers):
        id = graphdriver.new_id(hint)
        graphdriver.create(id, ids[-1])
        ids.append(id)
    return ids


@verifies("LIM-001")
def test_deepest_chain_shows_its_bottom(graphdriver: Subject) -> None:
    """Images of 125 layers are common, and a container adds two."""
    ids = _chain(graphdriver, graphdriver.layer_limit)

    with graphdriver.view(ids[-1]) as root:
        assert (root / "bottom").read_bytes() == b"still here"


@verifies("LIM-002")
def test_one_layer_more_is_refused(graphdriver: Subject) -> None:
    """At create: if mount fails instead, a broken image is already in the registry."""
    ids = _chain(graphdriver, graphdriver.layer_limit)
    with graphdriver.view(ids[-1]):
        pass  # A create may look at its parent, and the first mount creates names.
    before = settled_names(graphdriver)

    graphdriver.refuses("create", "too-deep", ids[-1])

    assert not graphdriver.exists("too-deep"), "exists is true for the layer whose create failed"
    assert_same_names(before, home_names(graphdriver.home), "the failed create changed the home")


@verifies("LIM-003")
def test_every_depth_shows_the_layers_in_order(graphdriver: Subject) -> None:
    """Each layer writes, rewrites or deletes one of five files and a directory."""
    tree, id = Tree(), ""
    for depth in range(min(scaled(60), graphdriver.layer_limit)):
        name = b"dir/f%d" % (depth % 5)
        if depth % 7 == 3:
            tree = tree.without(b"dir")
        elif depth % 3 == 2 and name in tree:
            tree = tree.without(name)
        else:
            tree = Tree({**Tree.of({name: b""}), **tree}).with_(name, file(b"%d" % depth))
        id = graphdriver.build(tree, id)
        assert_same_tree(tree, graphdriver.tree(id), f"at depth {depth}")


@verifies("LIM-004")
def test_limit_holds_for_long_ids(graphdriver: Subject) -> None:
    """64 characters, as Docker's ids; without short links the options would exceed a page."""
    ids = _chain(graphdriver, graphdriver.layer_limit, "0123456789abcdef" * 4)

    with graphdriver.view(ids[-1]) as root:
        assert (root / "bottom").read_bytes() == b"still here"


@verifies("LIM-005")
def test_many_children_of_one_parent(graphdriver: Subject) -> None:
    """Two hundred containers of one image."""
    wanted = Tree.of({"etc/hosts": b"one\n"})
    parent = graphdriver.build(wanted)

    children = [graphdriver.new_layer(parent) for _ in range(scaled(200))]

    for id in (children[0], children[-1]):
        assert_same_tree(wanted, graphdriver.tree(id))
