"""LIF-015 to LIF-022: removal of layers, without effects on other files."""

import os
from pathlib import Path

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree, directory, file
from graphdriver_conformance.suite.support.beside import bind_mounted, directory_beside
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)

PARENT = Tree.of({"etc/hosts": b"one\n", "bin/sh": file(b"#!", 0o755), "tmp": directory(0o1777)})


@verifies("LIF-015")
def test_removed_layer_is_gone(graphdriver: Subject) -> None:
    """docker system prune must free the space."""
    settled_names(graphdriver)
    base = graphdriver.build(Tree.of({"a": b"x"}))
    before = _bytes(graphdriver.home)
    id = graphdriver.build(Tree.of({"a": b"x", "big": b"x" * (1 << 20)}), base)

    graphdriver.remove(id)

    assert not graphdriver.exists(id), "exists is true for the removed layer"
    graphdriver.refuses("get", id)
    left = _bytes(graphdriver.home) - before
    assert left < 1 << 18, f"{left} bytes of the removed layer are still in the home"


@verifies("LIF-016")
def test_remove_of_an_unknown_id_changes_nothing(graphdriver: Subject) -> None:
    """A success or an error is accepted; an effect is not."""
    kept = graphdriver.build(PARENT)
    before = settled_names(graphdriver)

    try:
        graphdriver.remove("never-created")
    except (DriverError, OSError) as error:
        graphdriver.note(f"it was refused: {error}")

    assert_same_names(before, home_names(graphdriver.home), "remove changed the home")
    assert_same_tree(PARENT, graphdriver.tree(kept))


@verifies("LIF-017")
def test_repeated_remove_changes_nothing(graphdriver: Subject) -> None:
    """Ten times, as in csi-sanity; an error is accepted."""
    base = graphdriver.build(PARENT)
    id = graphdriver.new_layer(base)
    graphdriver.remove(id)

    for _ in range(10):
        try:
            graphdriver.remove(id)
        except (DriverError, OSError) as error:
            graphdriver.note(f"the repeated remove was refused: {error}")

    assert not graphdriver.exists(id), "the removed layer exists again"
    assert graphdriver.exists(base), "the repeated remove has removed the parent"
    again = graphdriver.new_layer(base)
    assert_same_tree(PARENT, graphdriver.tree(again), "the repeated remove changed the parent")


@verifies("LIF-018")
def test_id_can_be_used_again(graphdriver: Subject) -> None:
    """Build caches derive ids from content, so ids are reused."""
    id = graphdriver.build(Tree.of({"old": b"old", "both": b"old"}))
    graphdriver.remove(id)

    graphdriver.create_read_write(id)

    assert_same_tree(Tree(), graphdriver.tree(id), "the new layer contains files of the old one")


@verifies("LIF-019")
def test_removed_parent_never_causes_wrong_content(graphdriver: Subject) -> None:
    """Refused, or the child fails, or the child is complete; never an incomplete child."""
    base = graphdriver.build(PARENT)
    child = graphdriver.new_layer(base, writable=True)

    try:
        graphdriver.remove(base)
    except (DriverError, OSError):
        assert graphdriver.exists(base), "remove was refused, but the layer was removed"
    try:
        shown = graphdriver.tree(child)
    except (DriverError, OSError):
        return
    assert_same_tree(PARENT, shown, "the child of a removed layer shows wrong content")


@verifies("LIF-020")
def test_held_layer_is_not_deleted_through_its_mount(graphdriver: Subject) -> None:
    """rm -rf in a merged view writes whiteouts, or deletes the files of the image."""
    base = graphdriver.build(PARENT)
    child = graphdriver.new_layer(base, writable=True)
    sibling = graphdriver.new_layer(base, writable=True)
    graphdriver.get(child)

    try:
        graphdriver.remove(child)
    except (DriverError, OSError):
        assert graphdriver.exists(child), "remove was refused, but the layer was removed"
        graphdriver.put(child)
        assert_same_tree(PARENT, graphdriver.tree(child), "the refused remove deleted files")

    assert_same_tree(PARENT, graphdriver.tree(sibling), "remove deleted through the mount")
    assert_same_tree(PARENT, graphdriver.tree(base), "remove deleted through the mount")


@verifies("LIF-021")
def test_awkward_layers_can_be_removed(graphdriver: Subject) -> None:
    """Directories without permissions, and a tree deeper than PATH_MAX."""
    id = graphdriver.new_layer(writable=True)
    with graphdriver.view(id) as root:
        (root / "closed").mkdir()
        (root / "closed" / "file").touch()
        (root / "closed").chmod(0)
        descriptor = os.open(root, os.O_RDONLY)
        try:
            for _ in range(300):
                os.mkdir("a" * 20, dir_fd=descriptor)
                inner = os.open("a" * 20, os.O_RDONLY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        finally:
            os.close(descriptor)

    graphdriver.remove(id)

    assert not graphdriver.exists(id)


@verifies("LIF-022")
@pytest.mark.parametrize("with_parent", [True, False], ids=["child", "base"])
def test_bind_mount_in_a_layer_survives_its_removal(
    graphdriver: Subject, with_parent: bool
) -> None:
    """A volume was deleted with the container into which it was mounted."""
    volume = directory_beside(graphdriver, "volume", Tree.of({"precious": b"data"}))
    parent = graphdriver.build(PARENT) if with_parent else ""
    id = graphdriver.new_layer(parent, writable=True)
    root = graphdriver.get(id)
    (root / "mnt").mkdir()
    graphdriver.program.line(f"mount --bind {volume} {root}/mnt")
    with bind_mounted(volume, root / "mnt"):
        graphdriver.put(id)

        try:
            graphdriver.remove(id)
        except (DriverError, OSError) as error:
            graphdriver.note(f"remove was refused: {error}")

        kept = {path.name for path in volume.iterdir()}
    assert kept == {"precious"}, "remove deleted the files of the directory that was bind-mounted"
    assert (volume / "precious").read_bytes() == b"data", "remove changed the bind mount's source"


def _bytes(home: Path) -> int:
    return sum(path.lstat().st_size for path in home.rglob("*") if not path.is_dir())
