"""Runs each test of a driver in a supervised process; the supervisor reports lost tests."""

import os
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.drivers import deadline
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.results.model import (
    Outcome,
    Reason,
    RequirementResult,
    TestResult,
)
from graphdriver_conformance.results.text import finding
from graphdriver_conformance.session.collection import spec_of
from graphdriver_conformance.session.fixture import keep_home
from graphdriver_conformance.session.run import Run, verified
from graphdriver_conformance.session.supervisor import Child, ChildDied, ChildHung
from graphdriver_conformance.session.warned import forward, recorded

__all__ = ["Protocol"]

_MOST_CALLS = 40
# The requirement that a driver violates if it cannot be created.
_INIT = "INI-001"


class Protocol:
    """The hooks that run a test: in a child of this process, unless a debugger was requested."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._child: Child | None = None
        self._process = os.getpid()
        self._home: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Run a test that has a driver in the child, and log what the child reports."""
        if not spec_of(item) or item.config.getoption("usepdb") or item.config.getoption("trace"):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item, nextitem):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """End the child; immediately if the run was interrupted."""
        if self._child and os.getpid() == self._process:
            if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                self._child.end(deadline())
            self._child.kill()
            self._child = None

    def _reports(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Iterable[pytest.TestReport]:
        id = verified(item)
        if id and (result := self._unrun(item, id)):
            return _synthetic(item, result)
        items = item.session.items
        following = items.index(nextitem) if nextitem and spec_of(nextitem) else None
        if self._child is None:
            self._child = Child(
                lambda pipe: self._serve(pipe, items), self._run.watch, self._run.homes.base
            )
        self._run.watch.start_program()
        self._child.send((items.index(item), following))
        try:
            reports = [self._report_of(one) for one in self._answer(item)]
        except (ChildDied, ChildHung) as error:
            result = self._lost(item, error)
            self._child.kill()
            self._child = None
            return _synthetic(item, result)
        if call := self._run.watch.copied():
            return _synthetic(item, self._copied(item, call))
        return reports

    def _answer(self, item: pytest.Item) -> list[dict[str, Any]]:
        """Return the reports of the test, as data. Raises ChildDied, ChildHung."""
        assert self._child
        self._home = None
        while True:
            kind, data = self._child.receive(self._run.deadline(spec_of(item)))
            if kind == "home":
                self._home = Path(data)
            elif kind == "warned":
                forward(item, data)
            else:
                reports: list[dict[str, Any]] = data
                return reports

    def _report_of(self, data: dict[str, Any]) -> pytest.TestReport:
        config = self._run.config
        report = config.hook.pytest_report_from_serializable(config=config, data=data)
        assert isinstance(report, pytest.TestReport)
        return report

    def _serve(self, pipe: Connection, items: list[pytest.Item]) -> None:
        """The child's loop: run the tests whose numbers arrive through the pipe, until None
        arrives.
        """
        config = self._run.config
        self._run.set_home_listener(lambda home: pipe.send(("home", str(home))))
        while order := pipe.recv():
            index, following = order
            nextitem = None if following is None else items[following]
            # Tests between the last one and this one may have been skipped as blocked.
            items[index].session._setupstate.teardown_exact(items[index])
            with recorded(items[index]) as warned:
                reports = runtestprotocol(items[index], nextitem=nextitem, log=False)
            data = [
                config.hook.pytest_report_to_serializable(config=config, report=one)
                for one in reports
            ]
            pipe.send(("warned", warned))
            pipe.send(("reports", data))
        for source in self._run.sources.values():
            source.processes.close()

    def _unrun(self, item: pytest.Item, id: str) -> RequirementResult | None:
        """Return the result of a test that is not run, because init or a dependency failed."""
        requirement = catalogue()[id]
        error = self._run.drivers[spec_of(item)].init_error
        if error and error.is_refusal:
            return RequirementResult.of(
                requirement,
                Outcome.NOT_PROVABLE,
                reason=Reason.INIT_REFUSED,
                detail=f"init raised {error.kind}: {error.message}",
            )
        if error and id != _INIT and any(verified(one) == _INIT for one in item.session.items):
            return RequirementResult.of(
                requirement, Outcome.BLOCKED, reason=Reason.RESTS_ON, blocked_by=(_INIT,)
            )
        if error:
            first, *rest = error.message.splitlines() or [""]
            return RequirementResult.of(
                requirement,
                Outcome.VIOLATED,
                reason=Reason(error.reason),
                expected="init makes a driver",
                actual=f"init raised {error.kind}: {first}" if error.kind else first,
                output=tuple(rest),
                reproduce=self._run.reproduce(spec_of(item), id),
            )
        spec = spec_of(item)
        if causes := self._run.is_fatal(spec, requirement) or self._run.lost_cleanups(spec):
            return RequirementResult.of(
                requirement,
                Outcome.BLOCKED,
                reason=Reason.RESTS_ON,
                blocked_by=tuple(causes),
            )
        return None

    def _lost(self, item: pytest.Item, error: ChildDied | ChildHung) -> RequirementResult:
        """Return the result of a test whose process died, and clean up after it."""
        run, id = self._run, verified(item)
        calls = run.watch.calls()
        if isinstance(error, ChildHung):
            reason, output = Reason.DEADLINE, []
            call = error.call
            actual = f"{call or 'the test'} did not return within {error.seconds:g} s"
            expected = f"{call or 'the test'} returns or raises"
        else:
            reason, output = Reason.PROCESS_DIED, error.output
            call = calls[-1].call if calls else ""
            actual = f"the process {error.how}" + (
                f" in {call}" if call else " outside of any verb"
            )
            expected = f"{call} returns or raises" if call else "the process continues"
        if id and call.startswith("cleanup("):
            run.remember_lost_cleanup(spec_of(item), id)
        kept = run.place_to_keep(id) if self._home else None
        if self._home:
            if kept:
                keep_home(self._home, Path(kept))
            umount_below(self._home.parent)
            run.homes.discard(self._home)
        if not id:
            return RequirementResult("", "MUST", item.name, Outcome.VIOLATED, actual=actual)
        return RequirementResult.of(
            catalogue()[id],
            # If no verb is running and the test does not end, the suite itself has hung.
            Outcome.VIOLATED if call or reason is Reason.PROCESS_DIED else Outcome.ERROR,
            reason=reason,
            expected=expected,
            actual=actual,
            program=self._program(),
            output=tuple(output),
            kept=kept,
            examples=1,
            reproduce=run.reproduce(spec_of(item), id),
        )

    def _copied(self, item: pytest.Item, call: str) -> RequirementResult:
        """Return the result of a test during which a verb forked and returned in both processes."""
        expected, actual = f"{call} returns once", f"{call} returned in two processes: it forked"
        if not (id := verified(item)):
            return RequirementResult("", "MUST", item.name, Outcome.VIOLATED, actual=actual)
        return RequirementResult.of(
            catalogue()[id],
            Outcome.VIOLATED,
            reason=Reason.RAISED,
            expected=expected,
            actual=actual,
            program=self._program(),
            examples=1,
            reproduce=self._run.reproduce(spec_of(item), id),
        )

    def _program(self) -> tuple[str, ...]:
        """Return the last calls of the example."""
        program = self._run.watch.program()
        cut = len(program) - _MOST_CALLS
        lines = program if cut <= 0 else [f"... {cut} calls before", *program[-_MOST_CALLS:]]
        return tuple(lines)


def _synthetic(item: pytest.Item, result: RequirementResult) -> list[pytest.TestReport]:
    """Return reports of a test that did not finish, with the result on the first."""
    id = verified(item)
    skipped = result.outcome in (Outcome.NOT_PROVABLE, Outcome.BLOCKED)
    lines = [f"{id}: {result.title}" if id else result.title, *finding(result)]
    text = "\n".join(lines)
    path, line, _ = item.location
    properties = [("requirement", id), ("level", result.level)] if id else []
    failed = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="skipped" if skipped else "failed",
        longrepr=(path, line or 0, text) if skipped else text,
        when="call",
        user_properties=properties,
    )
    if id:
        reported = TestResult(spec_of(item), item.nodeid, result)
        failed.graphdriver = reported.to_data()  # type: ignore[attr-defined]
    ended = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="passed",
        longrepr=None,
        when="teardown",
        user_properties=properties,
    )
    return [failed, ended]
