"""The same calls on a layer's view and on a plain directory beside it.

A program in a container must not observe a difference: in the result or error of a call, and in its
effect. The plain directory is on the home's own file system, so that features which this lacks are
not required of a driver.
"""

import errno
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Node, Tree
from graphdriver_conformance.suite.support.beside import directory_beside
from graphdriver_conformance.suite.support.effort import scaled

__all__ = ["Before", "Call", "Case", "assert_calls_agree", "plain_directory", "result_of", "some"]

Call = Callable[[Path], object]
"""An operation below a directory; returns its observable result, or raises OSError."""

Before = Mapping[str | bytes, Node | bytes | str]
"""An argument of `Tree.of`."""

_MOST_LINES = 12


@dataclass(frozen=True, slots=True)
class Case:
    """A call, and the files in its directory before it: of a lower layer, and created by `prepare`.

    `may_refuse` are errors that a view may return instead of success, if nothing has changed: EXDEV
    for the rename of a directory, after which mv(1) copies.
    """

    call: Call
    before: Before
    may_refuse: tuple[str, ...] = ()
    prepare: Call | None = None


def assert_calls_agree(graphdriver: Subject, cases: Mapping[str, Case], aspects: Aspect) -> None:
    """Make every call on a lower layer's files, through a view, and on a plain directory.

    Results and trees must be equal: immediately, after a remount, and in a child layer.
    """
    tree = _tree_of(cases)
    layer = graphdriver.new_layer(graphdriver.build(tree), writable=True)
    plain = plain_directory(graphdriver, tree)
    with graphdriver.view(layer) as view:
        refused = _call_all(cases, view, plain)
        wanted = _without(observe(plain), refused)
        assert_same_tree(wanted, _without(observe(view), refused), "at once", aspects)
    for id, when in ((layer, "mounted again"), (graphdriver.new_layer(layer), "from above")):
        assert_same_tree(wanted, _without(graphdriver.tree(id), refused), when, aspects)


def plain_directory(graphdriver: Subject, tree: Tree) -> Path:
    """Create a plain directory with `tree`, beside the home; it is removed when the test ends."""
    return directory_beside(graphdriver, graphdriver.new_id("plain"), tree)


def result_of(call: Call, root: Path) -> object:
    """Return the result of the call, or the name of its errno; paths are not compared."""
    try:
        result = call(root)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return None if isinstance(result, Path) else result


def some(cases: Mapping[str, Case]) -> dict[str, Case]:
    """Return the cases of the profile: quick makes every fifth call.

    A fifth, because 5 is not a divisor of the sizes of the matrices: some calls of each row are
    made.
    """
    step = max(1, len(cases) // scaled(len(cases)))
    return dict(itertools.islice(cases.items(), 0, None, step))


def _call_all(cases: Mapping[str, Case], view: Path, plain: Path) -> set[str]:
    """Make the calls; return the cases that the view refused as allowed."""
    lines: list[str] = []
    refused: set[str] = set()
    for name, case in cases.items():
        if case.prepare:
            case.prepare(view / name)
            case.prepare(plain / name)
        before = observe(view / name) if case.may_refuse else Tree()
        actual = result_of(case.call, view / name)
        expected = result_of(case.call, plain / name)
        if actual != expected and actual in case.may_refuse:
            refused.add(name)
            assert_same_tree(before, observe(view / name), f"{name}: {actual}, but not without")
        elif actual != expected:
            lines.append(f"{name}: a plain directory returns {expected}, the view {actual}")
    more = [f"... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    assert not lines, "\n  ".join(["a program observes a difference", *lines[:_MOST_LINES], *more])
    return refused


def _tree_of(cases: Mapping[str, Case]) -> Tree:
    nodes = {}
    for name, case in cases.items():
        raw = os.fsencode(name)
        for below, node in Tree.of(case.before).items():
            nodes[raw + b"/" + below if below else raw] = node
    return Tree(nodes)


def _without(tree: Tree, names: set[str]) -> Tree:
    raw = {os.fsencode(name) for name in names}
    return Tree({k: v for k, v in tree.items() if k.partition(b"/")[0] not in raw})
