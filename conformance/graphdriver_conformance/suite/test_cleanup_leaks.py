"""CLN-004, CLN-005, CLN-007: what a driver's work leaves behind, and where."""

import io
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver_conformance.effort import scaled
from graphdriver_conformance.environment import mounts_below
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.requirement import verifies
from graphdriver_conformance.subject import Subject

IMAGE = Tree.of({"etc/hosts": b"one\n", "usr/bin/env": b"#!"})
EDITED = Tree.of({"etc/hosts": b"another\n", "usr/lib": b"x"})


def _use_everything(graphdriver: Subject) -> None:
    """Call every verb, as a life of two layers does, and let some of them fail."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(EDITED, base)
    sibling = graphdriver.new_layer(base)
    with graphdriver.view(layer):
        graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
        if graphdriver.claims(Capability.CHANGES):
            graphdriver.changes(layer, base)
        if graphdriver.claims(Capability.DIFF_SIZE):
            graphdriver.diff_size(layer, base)
        graphdriver.diff(layer, "").close()
        graphdriver.get_metadata(layer)
    assert_same_tree(EDITED, graphdriver.tree(sibling))
    graphdriver.refuses("create", graphdriver.new_id(), "no-such-parent")
    graphdriver.refuses("get", "no-such-layer")
    graphdriver.refuses("apply_diff", sibling, base, io.BytesIO(b"junk" * 300))
    for id in (sibling, layer, base):
        graphdriver.remove(id)


@verifies("CLN-004")
def test_no_mounts_outside_the_home(graphdriver: Subject) -> None:
    """While layers are held and afterwards: nobody looks for them elsewhere."""
    beside = graphdriver.home.parent

    def outside() -> set[str]:
        rows = set(mounts_below(beside)) - set(graphdriver.mounts())
        return rows | {row for row in mounts_below(Path("/")) if not _of_a_test(row)}

    before = outside()
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer):
        held = outside()
    _use_everything(graphdriver)

    assert set() == held - before, "a held layer has mounts outside the home"
    assert set() == outside() - before, "mounts outside the home are left"


def _of_a_test(row: str) -> bool:
    """Say whether a mount is in a directory of this run or another one's."""
    return any(part.startswith("graphdriver-") for part in row.split(" ", 1)[0].split("/"))


@verifies("CLN-005")
def test_nothing_grows(graphdriver: Subject) -> None:
    """Descriptors, threads and children, over some hundred verbs: daemons run for months."""
    _use_everything(graphdriver)
    before = _resources()
    for _ in range(scaled(8)):
        _use_everything(graphdriver)

    assert before == _resources(), "descriptors, threads or children are left"


def _resources() -> tuple[list[str], int, str]:
    descriptors = []
    for number in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{number}"
        if os.path.lexists(path):
            descriptors.append(os.readlink(path).partition(":")[0])
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return (
        sorted(descriptors),
        threading.active_count(),
        children.read_text() if children.exists() else "",
    )


@verifies("CLN-007")
def test_nothing_is_written_elsewhere(graphdriver: Subject) -> None:
    """Not beside the home, not where the process stands, and what goes to TMPDIR is gone after."""
    with _places_of_its_own(graphdriver.home.parent) as places:
        _use_everything(graphdriver)
        graphdriver.cleanup()
        left = {str(path) for place in places for path in place.rglob("*")}
    beside = {path.name for path in graphdriver.home.parent.iterdir()}

    assert set() == left, "files are left outside the home"
    assert {graphdriver.home.name, *(place.name for place in places)} == beside, "beside the home"


@contextmanager
def _places_of_its_own(base: Path) -> Iterator[list[Path]]:
    """Let the process stand in one empty directory and keep temporary files in another."""
    places = [base / "standing", base / "temporary"]
    for place in places:
        place.mkdir()
    stood, tmpdir, remembered = os.getcwd(), os.environ.get("TMPDIR"), tempfile.tempdir
    os.chdir(places[0])
    os.environ["TMPDIR"], tempfile.tempdir = str(places[1]), None
    try:
        yield places
    finally:
        os.chdir(stood)
        tempfile.tempdir = remembered
        if tmpdir is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = tmpdir
