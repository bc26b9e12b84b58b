"""Result files, read back and checked: each is one driver on one machine."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphdriver_conformance.results.outcome import NOT_SELECTED, Outcome, Verdict

__all__ = ["BadReport", "Cell", "Run", "read_runs"]


class BadReport(Exception):
    """A file is no result file; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one requirement in one run."""

    outcome: Outcome
    detail: str
    reproduce: str
    seconds: float
    examples: int

    @property
    def was_asked(self) -> bool:
        """Whether the run was to look at it at all."""
        return self.detail != NOT_SELECTED


@dataclass(frozen=True, slots=True)
class Run:
    """One result file. `levels` and `titles` are by requirement id, in the file's order."""

    spec: str
    name: str
    status: list[tuple[str, str]]
    capabilities: list[str] | None
    kernel: str
    machine: str
    filesystem: str
    uid: int
    facts: Mapping[str, str]
    suite: str
    started: str
    seconds: float
    seed: int
    verdict: Verdict
    cells: Mapping[str, Cell]
    levels: Mapping[str, str]
    titles: Mapping[str, str]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Run":
        """Make it of the file's content. Raises KeyError, TypeError or ValueError."""
        driver, where, rows = data["driver"], data["environment"], data["requirements"]
        return cls(
            spec=str(driver["spec"]),
            name=str(driver["name"]),
            status=[(str(name), str(value)) for name, value in driver["status"]],
            capabilities=driver["capabilities"],
            kernel=str(where["kernel"]),
            machine=str(where["machine"]),
            filesystem=str(where["filesystem"]),
            uid=int(where["uid"]),
            facts={str(name): str(value) for name, value in where["facts"].items()},
            suite=str(data["suite"]["version"]),
            started=str(data["started"]),
            seconds=float(data["seconds"]),
            seed=int(data["seed"]),
            verdict=Verdict(data["verdict"]),
            cells={row["id"]: _cell(row) for row in rows},
            levels={row["id"]: str(row["level"]) for row in rows},
            titles={row["id"]: str(row["title"]) for row in rows},
        )

    @property
    def user(self) -> str:
        """Who ran it."""
        if not self.uid:
            return "root"
        inside = " in a user namespace" if self.facts.get("userns") == "true" else ""
        return f"uid {self.uid}{inside}"

    def count(self, level: str, outcome: Outcome) -> int:
        """Return how many requirements of the level had the outcome."""
        return sum(
            cell.outcome is outcome and cell.was_asked and self.levels[id] == level
            for id, cell in self.cells.items()
        )


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Read result files, in their order. Raises BadReport."""
    return [_read(path) for path in paths]


def _read(path: Path) -> Run:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise BadReport(f"{path}: {error.strerror}; name files of --graphdriver-report") from None
    except ValueError as error:
        raise BadReport(f"{path} is no JSON ({error}); was the run cut short?") from None
    if not isinstance(data, dict) or "schema" not in data or "requirements" not in data:
        raise BadReport(
            f"{path} is no result file; make one with `graphdriver check SPEC "
            "--graphdriver-report=FILE.json`"
        )
    if data["schema"] != 1:
        raise BadReport(
            f"{path} has schema {data['schema']!r}, and this version reads 1; "
            "update graphdriver-conformance"
        )
    try:
        return Run.of(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadReport(f"{path} is no whole result file ({what}); write it again") from None


def _cell(row: Mapping[str, Any]) -> Cell:
    return Cell(
        Outcome(row["outcome"]),
        row["detail"] or "",
        row["reproduce"] or "",
        float(row["seconds"]),
        int(row["examples"]),
    )
