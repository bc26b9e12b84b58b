"""CLN-004, CLN-005, CLN-007: resources and files that a driver leaks."""

import io
import os
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.mountinfo import Mount, mounts_below
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.effort import scaled
from graphdriver_conformance.suite.support.names import assert_same_names
from graphdriver_conformance.suite.support.resources import resources

IMAGE = Tree.of({"etc/hosts": b"one\n", "usr/bin/env": b"#!"})
EDITED = Tree.of({"etc/hosts": b"another\n", "usr/lib": b"x"})


def _use_everything(graphdriver: Subject) -> None:
    """Call every verb on two layers, including calls that fail."""
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
    """Mounts elsewhere are not found, neither while layers are held nor afterwards."""
    beside = graphdriver.home.parent

    def outside() -> set[str]:
        number = graphdriver.home.stat().st_dev
        disk = f"{os.major(number)}:{os.minor(number)}"
        below = {row.device for row in graphdriver.mount_table()} - {disk}
        rows = {str(row) for row in mounts_below(beside)} - set(graphdriver.mounts())
        elsewhere = (row for row in mounts_below("/") if not _of_a_test(row))
        return rows | {
            str(row)
            for row in elsewhere
            # In a shared namespace other programs mount, too.
            if graphdriver.source.mount_here or _is_of(row, graphdriver.home, below)
        }

    # The daemon's own disk has the device of a view once the first view is mounted (btrfs).
    before = outside() | {str(row) for row in mounts_below("/")}
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer):
        held = outside()
    _use_everything(graphdriver)

    assert sorted(held - before) == [], "a held layer has mounts outside the home"
    assert sorted(outside() - before) == [], "mounts outside the home are left"


def _of_a_test(row: Mount) -> bool:
    """Return whether a mount is in a directory of this run."""
    return any(part.startswith("graphdriver-") for part in row.point.split("/"))


def _is_of(row: Mount, home: Path, devices: Container[str]) -> bool:
    """Return whether a mount shows a part of the home: a layer, or a view."""
    return row.device in devices or str(home) in f"{row.source} {row.root} {row.super_options}"


@verifies("CLN-005")
def test_descriptors_threads_and_children_do_not_leak(graphdriver: Subject) -> None:
    """Descriptors, threads and child processes are counted over some hundred verbs.

    A leak in each round is as large as the number of rounds. Smaller differences may be temporary:
    a server notices late that a client has closed its connection.
    """
    _use_everything(graphdriver)
    before = resources(graphdriver.process)
    rounds = scaled(8)
    for _ in range(rounds):
        _use_everything(graphdriver)

    more = resources(graphdriver.process) - before
    left = [f"{count} of {what}" for what, count in sorted(more.items()) if count >= rounds]
    assert left == [], f"left after {rounds} uses"


@verifies("CLN-007")
def test_nothing_is_written_elsewhere(graphdriver: Subject) -> None:
    """No file is left beside the home, in the current directory or in TMPDIR."""
    with _places_of_its_own(graphdriver.home.parent) as places:
        _use_everything(graphdriver)
        graphdriver.cleanup()
        left = {str(path) for place in places for path in place.rglob("*")}
    beside = {path.name for path in graphdriver.home.parent.iterdir()}

    assert sorted(left) == [], "files are left outside the home"
    wanted = {graphdriver.home.name, *(place.name for place in places)}
    assert_same_names(wanted, beside, "beside the home")


@contextmanager
def _places_of_its_own(base: Path) -> Iterator[list[Path]]:
    """Run with an empty current directory and an empty TMPDIR."""
    places = [base / "standing", base / "temporary"]
    for place in places:
        place.mkdir()
    cwd, tmpdir, remembered = os.getcwd(), os.environ.get("TMPDIR"), tempfile.tempdir
    os.chdir(places[0])
    os.environ["TMPDIR"], tempfile.tempdir = str(places[1]), None
    try:
        yield places
    finally:
        os.chdir(cwd)
        tempfile.tempdir = remembered
        if tmpdir is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = tmpdir
