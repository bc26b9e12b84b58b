"""MET: status and metadata."""

from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    assert_same_sequence,
    home_names,
    settled_names,
)


@verifies("MET-001")
def test_status_is_pairs_of_strings(graphdriver: Subject) -> None:
    """docker info prints the rows unchanged; two calls must return the same rows."""
    graphdriver.new_layer()
    graphdriver.status()
    before = settled_names(graphdriver)

    rows = graphdriver.status()

    assert all(len(row) == 2 and all(isinstance(text, str) for text in row) for row in rows), rows
    assert_same_sequence(rows, graphdriver.status(), "asking again gave another answer")
    assert_same_names(before, home_names(graphdriver.home), "status changed the home")


@verifies("MET-003")
def test_metadata_of_an_unknown_id_is_an_error(graphdriver: Subject) -> None:
    """An empty result would look like a layer without directories."""
    graphdriver.refuses("get_metadata", "no-such-layer")


@verifies("MET-004")
def test_metadata_has_the_documented_keys(graphdriver: Subject) -> None:
    """LowerDir is absent without lowers, not empty."""
    base = graphdriver.new_layer()
    child = graphdriver.new_layer(base)
    always = {"UpperDir", "WorkDir", "MergedDir"}

    assert_same_names(always, graphdriver.get_metadata(base), "the keys of a base layer")
    wanted = always | {"LowerDir"}
    assert_same_names(wanted, graphdriver.get_metadata(child), "the keys of a child")
    with graphdriver.view(child) as root:
        assert graphdriver.get_metadata(child).get("MergedDir") == str(root), "MergedDir"


@verifies("MET-005")
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_lower_directories_are_listed_topmost_first(graphdriver: Subject, depth: int) -> None:
    """The order is that of the mount options."""
    ids = [graphdriver.new_layer()]
    for _ in range(depth):
        ids.append(graphdriver.new_layer(ids[-1]))

    listed = _directories(graphdriver, ids[-1], "LowerDir")

    uppers = [_directories(graphdriver, id, "UpperDir")[0] for id in reversed(ids[:-1])]
    resolved = [one.resolve() for one in listed]
    assert_same_sequence([one.resolve() for one in uppers], resolved, "LowerDir")
    odd = [str(one) for one in listed if not (one.is_absolute() and one.is_dir())]
    assert not odd, f"LowerDir lists {odd}, which are not absolute paths of directories"


def _directories(graphdriver: Subject, id: str, key: str) -> list[Path]:
    metadata = graphdriver.get_metadata(id)
    assert key in metadata, f"get_metadata({id!r}) has no {key}; it has {sorted(metadata)}"
    return [Path(one) for one in metadata[key].split(":")]


@verifies("MET-006")
def test_metadata_changes_nothing(graphdriver: Subject) -> None:
    """docker inspect of a stopped container must not mount it."""
    child = graphdriver.new_layer(graphdriver.new_layer())
    before = settled_names(graphdriver)

    metadata = graphdriver.get_metadata(child)

    assert all(isinstance(text, str) for pair in metadata.items() for text in pair), metadata
    assert graphdriver.mounts() == [], "get_metadata has mounted the layer"
    assert_same_names(before, home_names(graphdriver.home), "get_metadata changed the home")


@verifies("MET-007")
@pytest.mark.parametrize(
    "id", ["", "l", ".", "..", "README", "backingFsBlockDev", "a/b", "x" * 300]
)
def test_names_that_are_not_layers_do_not_exist(graphdriver: Subject, id: str) -> None:
    """exists returns a result for every string."""
    graphdriver.new_layer()
    (graphdriver.home / "README").write_text("")

    assert not graphdriver.exists(id), f"exists({id!r}) is true"


@verifies("MET-002")
def test_status_names_the_backing_file_system(graphdriver: Subject) -> None:
    """Bug reports contain these rows; scripts compare the words of booleans."""
    status = graphdriver.status()
    odd = [row for row in status if len(row) != 2]
    assert not odd, f"status has rows that are not pairs: {odd}"
    rows = dict(status)
    kind = graphdriver.environment.filesystem
    docker = {"ext4": "extfs", "ext3": "extfs", "ext2": "extfs", "overlay": "overlayfs"}

    backing = rows.get("Backing Filesystem")
    assert backing == docker.get(kind, kind), f"Backing Filesystem is {backing!r} on {kind}"
    for key in ("Supports d_type", "Native Overlay Diff", "userxattr"):
        assert rows.get(key, "true") in ("true", "false"), f"{key} is {rows[key]!r}"


_HALVES = {
    "directory only": (),
    "diff": ("diff",),
    "diff and an empty link": ("diff", "link"),
    "diff, link and work": ("diff", "link", "work"),
}


@verifies("MET-008")
@pytest.mark.parametrize("parts", list(_HALVES.values()), ids=list(_HALVES))
def test_half_made_layer_can_be_removed(graphdriver: Subject, parts: tuple[str, ...]) -> None:
    """As dockerd leaves it when it is killed inside create; the next pull uses the same id."""
    wanted = Tree.of({"etc/hosts": b"one\n"})
    base = graphdriver.build(wanted)
    half = graphdriver.home / "half"
    half.mkdir(0o700)
    for part in parts:
        (half / part).touch() if part == "link" else (half / part).mkdir()

    graphdriver.reopen()
    if graphdriver.exists("half"):
        graphdriver.remove("half")
    assert not graphdriver.exists("half"), (
        "exists is true for the incomplete layer after its removal"
    )
    graphdriver.create_read_write("half", base)

    assert_same_tree(wanted, graphdriver.tree("half"), "the layer created with the same id")
