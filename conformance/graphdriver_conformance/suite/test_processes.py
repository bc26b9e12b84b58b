"""CON-018 to CON-020: a second process on the home, and a forked child of the driver's process."""

import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

from graphdriver.contract import Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.drivers import NoAnswer, deadline
from graphdriver_conformance.faults.processes import cannot_start, start
from graphdriver_conformance.fixture.subject import Subject, inner
from graphdriver_conformance.host.processes import die_with_parent, kill_tree
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.names import assert_same_names, assert_there
from graphdriver_conformance.suite.support.threads import all_at_once

IMAGE = Tree.of({"etc/hosts": b"one\n", "usr/bin/env": b"#!"})
_COUNT = 4
_END = "end: "


@verifies("CON-018")
def test_two_processes_on_one_home(graphdriver: Subject) -> None:
    """Both create, write and remove layers; each uses layers of the other."""
    if reason := cannot_start(graphdriver.source):
        graphdriver.not_provable(reason)
    base = graphdriver.build(IMAGE)
    if graphdriver.recorder:
        graphdriver.recorder.is_whole = False
    process = start(graphdriver.source)
    try:
        graphdriver.program.line("in another process: second = init(HOME)")
        try:
            second = process.init(graphdriver.home, graphdriver.options)
        except NoAnswer:
            raise
        except (DriverError, OSError) as error:
            graphdriver.note(f"the second process is refused: {error}")
        else:
            _use_both(graphdriver, second, base)
    finally:
        process.end()
    assert_same_tree(IMAGE, graphdriver.tree(base), "the base, without the second process")


def _use_both(graphdriver: Subject, second: Driver, base: str) -> None:
    drivers = {"first": graphdriver.driver, "second": second}
    own = {who: [f"of-the-{who}-{number}" for number in range(_COUNT)] for who in drivers}
    ids = [id for some in own.values() for id in some]

    def create(who: str) -> None:
        for id in own[who]:
            drivers[who].create_read_write(id, base)

    all_at_once([partial(create, who) for who in drivers])
    for who, driver in drivers.items():
        missing = [id for id in ids if not driver.exists(id)]
        assert missing == [], f"the {who} process does not see all layers"

    for writer, reader in (("first", "second"), ("second", "first")):
        id = own[writer][0]
        root = Path(drivers[writer].get(id))
        (root / "new").write_bytes(writer.encode())
        drivers[writer].put(id)
        child = f"child-by-the-{reader}"
        drivers[reader].create_read_write(child, id)
        for shown in (id, child):
            tree = observe(Path(drivers[reader].get(shown)))
            drivers[reader].put(shown)
            assert_there([b"new"], tree, f"{shown} in the {reader} process")
            assert tree[b"new"].content == writer.encode(), f"{shown} in the {reader} process"
        drivers[reader].remove(child)
    for id in ids[1:_COUNT] + ids[_COUNT + 1 :]:
        assert_same_tree(IMAGE, graphdriver.tree(id), f"{id} is incomplete")

    def remove(driver: Driver, offset: int) -> None:
        """Remove every second layer of each process."""
        for some in own.values():
            for id in some[offset::2]:
                driver.remove(id)

    all_at_once([partial(remove, driver, offset) for offset, driver in enumerate(drivers.values())])
    for who, driver in drivers.items():
        left = [id for id in ids if driver.exists(id)]
        assert left == [], f"the {who} process still sees removed layers"


@verifies("CON-019")
def test_forked_child_leaves_the_parents_views(graphdriver: Subject) -> None:
    """multiprocessing forks: the child gets and puts a layer that the parent process holds."""
    base = graphdriver.build(IMAGE)
    held = graphdriver.new_layer(base, writable=True)
    root = graphdriver.get(held)
    (root / "mine").write_bytes(b"mine")

    if refused := _in_fork(graphdriver, base, held, "of-the-child"):
        graphdriver.note(f"the child's calls were refused: {refused}")

    wanted = {*IMAGE, b"mine"}
    assert_same_names(wanted, observe(root), "the view of the parent process")
    assert (root / "mine").read_bytes() == b"mine", "the view of the parent process"
    graphdriver.put(held)
    left = graphdriver.mounts()
    assert left == [], "mounts are left after the last put of the parent process"
    assert_same_names(wanted, graphdriver.tree(held), "the layer of the parent process")
    assert_same_tree(IMAGE, graphdriver.tree(base), "the base")


@verifies("CON-020")
def test_driver_works_in_a_forked_child(graphdriver: Subject) -> None:
    """create, get, put and diff; the parent process uses the child's layer afterwards."""
    base = graphdriver.build(IMAGE)
    held = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(held):
        refused = _in_fork(graphdriver, base, held, "of-the-child")
    assert refused == "", "the calls of the child"

    assert_same_names({*IMAGE, b"new"}, graphdriver.tree("of-the-child"), "the child's layer")
    graphdriver.remove("of-the-child")
    assert not graphdriver.exists("of-the-child"), "remove left the child's layer"


def _in_fork(graphdriver: Subject, base: str, held: str, own: str) -> str:
    """Use the driver in a forked child; return its error, "" for none."""
    if graphdriver.recorder:
        graphdriver.recorder.is_whole = False
    graphdriver.program.line(
        f"in a forked child: create, get, put of {own}; get, put, diff of {held}"
    )
    ours, theirs = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns if the driver has threads, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            die_with_parent()
            error = _used(inner(graphdriver.driver), base, held, own, theirs.send)
            theirs.send(_END + error)
        finally:
            os._exit(0)
    theirs.close()
    doing = ""
    try:
        while ours.poll(deadline()):
            doing = str(ours.recv())
            if doing.startswith(_END):
                return doing.removeprefix(_END)
        return f"{doing} did not return within {deadline():g} s"
    except EOFError:
        return f"the child died in {doing}"
    finally:
        kill_tree([child])
        os.waitpid(child, 0)
        ours.close()


def _used(driver: Driver, base: str, held: str, own: str, tell: Callable[[str], None]) -> str:
    """Call the verbs, and tell which one before each call; return the error, "" for none."""
    try:
        tell(f"create_read_write({own!r}, {base!r})")
        driver.create_read_write(own, base)
        tell(f"get({own!r})")
        (Path(driver.get(own)) / "new").write_bytes(b"new")
        tell(f"put({own!r})")
        driver.put(own)
        tell(f"get({held!r})")
        driver.get(held)
        tell(f"put({held!r})")
        driver.put(held)
        tell(f"diff({held!r}, {base!r})")
        with driver.diff(held, base) as stream:
            stream.read()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""
