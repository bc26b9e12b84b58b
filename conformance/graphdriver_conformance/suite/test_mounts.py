"""MNT: get and put, and the mounts of views."""

import os
import threading
from collections import Counter
from functools import partial
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.mountinfo import parse
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.strategies import trees
from graphdriver_conformance.oracle.tree import Tree, file
from graphdriver_conformance.suite.support.beside import started
from graphdriver_conformance.suite.support.effort import examples
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)
from graphdriver_conformance.suite.support.threads import all_at_once, at_once

IMAGE = Tree.of({"etc/hosts": b"one\n", "usr/bin/env": b"#!"})


def _container(graphdriver: Subject) -> str:
    return graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)


@verifies("MNT-001")
def test_get_returns_a_directory(graphdriver: Subject) -> None:
    """The meaning of a relative path depends on the caller's current directory."""
    base = graphdriver.build(IMAGE)
    for id in (base, graphdriver.new_layer(base)):
        with graphdriver.view(id) as root:
            assert root.is_absolute(), f"get returned the relative path {root}"
            assert root.is_dir(), f"get returned {root}, which is not a directory"


@verifies("MNT-002")
def test_get_of_an_unknown_id_makes_nothing(graphdriver: Subject) -> None:
    """Otherwise a container would start in an empty directory."""
    before = settled_names(graphdriver)

    graphdriver.refuses("get", "no-such-layer")

    assert_same_names(before, home_names(graphdriver.home), "the failed get changed the home")
    assert not graphdriver.exists("no-such-layer")


@verifies("MNT-003")
@given(holds=st.integers(2, 6))
@examples(5)
def test_view_survives_until_the_last_put(graphdriver: Subject, holds: int) -> None:
    """docker cp and docker diff hold the layer of a running container as well."""
    id = _container(graphdriver)
    paths = [graphdriver.get(id) for _ in range(holds)]
    assert len(set(paths)) == 1, f"gets of one layer returned {set(paths)}"

    for _ in range(holds - 1):
        graphdriver.put(id)
        assert_same_tree(IMAGE, observe(paths[0]), "put unmounted the view of another holder")

    graphdriver.put(id)


@verifies("MNT-004")
@given(holds=st.lists(st.integers(0, 2), min_size=1, max_size=8))
@examples(5)
def test_balanced_puts_leave_no_mount(graphdriver: Subject, holds: list[int]) -> None:
    """Random interleavings of the holders of three layers."""
    base = graphdriver.build(IMAGE)
    layers = [graphdriver.new_layer(base, writable=True) for _ in range(3)]

    for index in holds:
        graphdriver.get(layers[index])
    for index in reversed(holds):
        graphdriver.put(layers[index])

    assert graphdriver.mounts() == [], "mounts are left after the last put"


@verifies("MNT-005")
def test_put_without_get_has_no_effect(graphdriver: Subject) -> None:
    """A surplus put of one caller must not end the hold of another."""
    held, free = _container(graphdriver), _container(graphdriver)
    root = graphdriver.get(held)

    for id in (free, free, "never-created"):
        try:
            graphdriver.put(id)
        except (DriverError, OSError):
            graphdriver.note(f"put({id!r}) was refused")

    assert_same_tree(IMAGE, observe(root), "a put of another layer unmounted this one")
    first, second = graphdriver.get(free), graphdriver.get(free)
    graphdriver.put(free)
    assert second == first
    assert_same_tree(IMAGE, observe(second), "the put without a get ended a later hold")
    graphdriver.put(free)
    graphdriver.put(held)


@verifies("MNT-006")
def test_surplus_put_does_not_stack_mounts(graphdriver: Subject) -> None:
    """With a count of -1 the second get mounted again, over the first mount."""
    id = _container(graphdriver)
    try:
        graphdriver.put(id)
    except (DriverError, OSError):
        graphdriver.note("the put without a get was refused")
    graphdriver.get(id)
    root = graphdriver.get(id)

    stacked = [row for row in graphdriver.mount_table() if row.point == os.path.realpath(root)]

    graphdriver.put(id)
    graphdriver.put(id)
    assert len(stacked) == 1, f"{len(stacked)} mounts at {root}"
    assert graphdriver.mounts() == [], "mounts are left after the last put"


@verifies("MNT-007")
@given(tree=trees())
@examples(15)
def test_written_data_is_there_again(graphdriver: Subject, tree: Tree) -> None:
    """docker stop, docker start."""
    id = _container(graphdriver)

    graphdriver.fill(id, tree)

    assert_same_tree(tree, graphdriver.tree(id), "the layer has changed")


@verifies("MNT-007")
def test_data_written_to_a_hard_link_of_the_image_is_there_again(graphdriver: Subject) -> None:
    """fuse-overlayfs 1.10 showed the old content after a remount, or zeros after it."""
    image = Tree.of({"a": file(b"one", link=b"a"), "b": file(b"one", link=b"a"), "c": b"c"})
    base = graphdriver.build(image)
    id = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(id) as root, (root / "a").open("ab") as opened:
        opened.write(b" and two")

    with graphdriver.view(id) as root:
        assert (root / "a").read_bytes() == b"one and two", "the written data is lost"
        # The other name may be the same file, or keep the content of the image (overlay.rst).
        assert (root / "b").read_bytes() in (b"one", b"one and two")
    assert_same_tree(image, graphdriver.tree(base), "the image has changed")


@verifies("MNT-008")
def test_put_with_an_open_file(graphdriver: Subject) -> None:
    """A process usually has a log file open."""
    id = _container(graphdriver)
    root = graphdriver.get(id)
    with (root / "log").open("wb", buffering=0) as log:
        log.write(b"before ")
        graphdriver.put(id)
        log.write(b"after")

    with graphdriver.view(id) as root:
        assert (root / "log").read_bytes() == b"before after"


@verifies("MNT-009")
def test_put_with_a_process_inside(graphdriver: Subject) -> None:
    """The current directory of a shell is in the view."""
    id = _container(graphdriver)
    root = graphdriver.get(id)
    with started(graphdriver, ["cat"], cwd=root) as inside:
        graphdriver.put(id)
        inside.communicate()

    assert_same_tree(IMAGE, graphdriver.tree(id))


@verifies("MNT-011")
def test_base_layer_needs_no_mount(graphdriver: Subject) -> None:
    """Docker writes the first layer of an image there."""
    base = graphdriver.build(IMAGE)
    with graphdriver.view(base) as root:
        overlays = [str(row) for row in graphdriver.mount_table() if row.type == "overlay"]
        (root / "new").write_bytes(b"")

    assert overlays == [], "a base layer is mounted as an overlay"
    assert b"new" in graphdriver.tree(base)


@verifies("MNT-012")
@given(owners=st.lists(st.sets(st.sampled_from("abcd"), max_size=3), min_size=2, max_size=5))
@examples(12)
def test_topmost_layer_wins(graphdriver: Subject, owners: list[set[str]]) -> None:
    """Each layer rewrites some of four files; the content of the topmost layer is shown."""
    parent, shown = "", Tree()
    for depth, names in enumerate(owners):
        for name in names:
            shown = shown.with_(
                name.encode(), Tree.of({name: f"layer {depth}".encode()})[name.encode()]
            )
        parent = graphdriver.build(shown, parent)

    assert_same_tree(shown, graphdriver.tree(graphdriver.new_layer(parent)))


@verifies("MNT-016")
def test_mounting_keeps_the_working_directory(graphdriver: Subject) -> None:
    """os.getcwd() is sampled while other threads mount."""
    ids = [_container(graphdriver) for _ in range(4)]
    before = os.getcwd()
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(os.getcwd())

    def hold(id: str) -> None:
        for _ in range(5):
            graphdriver.driver.get(id)
            graphdriver.driver.put(id)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        all_at_once([partial(hold, id) for id in ids])
    finally:
        stop.set()
        watcher.join()

    elsewhere = sorted((seen | {os.getcwd()}) - {before})
    assert not elsewhere, f"the current directory of the process was {elsewhere}"


@verifies("MNT-021")
def test_writes_into_a_parent_do_not_reach_its_children(graphdriver: Subject) -> None:
    """The write is refused, which is preferred, or changes a copy."""
    parent = graphdriver.build(IMAGE, graphdriver.build(Tree.of({"old": b""})))
    child = graphdriver.new_layer(parent, writable=True)

    with graphdriver.view(parent) as root:
        try:
            (root / "intruder").write_bytes(b"")
        except OSError as error:
            graphdriver.note(f"refused: {error}")

    assert b"intruder" not in graphdriver.tree(child), (
        "a write to the parent's view is visible in the child"
    )


@verifies("MNT-022")
def test_no_upper_is_mounted_twice(graphdriver: Subject) -> None:
    """diff and changes of a running container must not mount its upper again."""
    base = graphdriver.build(IMAGE)
    id = graphdriver.new_layer(base, writable=True)
    root = graphdriver.get(id)
    (root / "new").write_bytes(b"x")
    with graphdriver.diff(id, base) as stream:
        stream.read(512)
        if graphdriver.claims(Capability.CHANGES):
            graphdriver.changes(id, base)
        graphdriver.get(id)
        uppers = [
            option
            for row in graphdriver.mount_table()
            for option in row.super_options.split(",")
            if option.startswith(("upperdir=", "workdir="))
        ]
    graphdriver.put(id)
    graphdriver.put(id)

    twice = sorted(option for option, count in Counter(uppers).items() if count > 1)
    assert not twice, f"mounted more than once: {twice}"


@verifies("MNT-024")
def test_path_is_the_same_after_a_restart(graphdriver: Subject) -> None:
    """docker inspect's MergedDir is copied into configurations of other programs."""
    id = _container(graphdriver)
    with graphdriver.view(id) as before:
        pass

    graphdriver.reopen()

    with graphdriver.view(id) as after:
        assert after == before


@verifies("MNT-025")
def test_many_threads_get_one_layer(graphdriver: Subject) -> None:
    """All gets return a view that exists, and there is one mount."""
    id = _container(graphdriver)

    def hold() -> Tree:
        return observe(Path(graphdriver.driver.get(id)))

    shown = at_once([hold] * 8)
    points = Counter(row.point for row in graphdriver.mount_table())
    failures = [one for one in shown if not isinstance(one, Tree)]
    for _ in range(len(shown) - len(failures)):
        graphdriver.put(id)

    assert not failures, f"{len(failures)} of 8 threads failed: {failures[0]!r}"
    for tree in shown:
        assert isinstance(tree, Tree)
        assert_same_tree(IMAGE, tree, "get returned before the view was mounted")
    stacked = sorted(point for point, count in points.items() if count > 1)
    assert not stacked, f"mounted more than once: {stacked}"
    assert graphdriver.mounts() == [], "mounts are left after the last put"


@verifies("MNT-010")
def test_failed_get_is_not_counted(graphdriver: Subject) -> None:
    """A label that exceeds the page fails; the next get is the first, and its put the last."""
    id = _container(graphdriver)
    for _ in range(3):
        graphdriver.refuses("get", id, "l" * (4 * os.sysconf("SC_PAGE_SIZE")))

    assert graphdriver.mounts() == [], "get failed, but something is mounted"
    assert_same_tree(IMAGE, graphdriver.tree(id), "after the failed gets")
    assert graphdriver.mounts() == [], "the failed gets were counted: put left the mount"
    graphdriver.remove(id)


@verifies("MNT-023")
def test_copies_of_the_mount_end_with_it(graphdriver: Subject) -> None:
    """A service that systemd starts meanwhile has a copy of every mount, and keeps it."""
    id = _container(graphdriver)
    graphdriver.get(id)
    # It reports that its namespace exists, then waits; then it prints its mount table.
    script = "echo there; read -r _; cat /proc/self/mountinfo"
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
    with started(graphdriver, command) as peer:
        assert peer.stdout is not None
        if peer.stdout.readline() != b"there\n":
            graphdriver.not_provable(
                "unshare(1) of util-linux cannot create a mount namespace here"
            )
        held = {(row.device, row.root) for row in graphdriver.mount_table()}
        graphdriver.put(id)
        table, _ = peer.communicate(b"\n")
    graphdriver.remove(id)

    # By device: the driver may have renamed the mount point.
    left = [str(row) for row in parse(table) if (row.device, row.root) in held]
    assert left == [], "after put the layer is still mounted in another mount namespace"
