"""Result files: the result of one run as JSON, written (schema 2) and read (schemas 1 and 2)."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from graphdriver_conformance.results.journal import is_journal, read_journal
from graphdriver_conformance.results.model import (
    DriverInfo,
    Outcome,
    Reason,
    RequirementResult,
    RunInfo,
    RunResult,
    Where,
)

__all__ = ["BadReport", "read_results", "report_path", "result_of", "to_data", "write_result"]

SCHEMA = 2


class BadReport(Exception):
    """A file is not a result file; the message is one sentence with the remedy."""


def to_data(result: RunResult) -> dict[str, Any]:
    """Return a result as in the file; `result.schema.json` beside this module describes it."""
    return {
        "schema": SCHEMA,
        "suite": {"version": result.suite, "catalogue": result.catalogue},
        "driver": result.driver.to_data(),
        "run": result.run.to_data(),
        "environment": result.where.to_data(),
        "started": result.started,
        "seconds": round(result.seconds, 3),
        "verdict": result.verdict.value,
        "counts": result.counts(),
        "requirements": [one.to_data() for one in result.requirements.values()],
    }


def write_result(path: Path, result: RunResult) -> None:
    """Write the file atomically: a reader sees the old one or the new one. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(to_data(result), indent=1, ensure_ascii=False) + "\n"
    # Texts of drivers may be invalid Unicode, which must not prevent writing the file.
    beside.write_text(text, "utf-8", "backslashreplace")
    beside.replace(path)


def report_path(requested: str, name: str, several: bool) -> Path:
    """Return the path of the result of driver `name`: with several drivers, FILE-name.json."""
    path = Path(requested)
    safe = "".join(c if c.isalnum() else "-" for c in name).strip("-")
    return path.with_name(f"{path.stem}-{safe}{path.suffix}") if several else path


def read_results(paths: Iterable[Path]) -> list[RunResult]:
    """Read result files and journals, in their order. Raises BadReport."""
    return [result for path in paths for result in _read(path)]


def result_of(data: Mapping[str, Any]) -> RunResult:
    """Return the result in a file's content. Raises KeyError, TypeError or ValueError."""
    rows = (
        [_row_of_schema_1(row) for row in data["requirements"]]
        if data["schema"] == 1
        else [RequirementResult.from_data(row) for row in data["requirements"]]
    )
    run = RunInfo(seed=int(data["seed"])) if data["schema"] == 1 else RunInfo.from_data(data["run"])
    return RunResult(
        suite=str(data["suite"]["version"]),
        catalogue=str(data["suite"]["catalogue"]),
        driver=DriverInfo.from_data(data["driver"]),
        run=run,
        where=Where.from_data(data["environment"]),
        started=str(data["started"]),
        seconds=float(data["seconds"]),
        requirements={row.id: row for row in rows},
    )


def _read(path: Path) -> list[RunResult]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadReport(f"{path}: {error.strerror}; name files of --graphdriver-report") from None
    if is_journal(content):
        return _whole(path, "journal", lambda: read_journal(content))
    try:
        data = json.loads(content)
    except ValueError as error:
        raise BadReport(f"{path} is not JSON ({error}); was the run cut short?") from None
    if not isinstance(data, dict) or "schema" not in data or "requirements" not in data:
        raise BadReport(
            f"{path} is not a result file; make one with `graphdriver check SPEC "
            "--graphdriver-report=FILE.json`"
        )
    if data["schema"] not in (1, SCHEMA):
        raise BadReport(
            f"{path} has schema {data['schema']!r}, and this version reads 1 and {SCHEMA}; "
            "update graphdriver-conformance"
        )
    return _whole(path, "result file", lambda: [result_of(data)])


def _whole(path: Path, kind: str, read: Callable[[], list[RunResult]]) -> list[RunResult]:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise BadReport(f"{path} is not a whole {kind} ({problem}); write it again") from None


def _row_of_schema_1(row: Mapping[str, Any]) -> RequirementResult:
    """Read a requirement of schema 1, which had all texts in one and no `not-selected`."""
    outcome = Outcome(row["outcome"])
    detail = row["detail"]
    if outcome is Outcome.NOT_PROVABLE and detail == "not selected in this run":
        outcome, detail = Outcome.NOT_SELECTED, None
    return RequirementResult(
        id=str(row["id"]),
        level=str(row["level"]),
        title=str(row["title"]),
        outcome=outcome,
        reason=Reason.SELECTION if outcome is Outcome.NOT_SELECTED else None,
        detail=detail,
        examples=int(row["examples"]),
        seconds=float(row["seconds"]),
        reproduce=row["reproduce"],
    )
