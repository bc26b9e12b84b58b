"""Runs beside each other: rows are requirements, columns are runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.model import Outcome, RequirementResult, RunResult

__all__ = ["Row", "labels", "rows_of", "word"]


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement and its cell in every run; None where a run's suite did not have it."""

    id: str
    level: str
    title: str
    why: str
    source: str
    cells: tuple[RequirementResult | None, ...]

    @property
    def words(self) -> list[str]:
        """The outcomes as words, one for each run."""
        return [word(cell) for cell in self.cells]

    @property
    def differs(self) -> bool:
        """Whether runs that looked disagree."""
        return (
            len({one for one in self.words if one not in ("absent", Outcome.NOT_SELECTED.value)})
            > 1
        )

    @property
    def is_worth_a_look(self) -> bool:
        """Whether any run found something else than that it is met or not claimed."""
        quiet = {Outcome.MET.value, Outcome.NOT_CLAIMED.value, Outcome.NOT_SELECTED.value, "absent"}
        return any(one not in quiet for one in self.words)


def word(cell: RequirementResult | None) -> str:
    """Return the outcome; `absent` where a run's suite did not have the requirement."""
    return cell.outcome.value if cell else "absent"


def rows_of(runs: Sequence[RunResult]) -> list[Row]:
    """Return every requirement of any run, in the order of their ids."""
    ids = sorted({id for run in runs for id in run.requirements})
    return [_row(id, runs) for id in ids]


def labels(runs: Sequence[RunResult]) -> list[str]:
    """Return a short name for each run: the driver, and of the rest whatever tells runs apart."""
    specs = [run.driver.spec for run in runs]
    names = [spec.rpartition(":")[2] if ":" in spec else spec for spec in specs]
    if len(set(names)) < len(set(specs)):
        names = specs
    parts: list[list[str]] = [[name] for name in names]
    for value in (_kernel, _filesystem, _user, _options, _started, _suite):
        found = [value(run) for run in runs]
        if len({tuple(part) for part in parts}) < len(runs) and len(set(found)) > 1:
            for part, one in zip(parts, found, strict=True):
                part.append(one)
    return [" · ".join(filter(None, part)) for part in parts]


def _kernel(run: RunResult) -> str:
    return run.where.kernel


def _filesystem(run: RunResult) -> str:
    return run.where.filesystem


def _user(run: RunResult) -> str:
    return run.where.user


def _options(run: RunResult) -> str:
    return ",".join(run.driver.options)


def _started(run: RunResult) -> str:
    return run.started


def _suite(run: RunResult) -> str:
    return f"suite {run.suite}"


def _row(id: str, runs: Sequence[RunResult]) -> Row:
    having = next(run for run in runs if id in run.requirements)
    known = catalogue().get(id)
    return Row(
        id,
        having.requirements[id].level,
        having.requirements[id].title,
        known.why if known else "",
        known.source if known else "",
        tuple(run.requirements.get(id) for run in runs),
    )
