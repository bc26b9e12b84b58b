"""Run the suite on many drivers, in a forked process each, without starting Python each time.

A server process imports what a run needs (`preloaded`) and forks for every job (forkserver of
multiprocessing). Jobs share nothing but what was imported; one for one requirement takes a fifth of
a second.
"""

import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

from graphdriver_conformance.suite.support.effort import SHRINK_VARIABLE

__all__ = ["Judge", "judge"]


class Judge(ProcessPoolExecutor):
    """A pool of workers, each forked for one job: `submit(judge, ...)`."""

    def __init__(self, workers: int = 1) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["graphdriver_mutants.preloaded"])
        super().__init__(workers, context, max_tasks_per_child=1)


def judge(
    spec: str,
    requirements: Collection[str] = (),
    profile: str = "default",
    deadline: float = 60,
) -> dict[str, str]:
    """Return the outcome of every requirement that a run selects, all without `requirements`.

    To be called in a process of its own: the run enters namespaces. Raises RuntimeError with what
    pytest printed when there is no result.
    """
    # Objects of the server are never garbage in its children, and pytest collects several times.
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="graphdriver-judge-") as directory:
        report = Path(directory) / "report.json"
        printed = Path(directory) / "printed"
        command = [
            *_paths(requirements),
            f"--driver={spec}",
            *(f"--requirement={id}" for id in requirements),
            *("-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
            f"--graphdriver-profile={profile}",
            f"--graphdriver-report={report}",
        ]
        before = os.getcwd()
        os.environ[SHRINK_VARIABLE] = "no"
        os.environ["GRAPHDRIVER_DEADLINE"] = str(deadline)
        os.chdir(directory)  # so that no pytest.ini of the caller counts
        try:
            _run(command, printed)
            if not report.exists():
                raise RuntimeError(f"no result for {spec}:\n{printed.read_text()}")
            rows = json.loads(report.read_text())["requirements"]
        finally:
            os.chdir(before)
    return {row["id"]: row["outcome"] for row in rows if row["outcome"] != "not-selected"}


@cache
def _sources() -> dict[Path, str]:
    suite = Path(str(files("graphdriver_conformance.suite")))
    return {path: path.read_text() for path in sorted(suite.glob("test_*.py"))}


def _paths(requirements: Collection[str]) -> list[str]:
    """Return the files that hold the requirements' tests: collecting all takes longer than they."""
    marks = [f'@verifies("{id}' for id in requirements]  # an id, or the beginning of some
    return [str(path) for path, text in _sources().items() if any(mark in text for mark in marks)]


def _run(command: list[str], printed: Path) -> None:
    """Run pytest with its output in a file."""
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        pytest.main(command)
    finally:
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(output)
