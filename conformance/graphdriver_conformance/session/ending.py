"""The end of a run: the judgement, the files, the exit code, the verdict."""

import datetime
import time
from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.repro.files import Script, write_scripts
from graphdriver_conformance.results import outcome, terminal
from graphdriver_conformance.results import runs as report
from graphdriver_conformance.results.outcome import Judgement, Outcome
from graphdriver_conformance.results.page import page
from graphdriver_conformance.results.result_file import Result, report_path, write_result
from graphdriver_conformance.results.waivers import apply_baseline, apply_waivers
from graphdriver_conformance.session.reports import Reports
from graphdriver_conformance.session.run import Run

__all__ = ["Ending"]


class Ending:
    """The hooks of the run's beginning and end."""

    def __init__(self, run: Run, reports: Reports) -> None:
        self._run = run
        self._reports = reports
        self._results: list[Result] = []
        self._trouble: list[str] = []
        self._stale: list[str] = []
        self._scripts: dict[str, dict[str, Script]] = {}
        self._clock = time.monotonic()
        self._started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def pytest_report_header(self) -> list[str]:
        """Say what is judged, and where."""
        run, where = self._run, self._run.environment
        who = "root" if not where.uid else f"uid {where.uid}"
        lines = [
            f"graphdriver: {', '.join(run.sources)} on {where.filesystem}, "
            f"kernel {where.kernel}, "
            f"{who}, profile {run.config.getoption('graphdriver_profile')}, "
            f"seed {run.config.getoption('graphdriver_seed')}"
        ]
        return lines + [text for text in (run.homes.remark, run.trouble) if text]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge, write the result files, and set the exit code."""
        run = self._run
        for source in run.sources.values():
            source.keeper.close()
        try:
            run.homes.discard_all()
        except OSError as error:
            self._trouble.append(f"{error.filename} could not be removed: {error.strerror}")
        if run.is_worker or exitstatus not in (0, 1, 5):
            return
        if self._reports.foreign and not any(self._reports.said.values()):
            return  # an author's own checks, which say nothing of the catalogue
        seconds = time.monotonic() - self._clock
        for spec, driver in run.drivers.items():
            judged = self._excused(outcome.fold(catalogue(), self._reports.said[spec]))
            seed = run.config.getoption("graphdriver_seed")
            result = Result(driver, run.environment, self._started, seconds, seed, judged)
            self._results.append(result)
        try:
            self._write()
        except OSError as error:
            self._trouble.append(f"{error.filename} could not be written: {error.strerror}")
        self._trouble += self._stale
        failed = (
            self._reports.foreign_failures or self._trouble or any(map(self._fails, self._results))
        )
        session.exitstatus = 1 if failed else 0

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Print the verdict."""
        for text in self._trouble:
            terminalreporter.line(f"FAILED  {text}", red=True)
        for result in self._results:
            terminalreporter.section(f"verdict on {result.driver['spec']}")
            for line, colour in terminal.lines(result, self._scripts.get(result.driver["spec"])):
                terminalreporter.line(line, **({colour: True} if colour else {}))

    def _excused(self, judged: dict[str, Judgement]) -> dict[str, Judgement]:
        """Waive what the project knows of; a waiver is stale when no driver needs it."""
        run = self._run
        judged, wrong = apply_waivers(judged, run.waivers, datetime.date.today())
        first = not self._results
        self._stale = [text for text in wrong if first or text in self._stale]
        return apply_baseline(judged, run.baseline)

    def _write(self) -> None:
        """Write a result file for each driver, and the page of all."""
        option = self._run.config.getoption
        several = len(self._results) > 1
        for result in self._results:
            if path := option("graphdriver_report"):
                write_result(report_path(path, result.driver["spec"], several), result)
        if directory := option("graphdriver_repro"):
            for result in self._results:
                spec = result.driver["spec"]
                prefix = report_path("x", spec, several).name.removeprefix("x-") + "-"
                self._scripts[spec] = write_scripts(
                    Path(directory),
                    result.judged.values(),
                    prefix if several else "",
                    option("graphdriver_home"),
                )
        if path := option("graphdriver_html"):
            runs = [report.Run.of(result.as_data()) for result in self._results]
            Path(path).write_text(page(runs), "utf-8")

    def _fails(self, result: Result) -> bool:
        level = self._run.config.getoption("graphdriver_level")
        strict = self._run.config.getoption("graphdriver_strict")
        bad = {Outcome.VIOLATED, Outcome.BLOCKED}
        judged = result.judged.values()
        return (
            any(one.outcome in bad and one.requirement.level.fails(level) for one in judged)
            or any(one.outcome is Outcome.ERROR for one in judged)
            or not any(one.outcome is Outcome.MET for one in judged)
            or (
                strict
                and any(one.outcome is Outcome.NOT_PROVABLE and one.was_asked for one in judged)
            )
        )
