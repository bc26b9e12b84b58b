"""The report of each test, with the result of its requirement."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.repro.script import Check, check_script, script
from graphdriver_conformance.results.model import (
    Outcome,
    Reason,
    RequirementResult,
    TestResult,
)
from graphdriver_conformance.results.outcomes import FATAL
from graphdriver_conformance.results.text import finding
from graphdriver_conformance.session.classify import Compared, classify, printable
from graphdriver_conformance.session.collection import read_collected, spec_of
from graphdriver_conformance.session.fixture import RESULT
from graphdriver_conformance.session.run import SUBJECT, Run, verified

__all__ = ["Reports"]


class Reports:
    """The hooks that create reports; `foreign` counts the tests that verify no requirement."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._compared: Compared | None = None
        self.foreign = 0
        self.foreign_failures = 0

    def pytest_assertrepr_compare(self, op: str, left: object, right: object) -> None:
        """Keep both operands of the failed comparison."""
        self._compared = (op, left, right)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the result of its requirement to each report."""
        report = yield
        try:
            return self._with_result(item, call, report)
        finally:
            if call.when == "teardown" and SUBJECT in item.stash:
                # Items exist as long as the session, and a driver has descriptors as long as it
                # exists: those of all tests together may exceed RLIMIT_NOFILE.
                del item.stash[SUBJECT]

    def _with_result(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> pytest.TestReport:
        id = verified(item)
        if not id:
            return report
        if call.when == "setup":
            # The item's properties, not the report's: JUnit's are written with the last report of a
            # test.
            level = catalogue()[id].level.value
            item.user_properties += [("requirement", id), ("level", level)]
        error = call.excinfo.value if call.excinfo else None
        if error is None and call.when != "call":
            return report
        result, scripts = self._result(item, id, error)
        result = replace(result, seconds=call.duration)
        item.stash[RESULT] = result
        lines = [f"{id}: {result.title}", *finding(result)]
        if result.outcome is Outcome.VIOLATED:
            report.longrepr = "\n".join([*lines, f"reproduce: {result.reproduce}"])
            if waived := self._run.waiver_of(id):
                path, line, _ = item.location
                report.outcome = "skipped"
                report.longrepr = (path, line or 0, "\n".join([waived, *lines]))
        reported = TestResult(spec_of(item), item.nodeid, result, scripts)
        report.graphdriver = reported.to_data()  # type: ignore[attr-defined]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the tests that are not the suite's; record violations that stop dependent tests."""
        data = getattr(report, "graphdriver", None)
        if data:
            reported = TestResult.from_data(data)
            if reported.result.outcome is Outcome.VIOLATED and reported.result.reason in FATAL:
                self._run.remember_fatal(reported.spec, reported.result.id)
        elif report.when == "call" or report.failed:
            mine = dict(report.user_properties).get("requirement")
            self.foreign += not mine
            self.foreign_failures += bool(report.failed and not mine)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Add the result of its requirement to the report of a test whose xdist worker died.

        The tests run in a child of the worker, so the driver has killed its parent process.
        """
        if getattr(report, "graphdriver", None) is None:
            self.lost_test(crashitem, report, read_collected(self._run.shared))

    def lost_test(
        self, test: str, report: pytest.TestReport, tests: Mapping[str, tuple[str, str]]
    ) -> None:
        """Turn the report of a lost test into a violation; `tests` has SPEC and requirement of
        each.
        """
        spec, id = tests.get(test, ("", ""))
        if id:
            result = RequirementResult.of(
                catalogue()[id],
                Outcome.VIOLATED,
                reason=Reason.PROCESS_DIED,
                expected="the process that started the driver continues",
                actual="the process that started the driver died during the test",
                examples=1,
                reproduce=self._run.reproduce(spec, id),
            )
            report.graphdriver = (  # type: ignore[attr-defined]
                TestResult(spec, test, result).to_data()
            )
            self._run.remember_fatal(spec, id)

    def _result(
        self, item: pytest.Item, id: str, error: BaseException | None
    ) -> tuple[RequirementResult, tuple[str, ...]]:
        """Return the result of a test, and the scripts that may reproduce a violation."""
        spec, requirement = spec_of(item), catalogue()[id]
        subject = item.stash.get(SUBJECT, None)
        recorder = subject.recorder if subject else None
        steps = recorder.finish() if recorder and error is not None else ()
        result = classify(requirement, error, subject, self._compared)
        self._compared = None
        result = replace(result, examples=max(1, subject.examples) if subject else 0)
        if result.outcome not in (Outcome.VIOLATED, Outcome.ERROR):
            return result, ()
        result = replace(result, reproduce=printable(self._run.reproduce(spec, id)))
        if result.outcome is Outcome.ERROR:
            return result, ()
        result = replace(result, kept=self._run.place_to_keep(id))
        if recorder is None:
            return result, ()
        check = self._check(item, subject)
        shows_all = recorder.is_whole and not (subject and subject.fault)
        scripts = [script(requirement, spec, steps, result)] * (shows_all or not check)
        scripts += [check_script(requirement, spec, check, result)] if check else []
        return result, tuple(scripts)

    def _check(self, item: pytest.Item, subject: Subject | None) -> Check | None:
        """Return how the suite's own test can be called; other checks may need more fixtures."""
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
            subject.fault if subject else None,
        )


def test_result_of(report: Any) -> TestResult | None:
    """Return the result that a report carries, None for a report of another test."""
    data = getattr(report, "graphdriver", None)
    return TestResult.from_data(data) if data else None
