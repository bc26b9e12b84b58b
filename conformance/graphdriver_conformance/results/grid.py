"""Runs beside each other: rows are requirements, columns are runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.outcome import Outcome
from graphdriver_conformance.results.runs import Cell, Run

__all__ = ["NOT_SELECTED_WORD", "Row", "labels", "rows_of", "word"]

NOT_SELECTED_WORD = "not-selected"


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement and its cell in every run; None where a run's suite did not have it."""

    id: str
    level: str
    title: str
    why: str
    source: str
    cells: tuple[Cell | None, ...]

    @property
    def words(self) -> list[str]:
        """The outcomes as words, one for each run."""
        return [word(cell) for cell in self.cells]

    @property
    def differs(self) -> bool:
        """Whether runs that looked disagree."""
        return len({one for one in self.words if one not in ("absent", NOT_SELECTED_WORD)}) > 1

    @property
    def is_worth_a_look(self) -> bool:
        """Whether any run found something else than that it is met or not claimed."""
        quiet = {Outcome.MET.value, Outcome.NOT_CLAIMED.value, NOT_SELECTED_WORD, "absent"}
        return any(one not in quiet for one in self.words)


def word(cell: Cell | None) -> str:
    """Return the outcome; `not-selected` and `absent` are none of the file's, but of the page's."""
    if cell is None:
        return "absent"
    return cell.outcome.value if cell.was_asked else NOT_SELECTED_WORD


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Return every requirement of any run, in the order of their ids."""
    ids = sorted({id for run in runs for id in run.cells})
    return [_row(id, runs) for id in ids]


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a short name for each run: the driver, and of the rest what tells runs apart."""
    names = [run.spec.rpartition(":")[2] if ":" in run.spec else run.spec for run in runs]
    if len(set(names)) < len({run.spec for run in runs}):
        names = [run.spec for run in runs]
    parts: list[list[str]] = [[name] for name in names]
    for value in ("kernel", "filesystem", "user"):
        found = [str(getattr(run, value)) for run in runs]
        if len(set(found)) > 1:
            for part, one in zip(parts, found, strict=True):
                part.append(one)
    return [" · ".join(part) for part in parts]


def _row(id: str, runs: Sequence[Run]) -> Row:
    having = next(run for run in runs if id in run.cells)
    known = catalogue().get(id)
    return Row(
        id,
        having.levels[id],
        having.titles[id],
        known.why if known else "",
        known.source if known else "",
        tuple(run.cells.get(id) for run in runs),
    )
