"""Selection and order of the tests."""

import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import Requirement, catalogue
from graphdriver_conformance.session.run import Run, verified

__all__ = ["Collection", "counts_of", "read_collected", "spec_of", "tests_of"]

_FILE = "collected.json"


class Collection:
    """The hooks that choose and order the tests."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test of the suite for each driver; its id contains the requirement as well."""
        if "graphdriver" in metafunc.fixturenames:
            marker = metafunc.definition.get_closest_marker("graphdriver_verifies")
            prefix = f"{marker.args[0]}-" if marker else ""
            specs = sorted(self._run.sources)
            ids = [f"{prefix}{spec}" for spec in specs]
            metafunc.parametrize("graphdriver", specs, indirect=True, ids=ids)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Keep the tests that `--requirement` selects, dependencies first."""
        known = catalogue()
        requested = self._requested(known)
        whole = list(items)
        yield
        chosen = set(map(id, items))
        if dropped := [item for item in items if not requested(verified(item))]:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if requested(verified(item))]
        # -k, --deselect, --lf or a conftest may leave out some tests of a requirement. Those are
        # missing then: a part of its tests does not show that it is met.
        asked = {row[1:] for row in tests_of(items)}
        left_out = tests_of(item for item in whole if id(item) not in chosen)
        self._run.left_out = [row for row in left_out if row[1:] in asked]
        ranks = {id: _depth(requirement, known) for id, requirement in known.items()}
        items.sort(key=lambda item: ranks.get(verified(item), 0))

    def _requested(self, known: Mapping[str, Requirement]) -> Callable[[str], bool]:
        """Return whether a requirement is selected, as a function. Raises pytest.UsageError."""
        requested = tuple(self._run.config.getoption("graphdriver_requirement"))
        unknown = [one for one in requested if not any(id.startswith(one) for id in known)]
        if unknown:
            raise pytest.UsageError(
                f"--requirement={unknown[0]}: no such requirement; `graphdriver list` shows them"
            )
        shard = self._run.shard
        share = shard.of(known) if shard else frozenset(known)

        def is_requested(id: str) -> bool:
            if not id:
                return True
            return (not requested or id.startswith(requested)) and (id not in known or id in share)

        return is_requested

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write the list of tests to a file for the process that gathers the results.

        xdist's controller receives only names of tests; the file has their requirements and SPECs.
        """
        if self._run.is_worker and not self._run.is_alone:
            beside = self._run.homes.base / _FILE
            beside.write_text(json.dumps([*tests_of(session.items), *self._run.left_out]))
            os.replace(beside, self._run.shared / _FILE)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send an xdist worker the directory of its homes and the facts about the drivers.

        With `--dist each` the worker determines both, because it may be on another machine.
        """
        if str(self._run.config.getoption("dist", "no")) == "each":
            node.workerinput["graphdriver_each"] = True
            return
        node.workerinput["graphdriver_base"] = str(self._run.homes.base)
        drivers = [one.to_data() for one in self._run.drivers.values()]
        node.workerinput["graphdriver_drivers"] = drivers


def spec_of(item: pytest.Item) -> str:
    """Return the SPEC of a test's driver, "" for a test without a driver."""
    call = getattr(item, "callspec", None)
    return str(call.params.get("graphdriver", "")) if call else ""


def tests_of(items: Iterable[pytest.Item]) -> list[tuple[str, str, str]]:
    """Return id, SPEC and requirement of each test that verifies one of a driver."""
    found = [(item.nodeid, spec_of(item), verified(item)) for item in items]
    return [row for row in found if row[1] and row[2]]


def read_collected(shared: Path) -> dict[str, tuple[str, str]]:
    """Return SPEC and requirement of every test by its id, as an xdist worker collected them."""
    try:
        rows = json.loads((shared / _FILE).read_text())
    except FileNotFoundError:
        return {}
    return {test: (spec, id) for test, spec, id in rows}


def counts_of(tests: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Return the number of tests of each requirement, from (SPEC, requirement) of every test."""
    found: dict[str, Counter[str]] = {}
    for spec, id in tests:
        found.setdefault(spec, Counter())[id] += 1
    return {spec: dict(by_id) for spec, by_id in found.items()}


def _depth(requirement: Requirement, known: dict[str, Requirement]) -> int:
    return 1 + max((_depth(known[id], known) for id in requirement.rests_on), default=0)
