"""FSX-018, FSX-019: containers cannot access overlayfs's own marks."""

import os
import stat
from pathlib import Path

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.differential import Call, plain_directory, result_of
from graphdriver_conformance.suite.support.names import assert_same_names

IMAGE = Tree.of({"d/a": b"a", "d/b": b"b", "f": b"f"})
_MARKS = ("opaque", "redirect", "metacopy", "whiteout", "origin", "impure")


@verifies("FSX-018")
def test_overlay_attributes_are_the_drivers_own(graphdriver: Subject) -> None:
    """No overlay xattr is visible, and one that the container sets is content and not a mark."""
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer) as root:
        (root / "f").chmod(0o600)
        (root / "d/a").unlink()
        (root / "new").mkdir()
        (root / "new").rename(root / "moved")
        for path in (root, root / "d", root / "f", root / "moved"):
            shown = [name for name in os.listxattr(path) if ".overlay." in name]
            assert not shown, f"{path.name or '/'} shows overlay's own {shown}"
        for name in ("d", "f"):
            for mark in _MARKS:
                for space in ("trusted", "user"):
                    result_of(_set(f"{space}.overlay.{mark}"), root / name)

    with graphdriver.view(layer) as root:
        assert os.listdir(root / "d") == ["b"], "an attribute that a container set hides files"
        assert (root / "f").read_bytes() == b"f", "an attribute that a container set hides content"


def _set(name: str) -> Call:
    return lambda path: os.setxattr(path, name, b"y")


@verifies("FSX-023")
def test_other_trusted_attributes_work(graphdriver: Subject) -> None:
    """trusted.* xattrs that the host's file system supports are supported in the view."""

    def note(root: Path) -> bytes:
        os.setxattr(root / "f", "trusted.note", b"1")
        return os.getxattr(root / "f", "trusted.note")

    expected = result_of(note, plain_directory(graphdriver, IMAGE))
    if expected != b"1":
        graphdriver.not_provable(f"trusted.note cannot be set beside the home: {expected}")
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer) as root:
        assert result_of(note, root) == expected, "differs from a plain directory"


@verifies("FSX-019")
def test_device_like_a_whiteout_deletes_nothing(graphdriver: Subject) -> None:
    """mknod c 0 0 is a whiteout of overlayfs: a view refuses it, or it is an ordinary device."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        try:
            os.mknod(root / "d/a.new", stat.S_IFCHR | 0o600, os.makedev(0, 0))
        except OSError as error:
            graphdriver.note(f"refused: {error}")
            made: set[bytes] = set()
        else:
            (root / "d/a.new").rename(root / "d/c")
            made = {b"d/c"}
        names = set(IMAGE) | made

    copies = {layer: "mounted again", graphdriver.new_layer(layer, writable=True): "from above"}
    sibling = graphdriver.new_layer(base)
    try:
        graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
        copies[sibling] = "carried over"
    except (DriverError, OSError) as error:
        graphdriver.note(f"its archive is refused: {error}")
    for id, where in copies.items():
        assert_same_names(names, graphdriver.tree(id), f"{where}, it has changed")
