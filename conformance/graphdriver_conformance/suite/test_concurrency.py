"""CON-001 to CON-005, CON-009, CON-010: concurrent creation, use and removal of layers."""

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.effort import scaled
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)
from graphdriver_conformance.suite.support.threads import all_at_once, at_once, refusals

IMAGE = Tree.of({"etc/hosts": b"one\n", "usr/bin/env": b"#!"})
THREADS = 6


def _used_base(graphdriver: Subject) -> str:
    """Return a layer that already had a child: the first child may change its directory."""
    base = graphdriver.build(IMAGE)
    graphdriver.remove(graphdriver.new_layer(base, writable=True))
    return base


@verifies("CON-001")
def test_layers_are_made_and_removed_at_once(graphdriver: Subject) -> None:
    """Many containers are started and stopped; no call fails, and nothing is left."""
    base = _used_base(graphdriver)
    before = settled_names(graphdriver)

    def live(number: int) -> None:
        for round in range(scaled(5)):
            id = f"thread{number}-{round}"
            graphdriver.driver.create_read_write(id, base)
            root = Path(graphdriver.driver.get(id))
            (root / "mine").write_bytes(id.encode())
            assert_same_names({*IMAGE, b"mine"}, observe(root), f"{id} does not have its own tree")
            graphdriver.driver.put(id)
            graphdriver.driver.remove(id)
            assert not graphdriver.driver.exists(id), f"{id} exists after remove"

    all_at_once([partial(live, number) for number in range(THREADS)])

    assert_same_names(before, home_names(graphdriver.home), "the home has changed")


@verifies("CON-002")
def test_one_id_is_made_once(graphdriver: Subject) -> None:
    """Two clients pull the same image; the layer is complete, whichever created it."""
    base = _used_base(graphdriver)
    before = settled_names(graphdriver)
    for _ in range(scaled(5)):
        id = graphdriver.new_id()
        outcomes = at_once([partial(graphdriver.driver.create, id, base)] * THREADS)

        assert len(refusals(outcomes)) < THREADS, f"no create succeeded: {outcomes[0]!r}"
        assert_same_tree(IMAGE, graphdriver.tree(id), "the layer is incomplete")
        graphdriver.remove(id)

    assert_same_names(before, home_names(graphdriver.home), "the race changed the home")


@verifies("CON-003")
def test_one_layer_is_held_by_many(graphdriver: Subject) -> None:
    """The view exists while one thread holds the layer, and not after the last put."""
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    for round in range(scaled(8)):
        chance = random.Random(round)
        holds = [chance.randint(1, 3) for _ in range(THREADS)]
        step = threading.Barrier(THREADS)
        hold = partial(_hold_and_put_in_turn, graphdriver, layer, step)
        all_at_once([partial(hold, number, count) for number, count in enumerate(holds)])
        assert graphdriver.mounts() == [], "mounts are left after the last put"


def _hold_and_put_in_turn(
    graphdriver: Subject, layer: str, step: threading.Barrier, number: int, count: int
) -> None:
    try:
        roots = [Path(graphdriver.driver.get(layer)) for _ in range(count)]
        for putting in range(THREADS):
            step.wait()
            if putting == number:
                for _ in roots:
                    graphdriver.driver.put(layer)
            step.wait()
            if putting < number:
                assert (roots[0] / "etc/hosts").read_bytes() == b"one\n", "not mounted while held"
    except BaseException:
        step.abort()
        raise


@verifies("CON-004")
def test_get_against_remove(graphdriver: Subject) -> None:
    """A container is started while its layer is removed: the result is as of one order."""
    base = graphdriver.build(IMAGE)
    wanted = Tree.of({**dict(IMAGE.items()), "mine": b"mine"})
    for _ in range(scaled(8)):
        id = graphdriver.build(wanted, base)

        def get(id: str = id) -> Path:
            return Path(graphdriver.driver.get(id))

        def remove(id: str = id) -> Path:
            graphdriver.driver.remove(id)
            return Path()

        got, removed = at_once([get, remove])

        if isinstance(removed, Path):
            assert not graphdriver.exists(id), f"remove succeeded, but {id} exists"
        else:
            assert isinstance(got, Path), f"the results fit no order: {got!r}, {removed!r}"
            assert_same_tree(wanted, observe(got), "a refused remove has removed the layer")
            graphdriver.put(id)
            graphdriver.remove(id)
    assert graphdriver.mounts() == [], "mounts are left"


@verifies("CON-005")
def test_children_of_a_held_parent(graphdriver: Subject) -> None:
    """Many containers of one image are inspected."""
    parent = graphdriver.build(IMAGE, graphdriver.build(Tree.of({"etc/hosts": b"zero\n"})))
    with graphdriver.view(parent) as root:
        ids = [graphdriver.new_id() for _ in range(THREADS * 2)]
        all_at_once([partial(graphdriver.driver.create, id, parent) for id in ids])

        for id in ids:
            assert_same_tree(IMAGE, graphdriver.tree(id), f"{id} differs from its parent")
        assert_same_tree(IMAGE, observe(root), "the view of the held parent is lost")


@verifies("CON-009")
def test_cleanup_while_layers_are_held(graphdriver: Subject) -> None:
    """The daemon is stopped while containers start: in the end nothing is mounted."""
    base = graphdriver.build(IMAGE)
    layers = [graphdriver.new_layer(base, writable=True) for _ in range(3)]

    def hold(id: str) -> None:
        for _ in range(scaled(5)):
            graphdriver.driver.get(id)
            graphdriver.driver.put(id)

    calls: list[Callable[[], None]] = [partial(hold, id) for id in layers]
    at_once([*calls, graphdriver.driver.cleanup])
    graphdriver.cleanup()

    assert graphdriver.mounts() == [], "mounts are left after cleanup"
    for id in layers:
        assert_same_tree(IMAGE, graphdriver.tree(id), "a layer has changed")


@verifies("CON-010")
def test_two_drivers_on_one_home(graphdriver: Subject) -> None:
    """A second daemon on the home is refused, or neither loses layers of the other."""
    base = graphdriver.build(IMAGE)
    try:
        other = graphdriver.open_another()
    except (DriverError, OSError) as error:
        graphdriver.note(f"the second is refused: {error}")
        return
    ids = [f"layer-of-{name}-{n}" for n in range(THREADS // 2) for name in ("first", "second")]
    both = [graphdriver.driver, other]

    all_at_once([partial(both[n % 2].create, id, base) for n, id in enumerate(ids)])

    for driver in both:
        assert [id for id in ids if not driver.exists(id)] == [], (
            "a driver does not see the other driver's layers"
        )
    for id in ids:
        assert_same_tree(IMAGE, graphdriver.tree(id), f"{id} is incomplete")
    all_at_once([partial(both[n // 2 % 2].remove, id) for n, id in enumerate(ids)])
    for driver in both:
        assert [id for id in ids if driver.exists(id)] == [], "a driver still sees removed layers"
