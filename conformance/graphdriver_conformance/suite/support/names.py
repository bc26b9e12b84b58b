"""Names in the home before and after, and messages with the names that differ."""

import contextlib
import io
import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.tree import Tree

__all__ = [
    "assert_same_names",
    "assert_same_sequence",
    "assert_there",
    "home_names",
    "settled_names",
]

_Name = TypeVar("_Name", str, bytes)
_MOST = 12


def home_names(home: Path) -> set[str]:
    """Return every name below the home, relative to it."""
    found: set[str] = set()
    skipped = len(os.fspath(home)) + 1
    for directory, directories, others in os.walk(home):
        beginning = f"{directory[skipped:]}/" if len(directory) > skipped else ""
        found.update(beginning + name for name in (*directories, *others))
    return found


def settled_names(graphdriver: Subject, home: Path | None = None) -> set[str]:
    """Return the names in the home after a first use of the driver.

    A store may create its index, its journal or its directories with the first layer, or with the
    first removal: these are not remnants. Later names are.
    """
    with contextlib.suppress(DriverError, OSError):
        _live(graphdriver)
    return home_names(home or graphdriver.home)


def _live(graphdriver: Subject) -> None:
    """Create, use and remove a layer and its child, with every verb of the driver."""
    base = graphdriver.new_layer(writable=True)
    graphdriver.fill(base, Tree.of({"file": b"x"}))
    child = graphdriver.new_layer(base)
    graphdriver.exists(child)
    graphdriver.status()
    graphdriver.get_metadata(child)
    graphdriver.apply_diff(child, base, io.BytesIO(graphdriver.diff_bytes(base)))
    if graphdriver.claims(Capability.CHANGES):
        graphdriver.changes(child, base)
    if graphdriver.claims(Capability.DIFF_SIZE):
        graphdriver.diff_size(child, base)
    for id in (child, base):
        graphdriver.remove(id)


def assert_there(names: Iterable[bytes], found: Container[bytes], what: str) -> None:
    """Raise AssertionError with the names that `found` lacks; after it they can be looked up."""
    missing = [name for name in names if name not in found]
    if missing:
        raise AssertionError(f"{what} has no {_shown(missing)}")


def assert_same_names(expected: Iterable[_Name], actual: Iterable[_Name], message: str) -> None:
    """Raise AssertionError with the missing and the additional names."""
    wanted, found = set(expected), set(actual)
    if wanted != found:
        raise AssertionError(f"{message}: {_difference(wanted, found)}")


def assert_same_sequence(
    expected: Sequence[object], actual: Sequence[object], message: str
) -> None:
    """Raise AssertionError with the first element that differs, or is missing or additional."""
    if list(expected) == list(actual):
        return
    for place, (wanted, found) in enumerate(zip(expected, actual, strict=False)):
        if wanted != found:
            raise AssertionError(f"{message}: element {place} is {found!r}, expected {wanted!r}")
    if len(expected) > len(actual):
        raise AssertionError(f"{message}: missing {_shown(expected[len(actual) :])}")
    raise AssertionError(f"{message}: too many: {_shown(actual[len(expected) :])}")


def _difference(wanted: set[_Name], found: set[_Name]) -> str:
    parts = []
    if missing := sorted(wanted - found):
        parts.append(f"missing {_shown(missing)}")
    if extra := sorted(found - wanted):
        parts.append(f"too many: {_shown(extra)}")
    return "; ".join(parts)


def _shown(names: Sequence[object]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(map(repr, names[:_MOST])) + more
