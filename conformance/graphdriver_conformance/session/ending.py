"""The end of a run: the results folded, the files written, the exit code, the verdict."""

import datetime
import itertools
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.repro.files import write_scripts
from graphdriver_conformance.results import terminal
from graphdriver_conformance.results.journal import Journal, result_from
from graphdriver_conformance.results.model import (
    Ended,
    Outcome,
    Reason,
    RequirementResult,
    RunResult,
    TestResult,
)
from graphdriver_conformance.results.page import page
from graphdriver_conformance.results.result_file import report_path, write_result
from graphdriver_conformance.results.waivers import apply_baseline, apply_waivers
from graphdriver_conformance.session.collection import counts_of, read_collected, tests_of
from graphdriver_conformance.session.machines import (
    Machine,
    label_of,
    machine_from,
    runs_on_each,
)
from graphdriver_conformance.session.reports import Reports, test_result_of
from graphdriver_conformance.session.run import Run

__all__ = ["Ending", "started_now"]


@dataclass(frozen=True, slots=True)
class Judged:
    """The result of a driver on a machine."""

    machine: Machine
    result: RunResult


class Ending:
    """The hooks of the run's start and end, and the collection of results in between."""

    def __init__(self, run: Run, reports: Reports) -> None:
        self._run = run
        self._reports = reports
        self._judged: list[Judged] = []
        self._problems: list[str] = []
        self._stale: list[str] = []
        self._clock = time.monotonic()
        self._started = started_now()
        self._is_each = runs_on_each(run.config)
        # By the number of the xdist worker; the machine of a run without xdist has none.
        self._machines: dict[str, Machine] = {}
        self._names: dict[str, str] = {}
        self._unused: list[str] = []
        self._is_collected = False
        if not run.is_worker and not self._is_each:
            heads = {spec: run.head(spec, self._started) for spec in run.drivers}
            self._machines[""] = self._begun(Machine("", heads, Journal(self._journal_path(""))))

    def pytest_report_header(self) -> list[str]:
        """Print the drivers, the machine and the settings that affect the results."""
        run, where = self._run, self._run.environment
        user = "root" if not where.uid else f"uid {where.uid}"
        lines = [
            f"graphdriver: {', '.join(run.sources)} on {where.filesystem}, "
            f"kernel {where.kernel}, "
            f"{user}, profile {run.config.getoption('graphdriver_profile')}, "
            f"seed {run.config.getoption('graphdriver_seed')}"
        ]
        if self._is_each and not run.is_worker:
            lines.append("each machine is judged by itself; this one gathers the results")
        return lines + [text for text in (run.homes.remark, run.limitation) if text]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests that will report."""
        if not self._run.is_worker and session.items:
            tests = [*tests_of(session.items), *self._run.left_out]
            self._count(counts_of((spec, id) for _, spec, id in tests))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        """Count the tests that xdist's workers will report."""
        if self._is_each:
            self._is_collected = True
        elif not self._is_collected:
            self._count(counts_of(read_collected(self._run.shared).values()))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Name a machine; a worker that replaces a dead one has the same name."""
        if self._is_each:
            name = self._unused.pop(0) if self._unused else self._new_name(label_of(node))
            self._names[str(node.gateway.id)] = name

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Record a machine whose worker died."""
        if error and self._is_each:
            self._unused.append(self._names[str(node.gateway.id)])

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Add the facts that its machine has sent to the report of a test whose worker died."""
        if self._is_each:
            machine = self._machine_of(report)
            tests = machine.tests if machine else {}
            self._reports.lost_test(crashitem, report, tests)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a report; with xdist this runs in the process that receives all reports."""
        if self._run.is_worker:
            return
        described = getattr(report, "graphdriver_machine", None)
        if described and self._is_each:
            self._introduce(self._name_of(report), described)
        reported, machine = test_result_of(report), self._machine_of(report)
        if reported and machine:
            machine.journal.add(reported)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fold the results, write the files, and set the exit code."""
        run = self._run
        try:
            if not run.is_worker:
                self._judge(session, exitstatus)
        finally:
            try:
                run.homes.discard_all()
            except OSError as error:
                self._problems.append(f"{error.filename} could not be removed: {error.strerror}")
        if self._judged and exitstatus in (0, 1, 5):
            failed = (
                self._reports.foreign_failures
                or self._problems
                or any(self._fails(one.result) for one in self._judged)
            )
            session.exitstatus = 1 if failed else 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: "pytest.TerminalReporter"
    ) -> Generator[None, None, None]:
        """Remove violations from pytest's own summary: the verdict shows each once.

        Errors of the suite stay in it, with their tracebacks.
        """
        stats: dict[str, list[Any]] = terminalreporter.stats
        reports = {name: stats.pop(name) for name in ("failed", "error") if name in stats}
        for name, found in reports.items():
            if foreign := [one for one in found if not _is_violation(one)]:
                stats[name] = foreign
        try:
            yield
        finally:
            for name, found in reports.items():
                stats[name] = found
        for text in self._problems:
            terminalreporter.line(f"FAILED  {text}", red=True)
        for one in self._judged:
            terminalreporter.section(f"verdict on {one.machine.title(one.result.driver.spec)}")
            for line, colour in terminal.lines(one.result):
                terminalreporter.line(line, **({colour: True} if colour else {}))

    def _journal_path(self, machine: str) -> Path | None:
        option = self._run.config.getoption
        if asked := option("graphdriver_journal", None):
            return report_path(asked, machine, bool(machine))
        report = option("graphdriver_report")
        if not report:
            return None
        return report_path(report, machine, bool(machine)).with_suffix(".journal.jsonl")

    def _begun(self, machine: Machine) -> Machine:
        for head in machine.heads.values():
            machine.journal.begin(head, self._run.homes.base)
        return machine

    def _introduce(self, name: str, described: dict[str, Any]) -> None:
        """Add a machine from the first report of a `--dist each` worker."""
        if name in self._machines:
            return  # of a worker that replaces a dead one
        journal = Journal(self._journal_path(name))
        here = next(self._run.head(spec, self._started) for spec in self._run.drivers)
        machine = self._begun(machine_from(name, described, journal, here.run))
        journal.collect(machine.collected)
        self._machines[name] = machine

    def _name_of(self, report: Any) -> str:
        node = getattr(report, "node", None)
        return self._names.get(str(node.gateway.id), "") if node and self._is_each else ""

    def _machine_of(self, report: Any) -> Machine | None:
        return self._machines.get(self._name_of(report))

    def _new_name(self, label: str) -> str:
        """Return a name that no other machine of the run has, nor the files of another machine."""
        taken = {report_path("x", name, True) for name in self._names.values()}
        names = itertools.chain([label], (f"{label}#{n}" for n in itertools.count(2)))
        return next(name for name in names if report_path("x", name, True) not in taken)

    def _count(self, collected: dict[str, dict[str, int]]) -> None:
        self._is_collected = True
        for machine in self._machines.values():
            machine.collected = collected
            machine.journal.collect(collected)

    def _judge(self, session: pytest.Session, exitstatus: int) -> None:
        """Create the result of each driver on each machine, and write the files."""
        machines = [self._machines[name] for name in sorted(self._machines)]
        if not self._is_collected and exitstatus == pytest.ExitCode.USAGE_ERROR:
            self._drop_journals()
            return
        nothing = not any(any(one.journal.results.values()) for one in machines)
        counted = any(any(one.collected.values()) for one in machines)
        if self._reports.foreign and nothing and not counted:
            self._drop_journals()
            return  # a project's own checks, which are not part of the catalogue
        if session.config.getoption("collectonly"):
            self._drop_journals()
            return
        seconds = time.monotonic() - self._clock
        ended = self._ended(session, exitstatus)
        for machine in machines:
            for spec, head in machine.heads.items():
                result = result_from(
                    head,
                    machine.collected.get(spec, {}),
                    machine.journal.results[spec],
                    ended,
                    seconds,
                )
                self._judged.append(Judged(machine, self._excused(self._in_shard(result))))
        silent = [name for name in self._names.values() if name not in self._machines]
        self._problems += [f"{name}: no test was reported" for name in dict.fromkeys(silent)]
        try:
            for machine in machines:
                machine.journal.end(ended, seconds)
            self._write()
        except OSError as error:
            self._problems.append(f"{error.filename} could not be written: {error.strerror}")
        else:
            self._drop_journals()
        self._problems += self._stale

    def _ended(self, session: pytest.Session, exitstatus: int) -> Ended:
        if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            return Ended.CRASHED
        stopped = bool(session.shouldstop or session.shouldfail)
        if exitstatus == pytest.ExitCode.INTERRUPTED or stopped:
            return Ended.INTERRUPTED
        return Ended.FINISHED

    def _drop_journals(self) -> None:
        """Close the journals, and delete them unless requested: the result files have their
        content.
        """
        for machine in self._machines.values():
            machine.journal.close()
            path = machine.journal.path
            if path and not self._run.config.getoption("graphdriver_journal", None):
                path.unlink(missing_ok=True)

    def _excused(self, result: RunResult) -> RunResult:
        """Waive known violations; a waiver is stale if no driver needs it."""
        run = self._run
        rows, wrong = apply_waivers(result.requirements, run.waivers, datetime.date.today())
        first = not self._judged
        self._stale = [text for text in wrong if first or text in self._stale]
        return replace(result, requirements=apply_baseline(rows, run.baseline))

    def _in_shard(self, result: RunResult) -> RunResult:
        """Set the reason of requirements that are only excluded by the shard."""
        shard = self._run.shard
        if shard is None:
            return result
        requested = tuple(self._run.config.getoption("graphdriver_requirement"))
        share = shard.of(catalogue())
        rows = {
            id: replace(one, reason=Reason.SHARD)
            if one.reason is Reason.SELECTION
            and id not in share
            and (not requested or id.startswith(requested))
            else one
            for id, one in result.requirements.items()
        }
        return replace(result, requirements=rows)

    def _write(self) -> None:
        """Write the scripts, a result file for each driver and machine, and the page of all."""
        option = self._run.config.getoption
        several = len(self._judged) > 1 or self._is_each
        if directory := option("graphdriver_repro"):
            self._judged = [self._with_scripts(one, directory, several) for one in self._judged]
        if path := option("graphdriver_report"):
            for one in self._judged:
                write_result(report_path(path, self._file_name(one), several), one.result)
        if path := option("graphdriver_html"):
            Path(path).write_text(page([one.result for one in self._judged]), "utf-8")

    def _file_name(self, judged: Judged) -> str:
        """Return the part of a result's file names that is unique: its driver, its machine, or
        both.
        """
        spec, machine = judged.result.driver.spec, judged.machine.name
        if not machine:
            return spec
        return f"{machine}-{spec}" if len(judged.machine.heads) > 1 else machine

    def _with_scripts(self, judged: Judged, directory: str, several: bool) -> Judged:
        """Write a script for each violation, and add its command to the result."""
        result, name = judged.result, self._file_name(judged)
        prefix = report_path("x", name, several).name.removeprefix("x-") + "-" if several else ""
        texts: dict[str, tuple[str, ...]] = {}
        for reported in judged.machine.journal.results[result.driver.spec]:
            shown = result.requirements[reported.result.id]
            if reported.scripts and _is_shown(reported, shown):
                texts[reported.result.id] = reported.scripts
        place = self._run.config.getoption("graphdriver_home")
        commands = write_scripts(Path(directory), texts, prefix, place)
        rows = {
            id: replace(one, script=commands[id]) if id in commands else one
            for id, one in result.requirements.items()
        }
        return replace(judged, result=replace(result, requirements=rows))

    def _fails(self, result: RunResult) -> bool:
        option = self._run.config.getoption
        return result.fails(option("graphdriver_level"), strict=option("graphdriver_strict"))


def started_now() -> str:
    """Return the current time in the format of result files."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_violation(report: Any) -> bool:
    reported = test_result_of(report)
    return reported is not None and reported.result.outcome is not Outcome.ERROR


def _is_shown(reported: TestResult, shown: RequirementResult) -> bool:
    """Return whether a test's violation is the one in its requirement's result."""
    return reported.result.actual == shown.actual and reported.result.program == shown.program
