"""The progress of the run, in one line of a terminal; no output without a terminal."""

import time

import pytest

from graphdriver_conformance.session.machines import runs_on_each
from graphdriver_conformance.session.run import Run

__all__ = ["Progress"]


class Progress:
    """Replaces pytest's dots for tests of the suite."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._clock = time.monotonic()
        self._total = self._done = self._failed = 0
        self._is_shown = False

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Check whether there is a terminal, and whether more verbose output was requested."""
        config = self._run.config
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._is_shown = (
            not self._run.is_worker
            and reporter is not None
            and bool(getattr(reporter, "isatty", False))
            and config.get_verbosity() <= 0
        )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests."""
        self._total = len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        """Count the tests of a worker: with `--dist each`, each worker runs all of them."""
        before = self._total if runs_on_each(self._run.config) else 0
        self._total = before + len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Print no letter for a test of the suite: the line shows the progress."""
        if not self._is_shown or not hasattr(report, "graphdriver"):
            return None
        return report.outcome, "", report.outcome.upper()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Show the number of remaining tests, the elapsed time, and an estimate of the rest."""
        data = getattr(report, "graphdriver", None)
        if not data or not self._is_shown:
            return
        self._done += 1
        self._failed += report.failed
        seconds = time.monotonic() - self._clock
        failed = f", {self._failed} failed" if self._failed else ""
        left = max(0, self._total - self._done)
        to_go = f", about {seconds / self._done * left:.0f} s to go" if self._can_tell else ""
        self._show(f"{data['result']['id']}  {left} tests left{failed}, {seconds:.0f} s{to_go}")

    def pytest_sessionfinish(self) -> None:
        """Take the line away."""
        if self._is_shown:
            self._show("")

    @property
    def _can_tell(self) -> bool:
        """Whether enough tests are done to estimate the time of the others."""
        return self._done * 10 > self._total

    def _show(self, text: str) -> None:
        reporter = self._run.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.rewrite(text, erase=True)
            reporter.flush()
