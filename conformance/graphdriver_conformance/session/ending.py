"""The end of a run: the results folded, the files written, the exit code, the verdict."""

import datetime
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.repro.files import write_scripts
from graphdriver_conformance.results import terminal
from graphdriver_conformance.results.journal import Journal, result_from
from graphdriver_conformance.results.model import (
    Ended,
    Outcome,
    RequirementResult,
    RunResult,
    TestResult,
)
from graphdriver_conformance.results.page import page
from graphdriver_conformance.results.result_file import report_path, write_result
from graphdriver_conformance.results.waivers import apply_baseline, apply_waivers
from graphdriver_conformance.session.collection import counts_of, read_collected, spec_of
from graphdriver_conformance.session.reports import Reports, told_by
from graphdriver_conformance.session.run import Run, verified

__all__ = ["Ending"]


class Ending:
    """The hooks of the run's beginning and end, and what gathers the results in between."""

    def __init__(self, run: Run, reports: Reports) -> None:
        self._run = run
        self._reports = reports
        self._results: list[RunResult] = []
        self._trouble: list[str] = []
        self._stale: list[str] = []
        self._clock = time.monotonic()
        self._started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._journal = Journal(None if run.is_worker else self._journal_path())
        self._collected: dict[str, dict[str, int]] = {}
        self._is_collected = False
        if not run.is_worker:
            for spec in run.drivers:
                self._journal.begin(run.head(spec, self._started), run.homes.base)

    def pytest_report_header(self) -> list[str]:
        """Show the drivers, the machine and the settings that a result depends on."""
        run, where = self._run, self._run.environment
        user = "root" if not where.uid else f"uid {where.uid}"
        lines = [
            f"graphdriver: {', '.join(run.sources)} on {where.filesystem}, "
            f"kernel {where.kernel}, "
            f"{user}, profile {run.config.getoption('graphdriver_profile')}, "
            f"seed {run.config.getoption('graphdriver_seed')}"
        ]
        return lines + [text for text in (run.homes.remark, run.trouble) if text]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests that will report."""
        if not self._run.is_worker and session.items:
            tests = [(spec_of(item), verified(item)) for item in session.items]
            self._count(counts_of((spec, id) for spec, id in tests if spec and id))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        """Count the tests that xdist's workers will report."""
        if not self._is_collected:
            self._count(counts_of(read_collected(self._run.shared).values()))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what a report says; with xdist this runs where all of them arrive."""
        told = told_by(report)
        if told and not self._run.is_worker:
            self._journal.add(told)

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
                self._trouble.append(f"{error.filename} could not be removed: {error.strerror}")
        if self._results and exitstatus in (0, 1, 5):
            failed = (
                self._reports.foreign_failures
                or self._trouble
                or any(map(self._fails, self._results))
            )
            session.exitstatus = 1 if failed else 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: "pytest.TerminalReporter"
    ) -> Generator[None, None, None]:
        """Leave violations out of pytest's own summary: the verdict shows each once.

        Errors of the suite stay there, with their tracebacks.
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
        for text in self._trouble:
            terminalreporter.line(f"FAILED  {text}", red=True)
        for result in self._results:
            terminalreporter.section(f"verdict on {result.driver.spec}")
            for line, colour in terminal.lines(result):
                terminalreporter.line(line, **({colour: True} if colour else {}))

    def _journal_path(self) -> Path | None:
        option = self._run.config.getoption
        if asked := option("graphdriver_journal", None):
            return Path(asked)
        report = option("graphdriver_report")
        return Path(report).with_suffix(".journal.jsonl") if report else None

    def _count(self, collected: dict[str, dict[str, int]]) -> None:
        self._collected, self._is_collected = collected, True
        self._journal.collect(collected)

    def _judge(self, session: pytest.Session, exitstatus: int) -> None:
        """Make the result of each driver, and write the files."""
        if not self._is_collected and exitstatus == pytest.ExitCode.USAGE_ERROR:
            self._drop_journal()
            return
        nothing = not any(self._journal.results.values())
        if self._reports.foreign and nothing and not any(self._collected.values()):
            self._drop_journal()
            return  # an author's own checks, which say nothing about the catalogue
        if session.config.getoption("collectonly"):
            self._drop_journal()
            return
        seconds = time.monotonic() - self._clock
        ended = self._ended(session, exitstatus)
        for spec in self._run.drivers:
            result = result_from(
                self._run.head(spec, self._started),
                self._collected.get(spec, {}),
                self._journal.results[spec],
                ended,
                seconds,
            )
            self._results.append(self._excused(result))
        try:
            self._journal.end(ended, seconds)
            self._write()
        except OSError as error:
            self._trouble.append(f"{error.filename} could not be written: {error.strerror}")
        else:
            self._drop_journal()
        self._trouble += self._stale

    def _ended(self, session: pytest.Session, exitstatus: int) -> Ended:
        if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            return Ended.CRASHED
        stopped = bool(session.shouldstop or session.shouldfail)
        if exitstatus == pytest.ExitCode.INTERRUPTED or stopped:
            return Ended.INTERRUPTED
        return Ended.FINISHED

    def _drop_journal(self) -> None:
        """Close the journal, and remove it unless it was asked for: the result file has all."""
        self._journal.close()
        path = self._journal.path
        if path and not self._run.config.getoption("graphdriver_journal", None):
            path.unlink(missing_ok=True)

    def _excused(self, result: RunResult) -> RunResult:
        """Waive known violations; a waiver is stale when no driver needs it."""
        run = self._run
        rows, wrong = apply_waivers(result.requirements, run.waivers, datetime.date.today())
        first = not self._results
        self._stale = [text for text in wrong if first or text in self._stale]
        return replace(result, requirements=apply_baseline(rows, run.baseline))

    def _write(self) -> None:
        """Write the scripts, a result file for each driver, and the page of all."""
        option = self._run.config.getoption
        several = len(self._results) > 1
        if directory := option("graphdriver_repro"):
            self._results = [self._with_scripts(one, directory, several) for one in self._results]
        if path := option("graphdriver_report"):
            for result in self._results:
                write_result(report_path(path, result.driver.spec, several), result)
        if path := option("graphdriver_html"):
            Path(path).write_text(page(self._results), "utf-8")

    def _with_scripts(self, result: RunResult, directory: str, several: bool) -> RunResult:
        """Write a script for each violation, and name it in the result."""
        spec = result.driver.spec
        prefix = report_path("x", spec, several).name.removeprefix("x-") + "-" if several else ""
        texts: dict[str, tuple[str, ...]] = {}
        for told in self._journal.results[spec]:
            shown = result.requirements[told.result.id]
            if told.scripts and _is_shown(told, shown):
                texts[told.result.id] = told.scripts
        place = self._run.config.getoption("graphdriver_home")
        commands = write_scripts(Path(directory), texts, prefix, place)
        rows = {
            id: replace(one, script=commands[id]) if id in commands else one
            for id, one in result.requirements.items()
        }
        return replace(result, requirements=rows)

    def _fails(self, result: RunResult) -> bool:
        option = self._run.config.getoption
        return result.fails(option("graphdriver_level"), strict=option("graphdriver_strict"))


def _is_violation(report: Any) -> bool:
    told = told_by(report)
    return told is not None and told.result.outcome is not Outcome.ERROR


def _is_shown(told: TestResult, shown: RequirementResult) -> bool:
    """Say whether a test's violation is the one that its requirement's result shows."""
    return told.result.actual == shown.actual and told.result.program == shown.program
