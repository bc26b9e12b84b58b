"""What each test says of its requirement."""

import shlex
from collections.abc import Generator
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.repro.script import Check, check_script, script
from graphdriver_conformance.results.outcome import Outcome
from graphdriver_conformance.session.judging import judge
from graphdriver_conformance.session.run import SUBJECT, Run, verified

__all__ = ["Reports"]


class Reports:
    """The hooks that make and gather reports; `said` has them by driver."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._compared: tuple[str, object, object] | None = None
        self.said: dict[str, list[dict[str, Any]]] = {spec: [] for spec in run.sources}
        self.foreign = 0
        self.foreign_failures = 0

    def pytest_assertrepr_compare(self, op: str, left: object, right: object) -> None:
        """Keep both sides of the comparison that failed: what was expected, and what came."""
        self._compared = (op, left, right)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, None]:
        """Add to each report what it says of its requirement."""
        report = (yield).get_result()
        id = verified(item)
        if not id:
            return
        spec = item.callspec.params.get("graphdriver", "")  # type: ignore[attr-defined]
        subject = item.stash.get(SUBJECT, None)
        requirement = catalogue()[id]
        if call.when == "setup":
            # The item's, not the report's: JUnit's are written with the last report of a test.
            item.user_properties += [("requirement", id), ("level", requirement.level.value)]
        error = call.excinfo.value if call.excinfo else None
        if error is None and call.when != "call":
            return
        recorder = subject.recorder if subject else None
        steps = recorder.finish() if recorder and error is not None else ()
        outcome, detail = judge(requirement, error, subject, self._compared)
        self._compared = None
        rerun = f"pytest --driver={shlex.quote(spec)} --requirement={id}"
        if outcome is Outcome.VIOLATED:
            report.longrepr = f"{id}: {requirement.title}\n{detail}\nreproduce: {rerun}"
        report.graphdriver = {
            "spec": spec,
            "requirement": id,
            "outcome": outcome.value,
            "detail": detail,
            "reproduce": rerun if error is not None else None,
            "seconds": call.duration,
            "examples": max(1, subject.examples) if subject else 0,
        }
        if recorder and outcome is Outcome.VIOLATED:
            check = self._check(item)
            if check:
                told = check_script(requirement, spec, check, detail or "")
                report.graphdriver["check_script"] = told
            if recorder.is_whole or not check:
                report.graphdriver["script"] = script(requirement, spec, steps, detail or "")

    def _check(self, item: pytest.Item) -> Check | None:
        """Return how the suite's own test can be called; authors' checks may want more fixtures."""
        module = item.module.__name__  # type: ignore[attr-defined]
        if not module.startswith("graphdriver_conformance."):
            return None
        places = item.callspec.indices  # type: ignore[attr-defined]
        option = self._run.config.getoption
        return Check(
            f"{module}:{item.originalname}",  # type: ignore[attr-defined]
            item.obj.__doc__ or "",  # type: ignore[attr-defined]
            {name: place for name, place in places.items() if name != "graphdriver"},
            self._run.options,
            option("graphdriver_profile"),
            option("graphdriver_seed"),
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a report says; with xdist this runs where all of them arrive."""
        said = getattr(report, "graphdriver", None)
        if said:
            self.said[said["spec"]].append(said)
        elif report.when == "call" or report.failed:
            self.foreign += 1
            self.foreign_failures += report.failed
