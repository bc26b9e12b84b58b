"""MNT-013 to MNT-018: the one page of options that mount(2) copies.

The kernel copies a page less one byte of options and silently drops the rest; a container whose
last lowers are dropped lacks files.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakKeyDictionary

from hypothesis import given
from hypothesis import strategies as st

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import make_node
from graphdriver_conformance.oracle.tree import Tree, file
from graphdriver_conformance.suite.support.effort import examples, scaled

PAGE = os.sysconf("SC_PAGE_SIZE")


def _chain(graphdriver: Subject, depth: int) -> tuple[list[str], Tree]:
    """Create `depth` layers of one new file each; return their ids and the tree of the last.

    Only the new file is written: files that a view lacks must not be written again.
    """
    ids, tree = [""], Tree()
    for number in range(depth):
        name, node = b"f%d" % number, file(b"%d" % number)
        ids.append(graphdriver.new_layer(ids[-1], writable=True))
        with graphdriver.view(ids[-1]) as root:
            make_node(os.fsencode(root) + b"/" + name, node)
        tree = tree.with_(name, node)
    return ids[1:], tree


def _shows_it_or_refuses(graphdriver: Subject, id: str, wanted: Tree, label: str = "") -> bool:
    """Get `id`: the correct tree, or an error and no mount; return whether it was mounted."""
    try:
        root = graphdriver.get(id, label)
    except (DriverError, OSError):
        assert graphdriver.mounts() == [], "get failed, but something is mounted"
        return False
    try:
        assert_same_tree(wanted, observe(root), "the options were truncated: layers are missing")
    finally:
        graphdriver.put(id)
    return True


@verifies("MNT-013")
@given(depth=st.integers(1, 40), length=st.integers(1, 128), label=st.integers(0, 4200))
@examples(12)
def test_options_of_any_length_mount_or_fail(
    graphdriver: Subject, depth: int, length: int, label: int
) -> None:
    """The lengths of chain, id and label add up; all of them are chosen by callers."""
    ids, tree = _deep(graphdriver)
    id = f"{graphdriver.new_id('')[1:]}x".ljust(length, "x")[:128]
    graphdriver.create_read_write(id, ids[depth - 1])
    wanted = Tree({name: node for name, node in tree.items() if _number(name) < depth})

    _shows_it_or_refuses(graphdriver, id, wanted)
    if label:
        # A kernel without SELinux refuses any label; then no mount may be left.
        _shows_it_or_refuses(graphdriver, id, wanted, "l" * label)


def _number(name: bytes) -> int:
    return int(name[1:]) if name else -1


_DEEP: WeakKeyDictionary[Subject, tuple[list[str], Tree]] = WeakKeyDictionary()


def _deep(graphdriver: Subject) -> tuple[list[str], Tree]:
    """Return one chain of 40 for all examples of a test."""
    if graphdriver not in _DEEP:
        _DEEP[graphdriver] = _chain(graphdriver, 40)
    return _DEEP[graphdriver]


@verifies("MNT-014")
def test_options_around_one_page(graphdriver: Subject) -> None:
    """Ids are chosen so that the documented options have a page less two bytes to plus one byte."""
    ids, tree = _chain(graphdriver, min(128, graphdriver.layer_limit))
    for wanted in range(PAGE - 3, PAGE + 3):
        short = _option_length(graphdriver, ids[-1])
        # upperdir and workdir contain the id once each; the label's option has the other bytes.
        spare = wanted - short - len(',context=""')
        if spare < 1:
            graphdriver.not_provable(
                "with this page size, the options of the longest chain leave no space for a label"
            )
        id = graphdriver.new_layer(ids[-2], writable=True)
        less = Tree({name: node for name, node in tree.items() if name != b"f%d" % (len(ids) - 1)})
        label = "l" * (wanted - _option_length(graphdriver, id) - len(',context=""'))
        mounted = _shows_it_or_refuses(graphdriver, id, less, label)
        assert not (mounted and wanted > PAGE - 1), f"{wanted} bytes of options were mounted"
        graphdriver.remove(id)


def _option_length(graphdriver: Subject, id: str) -> int:
    """Return the length of the options of a documented layer, from home, without a label."""
    path = graphdriver.home / id / "lower"
    assert path.is_file(), f"the layer has a parent but no file lower: {path}"
    lower = path.read_bytes()
    index = "index=off," if os.path.exists("/sys/module/overlay/parameters/index") else ""
    userxattr = "userxattr," if graphdriver.environment.facts["userns"] == "true" else ""
    head = f"{index}{userxattr}lowerdir=,upperdir={id}/diff,workdir={id}/work"
    return len(head) + len(lower)


@verifies("MNT-015")
@given(length=st.integers(1, 200))
@examples(5)
def test_tree_does_not_depend_on_the_homes_name(graphdriver: Subject, length: int) -> None:
    """The same three layers, in homes with names of any length."""
    driver = graphdriver.open_another(
        graphdriver.home.parent / f"{graphdriver.new_id('h')}".ljust(length, "h")
    )
    graphdriver.use(driver)
    ids, tree = _chain(graphdriver, 3)

    assert_same_tree(tree, graphdriver.tree(ids[-1]))


@verifies("MNT-017")
def test_sixty_layers_below_homes_of_many_lengths(graphdriver: Subject) -> None:
    """24 is the length of /var/lib/docker/overlay2, where Docker's options were exactly a page."""
    for home in _homes(graphdriver):
        graphdriver.use(graphdriver.open_another(home))
        ids, tree = _chain(graphdriver, 60)
        assert_same_tree(tree, graphdriver.tree(ids[-1]), f"below {home}")


def _homes(graphdriver: Subject) -> Iterator[Path]:
    base = graphdriver.home.parent
    for length in (1, 24, 57, 123, 200)[: scaled(5)]:
        yield base / str(length).ljust(max(length - len(os.fspath(base)) - 1, 4), "-")


@verifies("MNT-018")
@given(extra=st.integers(0, 5000))
@examples(5)
def test_label_that_does_not_fit_is_refused(graphdriver: Subject, extra: int) -> None:
    """Independent of the kernel's support for labels: this one exceeds a page."""
    ids, _ = _deep(graphdriver)
    id = graphdriver.new_layer(ids[0], writable=True)

    graphdriver.refuses("get", id, "s0:c1,c2" + "l" * (PAGE + extra))

    assert graphdriver.mounts() == [], "get failed, but something is mounted"
