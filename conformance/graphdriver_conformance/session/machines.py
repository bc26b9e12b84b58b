"""The machines of a run: one, or with xdist's `--dist each` all that run the whole suite.

With `--dist each` the machine that starts the run does not test anything itself. Each worker
creates its homes and initializes the drivers on its machine, and sends the facts with its first
report; each machine has its own results, verdict and files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from graphdriver_conformance.results.journal import Journal
from graphdriver_conformance.results.model import DriverInfo, RunInfo, RunResult, Where
from graphdriver_conformance.session.collection import counts_of, tests_of
from graphdriver_conformance.session.run import Run

__all__ = ["FACT", "Machine", "Sender", "label_of", "machine_from", "runs_on_each"]

FACT = "machine.name"
"""The fact of a result's environment that names the machine, where there are several."""

_EACH = "graphdriver_each"


def runs_on_each(config: pytest.Config) -> bool:
    """Return whether each worker runs all tests: in the controller, and in a worker."""
    given = getattr(config, "workerinput", None)
    if given is not None:
        return bool(given.get(_EACH))
    return str(config.getoption("dist", "no")) == "each"


@dataclass
class Machine:
    """The data of one machine: for each driver the head of its result, its journal, its tests.

    `name` is "" for the only machine; `tests` has SPEC and requirement of each test.
    """

    name: str
    heads: Mapping[str, RunResult]
    journal: Journal
    collected: dict[str, dict[str, int]] = field(default_factory=dict)
    tests: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def title(self, spec: str) -> str:
        """Return the heading of the verdict on a driver of this machine."""
        return f"{spec} on {self.name}" if self.name else spec


class Sender:
    """A worker's hooks: its first report contains the facts of the machine, and its tests."""

    def __init__(self, run: Run, started: str) -> None:
        self._run = run
        self._started = started
        self._tests: list[list[str]] = []
        self._is_sent = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep SPEC and requirement of every test."""
        self._tests = [list(row) for row in (*tests_of(session.items), *self._run.left_out)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add them to the first report, before xdist sends it."""
        if self._is_sent:
            return
        self._is_sent = True
        heads = [self._run.head(spec, self._started) for spec in self._run.drivers]
        report.graphdriver_machine = {  # type: ignore[attr-defined]
            "heads": [
                {
                    "suite": [one.suite, one.catalogue],
                    "driver": one.driver.to_data(),
                    "run": one.run.to_data(),
                    "environment": one.where.to_data(),
                    "started": one.started,
                }
                for one in heads
            ],
            "tests": self._tests,
        }


def label_of(node: Any) -> str:
    """Return a name for the machine of an xdist worker: its host, otherwise its number."""
    spec = node.gateway.spec
    for kind in ("ssh", "vagrant_ssh", "socket"):
        if where := getattr(spec, kind, None):
            # `ssh=` accepts options of ssh(1) before the host.
            return str(where).split()[-1]
    return str(node.gateway.id)


def machine_from(name: str, data: Mapping[str, Any], journal: Journal, command: RunInfo) -> Machine:
    """Return the machine that a worker described; `command` is the command of the controller."""
    heads = {}
    for one in data["heads"]:
        driver = DriverInfo.from_data(one["driver"])
        where = Where.from_data(one["environment"])
        heads[driver.spec] = RunResult(
            suite=one["suite"][0],
            catalogue=one["suite"][1],
            driver=driver,
            run=replace(RunInfo.from_data(one["run"]), command=command.command),
            where=replace(where, facts={**where.facts, FACT: name}),
            started=one["started"],
            seconds=0.0,
            requirements={},
        )
    tests = {test: (spec, id) for test, spec, id in data["tests"]}
    return Machine(name, heads, journal, counts_of(tests.values()), tests)
