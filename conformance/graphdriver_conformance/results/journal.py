"""The journal: one JSON line for each result as it occurs, so that a killed run can be reported.

The first line contains the driver, the machine and the run, for each driver; the second kind of
line has the number of tests of each requirement that will report; the third is one test's result;
the last states how the run ended. A journal without the last line is of a killed run.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.folding import fold, worse
from graphdriver_conformance.results.model import (
    DriverInfo,
    Ended,
    RequirementResult,
    RunInfo,
    RunResult,
    TestResult,
    Where,
)

__all__ = ["Journal", "is_journal", "place_of", "read_journal", "result_from"]

_MARK = b'{"graphdriver-journal": 1'


class Journal:
    """A journal that is being written, to `path` or nowhere; it also keeps the written results.

    `collected` counts, for each driver and requirement, the tests that will report.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1) if path else None
        self.path = path
        self.collected: dict[str, dict[str, int]] = {}
        self.results: dict[str, list[TestResult]] = {}

    def begin(self, head: RunResult, place: Path) -> None:
        """Write one driver, before any of its results; the head's requirements are unused.

        `place` is the directory of the homes, to be removed after a killed run.
        """
        self.collected[head.driver.spec] = {}
        self.results[head.driver.spec] = []
        self._write(
            {
                "graphdriver-journal": 1,
                "suite": {"version": head.suite, "catalogue": head.catalogue},
                "driver": head.driver.to_data(),
                "run": head.run.to_data(),
                "environment": head.where.to_data(),
                "started": head.started,
                "place": str(place),
            }
        )

    def collect(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Write the number of tests of each requirement that will report, by driver."""
        for spec, by_id in counts.items():
            self.collected[spec] = dict(by_id)
        self._write({"collected": {spec: dict(by_id) for spec, by_id in counts.items()}})

    def add(self, result: TestResult) -> None:
        """Write the result of one test; a later one of the same test replaces it."""
        self.results[result.spec].append(result)
        self._write({"test": replace(result, scripts=()).to_data()})

    def end(self, ended: Ended, seconds: float) -> None:
        """Write how the run ended."""
        self._write({"ended": ended.value, "seconds": round(seconds, 3)})

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(line) + "\n")


def result_from(
    head: RunResult,
    collected: Mapping[str, int],
    results: list[TestResult],
    ended: Ended,
    seconds: float,
) -> RunResult:
    """Return the result of a run from its reported tests."""
    # A test reports more than once if its teardown fails after its call: the more severe one
    # counts.
    by_test: dict[str, RequirementResult] = {}
    for one in results:
        known = by_test.get(one.test)
        by_test[one.test] = worse(known, one.result) if known else one.result
    reported = Counter(one.id for one in by_test.values())
    complete = all(reported[id] >= count for id, count in collected.items())
    return replace(
        head,
        run=replace(head.run, complete=complete and ended is Ended.FINISHED, ended=ended),
        seconds=seconds,
        requirements=fold(catalogue(), collected, by_test.values()),
    )


def is_journal(content: bytes) -> bool:
    """Return whether a file's content is a journal."""
    return content.startswith(_MARK)


def place_of(content: bytes) -> Path | None:
    """Return the directory of a run's homes, None if the journal has none."""
    try:
        return Path(json.loads(content.partition(b"\n")[0])["place"])
    except (ValueError, KeyError):
        return None


def read_journal(content: bytes) -> list[RunResult]:
    """Return the results in a journal, one for each driver.

    The last line may be truncated if the writer was killed; it is ignored.
    """
    heads: dict[str, RunResult] = {}
    collected: dict[str, Mapping[str, int]] = {}
    results: dict[str, list[TestResult]] = {}
    ended, seconds = Ended.CRASHED, 0.0
    for raw in content.split(b"\n"):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if "graphdriver-journal" in line:
            head = _head(line)
            heads[head.driver.spec] = head
        elif "collected" in line:
            collected.update(line["collected"])
        elif "test" in line:
            one = TestResult.from_data(line["test"])
            results.setdefault(one.spec, []).append(one)
            seconds += one.result.seconds
        elif "ended" in line:
            ended, seconds = Ended(line["ended"]), float(line["seconds"])
    return [
        result_from(head, collected.get(spec, {}), results.get(spec, []), ended, seconds)
        for spec, head in heads.items()
    ]


def _head(line: Mapping[str, Any]) -> RunResult:
    return RunResult(
        suite=line["suite"]["version"],
        catalogue=line["suite"]["catalogue"],
        driver=DriverInfo.from_data(line["driver"]),
        run=RunInfo.from_data(line["run"]),
        where=Where.from_data(line["environment"]),
        started=line["started"],
        seconds=0.0,
        requirements={},
    )
