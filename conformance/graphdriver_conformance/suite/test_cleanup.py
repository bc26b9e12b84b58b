"""CLN: cleanup and the end of a driver."""

import os
import shutil
import subprocess
import sys

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.drivers import deadline
from graphdriver_conformance.fixture.subject import PastDeadline, Subject
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support import exiting
from graphdriver_conformance.suite.support.beside import directory_beside, importing_as_here
from graphdriver_conformance.suite.support.names import assert_same_names, home_names, settled_names

IMAGE = Tree.of({"etc/hosts": b"one\n"})


@verifies("CLN-001")
def test_cleanup_ends_held_mounts(graphdriver: Subject) -> None:
    """At shutdown all layers are unmounted, including held ones."""
    base = graphdriver.build(IMAGE)
    for _ in range(3):
        graphdriver.get(graphdriver.new_layer(base, writable=True))

    graphdriver.cleanup()

    assert graphdriver.mounts() == [], "mounts are left after cleanup"


@verifies("CLN-002")
def test_cleanup_twice(graphdriver: Subject) -> None:
    """cleanup is called twice, and on an unused driver."""
    graphdriver.cleanup()
    child = graphdriver.new_layer(graphdriver.build(IMAGE))

    graphdriver.cleanup()
    graphdriver.cleanup()

    assert_same_tree(IMAGE, graphdriver.tree(child))


@verifies("CLN-003")
def test_layers_survive_cleanup_and_init(graphdriver: Subject) -> None:
    """Held layers keep their written files."""
    id = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    (graphdriver.get(id) / "new").write_bytes(b"new")

    graphdriver.reopen()

    assert_same_names({*IMAGE, b"new"}, graphdriver.tree(id), "the layer")


@verifies("CLN-006")
def test_removing_everything_leaves_the_home_as_it_was(graphdriver: Subject) -> None:
    """Files are compared by name: file systems may keep blocks, and a store the index of its first
    use.
    """
    before = settled_names(graphdriver)
    ids = [graphdriver.build(IMAGE)]
    for _ in range(5):
        ids.append(graphdriver.new_layer(ids[-1], writable=True))
        with graphdriver.view(ids[-1]) as root:
            (root / "new").write_bytes(b"x")

    for id in reversed(ids):
        graphdriver.remove(id)

    assert_same_names(before, home_names(graphdriver.home), "the home has changed")


@verifies("CLN-010")
def test_process_can_exit(graphdriver: Subject) -> None:
    """At exit Python waits for every thread that is not a daemon thread."""
    place = directory_beside(graphdriver, "alone")
    arguments = [graphdriver.source.spec, str(place / "home"), *graphdriver.options]
    command = [sys.executable, "-m", exiting.__name__, *arguments]
    with (
        own_work("start another Python"),
        (place / "output").open("wb") as output,
        (place / "errors").open("wb") as errors,
    ):
        # Files, because a pipe would wait for all child processes of the driver.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=importing_as_here()
        )
    graphdriver.program.line("in another process: init, create, get, put, diff, cleanup, exit")
    try:
        status = process.wait(deadline())
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        threads = ", ".join((place / "output").read_text().splitlines())
        raise PastDeadline(
            f"{deadline():g} s after its start the process has not ended; "
            + (f"it waits for the thread(s) {threads}" if threads else "it waits for no thread")
        ) from None
    message = (place / "errors").read_text(errors="replace").strip().rpartition("\n")[2]
    assert status == 0, f"the process ended with status {status}: {message}"


@verifies("CLN-009")
def test_home_can_be_deleted(graphdriver: Subject) -> None:
    """The home is deleted with rm -rf after the daemon has stopped."""
    id = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    graphdriver.get(id)

    graphdriver.cleanup()
    shutil.rmtree(graphdriver.home)

    assert not graphdriver.home.exists()
    os.makedirs(graphdriver.home)
