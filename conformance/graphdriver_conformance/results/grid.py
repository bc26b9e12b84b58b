"""A comparison of runs: rows are requirements, columns are runs."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphdriver_conformance.catalogue.requirement import Level, catalogue
from graphdriver_conformance.results.model import Outcome, RequirementResult, RunResult

__all__ = ["ABSENT", "Row", "in_order", "labels", "rows_of", "when", "word"]

ABSENT = "absent"
"""The word for a requirement that a run's version of the suite did not have."""

# Rows with one of these need attention; the most severe are first.
_BY_IMPORTANCE = (
    Outcome.VIOLATED,
    Outcome.ERROR,
    Outcome.BLOCKED,
    Outcome.WAIVED,
    Outcome.NOT_PROVABLE,
)
_UNASKED = (ABSENT, Outcome.NOT_SELECTED.value)


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement and its cell in every run; None if a run's version did not have it."""

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
    def family(self) -> str:
        """The letters before the number."""
        return self.id.partition("-")[0]

    @property
    def differs(self) -> bool:
        """Whether runs that selected it have different outcomes."""
        return len({one for one in self.words if one not in _UNASKED}) > 1

    @property
    def needs_attention(self) -> bool:
        """Whether any run has another outcome than met or not claimed."""
        return any(one in _BY_IMPORTANCE for one in self.words)

    @property
    def was_tested(self) -> bool:
        """Whether any run selected it."""
        return any(one not in _UNASKED for one in self.words)


def word(cell: RequirementResult | None) -> str:
    """Return the outcome; `absent` if a run's version did not have the requirement."""
    return cell.outcome.value if cell else ABSENT


def rows_of(runs: Sequence[RunResult]) -> list[Row]:
    """Return every requirement of any run: those that need attention, the rest, those not selected.

    Of those that need attention, violated ones are first, and of these the ones that block most.
    """
    rows = [_row(id, runs) for id in {id for run in runs for id in run.requirements}]
    blocks = Counter(id for row in rows for cell in row.cells if cell for id in cell.blocked_by)
    levels = [level.value for level in Level]

    def importance(row: Row) -> tuple[object, ...]:
        worst = next((n for n, one in enumerate(_BY_IMPORTANCE) if one in row.words), None)
        if worst is None:
            return (len(_BY_IMPORTANCE) + (not row.was_tested), 0, 0, _natural(row.id))
        return (worst, -blocks[row.id], levels.index(row.level), _natural(row.id))

    return sorted(rows, key=importance)


def in_order(runs: Sequence[RunResult]) -> list[RunResult]:
    """Return the runs by driver, options and host, older ones first; numbers sort numerically."""
    return sorted(runs, key=lambda run: [_natural(value(run)) for value in (_spec, *_DISTINCTIONS)])


def labels(runs: Sequence[RunResult]) -> list[str]:
    """Return a name for each run: the driver's SPEC, and the facts that distinguish its runs."""
    names = [[_spec(run)] for run in runs]
    for value in _DISTINCTIONS:
        groups: dict[tuple[str, ...], set[str]] = {}
        for run, name in zip(runs, names, strict=True):
            groups.setdefault(tuple(name), set()).add(value(run))
        for run, name in zip(runs, names, strict=True):
            if len(groups[tuple(name)]) > 1:
                name.append(value(run))
    joined = [" · ".join(filter(None, name)) for name in names]
    again: Counter[str] = Counter()
    for n, label in enumerate(joined):
        again[label] += 1
        if again[label] > 1:
            joined[n] = f"{label} ({again[label]})"
    return joined


def when(run: RunResult) -> str:
    """Return the start time of a run as text."""
    return run.started.replace("T", " ").removesuffix("Z")


def _spec(run: RunResult) -> str:
    return run.driver.spec


# The facts that distinguish runs of one driver, in order of preference.
_DISTINCTIONS: tuple[Callable[[RunResult], str], ...] = (
    lambda run: ",".join(run.driver.options),
    lambda run: run.where.kernel,
    lambda run: run.where.filesystem,
    lambda run: run.where.user,
    lambda run: run.where.facts.get("machine.name", ""),
    lambda run: f"suite {run.suite}",
    lambda run: f"profile {run.run.profile}",
    when,
    lambda run: f"seed {run.run.seed}",
)


def _natural(text: str) -> list[tuple[str, int]]:
    """Return a sort key by which 2 is before 10."""
    pairs = re.findall(r"(\D*)(\d{0,18})", text)
    return [(letters, int(digits or -1)) for letters, digits in pairs]


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
