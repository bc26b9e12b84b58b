"""CON-006 to CON-008, CON-011, CON-013, CON-014: archives, child processes, histories, signals."""

import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import build_archive, entry_of, read_archive
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.history import Call, LayerModel, is_linearisable
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.tree import Tree, file
from graphdriver_conformance.suite.support.beside import run_program
from graphdriver_conformance.suite.support.effort import scaled
from graphdriver_conformance.suite.support.names import assert_same_names
from graphdriver_conformance.suite.support.threads import all_at_once

IMAGE = Tree.of({"etc/hosts": b"one\n", "etc/gone": b"", "usr/bin/env": b"#!"})
EDITED = Tree.of({"etc/hosts": b"edited\n", "usr/bin/env": b"#!", "var/log": b"x" * 70_000})
THREADS = 6
_VERBS = ["create", "exists", "exists", "get", "put", "put", "remove", "remove"]


def _read(graphdriver: Subject, id: str, parent: str) -> bytes:
    with graphdriver.driver.diff(id, parent) as stream:
        return stream.read()


@verifies("CON-006")
def test_archives_made_at_once(graphdriver: Subject) -> None:
    """Layers are pushed in parallel: each archive is complete and contains its own layer."""
    base = graphdriver.build(IMAGE)
    layers = {graphdriver.build(EDITED, base): EDITED, graphdriver.build(Tree(), base): Tree()}
    parents = (base, "") if graphdriver.claims(Capability.FLATTENED_DIFF) else (base,)
    wanted = [(id, parent, tree) for id, tree in layers.items() for parent in parents]
    for _ in range(scaled(3)):
        calls = [partial(_read, graphdriver, id, parent) for id, parent, _ in wanted] * 2
        archives = all_at_once(calls)

        for (_, parent, tree), archive in zip(wanted * 2, archives, strict=True):
            shown = apply_layer(IMAGE if parent else Tree(), read_archive(archive))
            assert_same_tree(tree, shown, "an archive of concurrent diffs")


@verifies("CON-007")
def test_archives_applied_at_once(graphdriver: Subject) -> None:
    """Layers of an image are unpacked in parallel: each contains only its own files."""
    base = graphdriver.build(IMAGE)
    ids = [graphdriver.new_layer(base) for _ in range(THREADS)]

    def apply(number: int, id: str) -> None:
        entries = [entry_of(f"d/{name}-{number}", file(b"x" * 5000)) for name in range(20)]
        with open(os.memfd_create("archive"), "w+b") as stream:
            stream.write(build_archive(entries))
            stream.seek(0)
            graphdriver.driver.apply_diff(id, base, stream)

    all_at_once([partial(apply, number, id) for number, id in enumerate(ids)])

    for number, id in enumerate(ids):
        shown = {name for name in graphdriver.tree(id) if name.startswith(b"d/")}
        wanted = {f"d/{name}-{number}".encode() for name in range(20)}
        assert_same_names(wanted, shown, f"layer {id}")


@verifies("CON-008")
def test_diff_leaves_the_holders_view(graphdriver: Subject) -> None:
    """docker diff, commit and cp of a running container, which keeps running."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(EDITED, base)
    done = threading.Event()

    def run() -> int:
        root = Path(graphdriver.driver.get(layer))
        reads = 0
        while not done.is_set() or not reads:
            assert (root / "etc/hosts").read_bytes() == b"edited\n", "the view changed"
            reads += 1
        assert (root / "etc/hosts").read_bytes() == b"edited\n", "the view was unmounted"
        graphdriver.driver.put(layer)
        return reads

    def look() -> int:
        try:
            for _ in range(scaled(4)):
                for parent in (base, ""):
                    _read(graphdriver, layer, parent)
                    if graphdriver.claims(Capability.CHANGES):
                        graphdriver.driver.changes(layer, parent)
                graphdriver.driver.get(layer)
                graphdriver.driver.put(layer)
        finally:
            done.set()
        return 0

    all_at_once([run, look])

    assert graphdriver.mounts() == [], "mounts are left after the last put"


@verifies("CON-011")
def test_children_inherit_no_descriptors_of_the_driver(graphdriver: Subject) -> None:
    """A program is started during a diff: an inherited descriptor would keep the disk busy."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(EDITED, base)
    list_own = (
        "import os\n"
        "for number in os.listdir('/proc/self/fd'):\n"
        "    path = b'/proc/self/fd/' + number.encode()\n"
        "    if os.path.lexists(path):\n"
        "        os.write(1, os.readlink(path) + b'\\0')\n"
    )
    with graphdriver.view(layer), graphdriver.diff(layer, "") as stream:
        stream.read(512)
        command = [sys.executable, "-I", "-S", "-c", list_own]
        done = run_program(graphdriver, command, close_fds=False)

    home = os.fsencode(graphdriver.home)
    inherited = [path for path in done.stdout.split(b"\0") if home in path]
    assert inherited == [], "a child inherited descriptors of the home"


@verifies("CON-013")
def test_histories_have_an_order(graphdriver: Subject) -> None:
    """The results of all threads fit one order of their calls: no client sees a partial layer."""
    base = graphdriver.build(IMAGE)
    for round in range(scaled(10)):
        chance = random.Random(round)
        clock = itertools.count()
        histories: dict[str, list[Call]] = {f"shared-{round}-{n}": [] for n in range(2)}

        def live(
            seed: int,
            clock: Iterator[int] = clock,
            histories: dict[str, list[Call]] = histories,
        ) -> None:
            own = random.Random(seed)
            held: list[str] = []
            for _ in range(12):
                id = own.choice(sorted(histories))
                verb = own.choice(
                    ["create", "exists", "exists", "get", "put", "put", "remove", "remove"]
                )
                if verb == "put" and id not in held:
                    continue
                began = next(clock)
                answer = _answer(graphdriver, verb, id, base)
                histories[id].append(Call(verb, began, next(clock), answer))
                if verb == "put":
                    held.remove(id)
                elif verb == "get" and answer:
                    held.append(id)
            for id in held:
                began = next(clock)
                _answer(graphdriver, "put", id, base)
                histories[id].append(Call("put", began, next(clock), True))

        all_at_once([partial(live, chance.randrange(1 << 30)) for _ in range(3)])
        for id, calls in histories.items():
            # By one thread, so that no concurrency can explain a result.
            for verb in ("create", "exists", "remove", "exists"):
                began = next(clock)
                answer = _answer(graphdriver, verb, id, base)
                calls.append(Call(verb, began, next(clock), answer))
            shown = "\n  ".join(map(str, sorted(calls, key=lambda call: call.began)))
            assert is_linearisable(calls, LayerModel()), (
                f"no sequential order explains these results:\n  {shown}"
            )


def _answer(graphdriver: Subject, verb: str, id: str, base: str) -> bool:
    arguments = (id, base) if verb == "create" else (id,)
    try:
        result = getattr(graphdriver.driver, verb)(*arguments)
    except (DriverError, OSError):
        return False
    return bool(result) if verb == "exists" else True


@verifies("CON-014")
def test_verbs_are_not_interrupted(graphdriver: Subject) -> None:
    """A process receives signals continuously, as Go's runtime sends them to itself."""
    if threading.current_thread() is not threading.main_thread():
        graphdriver.not_provable(
            "signals are delivered to the main thread only, and the test runs in another"
        )
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(EDITED, base)
    with (
        _frequent_signals() as count
    ):  # verbs only: the kernel handles interrupted writes in a view
        while count[0] < 50:
            sibling = graphdriver.new_layer(base)
            graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
            if graphdriver.claims(Capability.CHANGES):
                graphdriver.changes(sibling, base)
            assert_same_tree(EDITED, graphdriver.tree(sibling), "with signals during the verbs")
            graphdriver.remove(sibling)


@contextmanager
def _frequent_signals() -> Iterator[list[int]]:
    """Send a signal every half millisecond; yield how many were delivered."""
    count = [0]

    def note(*_: object) -> None:
        count[0] += 1

    before = signal.signal(signal.SIGALRM, note)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        yield count
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
