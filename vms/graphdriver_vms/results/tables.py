"""Comparisons of rows: the tables of all forms of the report."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphdriver_vms.results.judge import Cell, Row

__all__ = [
    "Line",
    "Table",
    "cell_table",
    "changes",
    "fact_table",
    "ground_table",
    "requirement_table",
]

_ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its subject, one value per column, and the position of the first change."""

    name: str
    title: str
    values: tuple[str, ...]
    details: tuple[str, ...] = ()

    @property
    def is_level(self) -> bool:
        """Return whether all columns with a value are equal."""
        return len({one for one in self.values if one != _ABSENT}) <= 1


@dataclass(frozen=True, slots=True)
class Table:
    """Lines with the same columns."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    def uneven(self) -> "Table":
        """Return only the lines whose columns differ."""
        return Table(self.columns, tuple(one for one in self.lines if not one.is_level))


def changes(line: Line, columns: Sequence[str]) -> list[str]:
    """Return `COLUMN: before -> after` for each column whose value differs from the previous one.

    Columns without a value are ignored.
    """
    texts, before = [], ""
    for column, value in zip(columns, line.values, strict=True):
        if value == _ABSENT:
            continue
        if before and value != before:
            texts.append(f"{column}: {before} → {value}")
        before = value
    return texts


def cell_table(rows: Sequence[Row]) -> Table:
    """Return cells x kernels: the state of each cell."""
    lines = []
    for name in _in_order(cell.name for row in rows for cell in row.cells):
        found = [next((cell for cell in row.cells if cell.name == name), None) for row in rows]
        driver = next(cell.driver for cell in found if cell)
        lines.append(
            Line(
                name,
                driver,
                tuple(_shown(cell.state, cell.outcomes()) if cell else _ABSENT for cell in found),
                tuple(cell.detail if cell else "" for cell in found),
            )
        )
    return Table(_columns(rows), tuple(lines))


def requirement_table(rows: Sequence[Row], cell: str) -> Table:
    """Return requirements x kernels for one cell: the outcome of each."""
    titles: dict[str, str] = {}
    found: list[Mapping[str, tuple[str, str]]] = []
    for row in rows:
        of_row = {}
        for one in row.cells:
            if one.name == cell:
                for id, outcome, title, detail in _asked(one):
                    titles[id] = title
                    of_row[id] = (outcome, detail)
        found.append(of_row)
    lines = [
        Line(
            id,
            title,
            tuple(of_row.get(id, (_ABSENT, ""))[0] for of_row in found),
            tuple(of_row.get(id, (_ABSENT, ""))[1] for of_row in found),
        )
        for id, title in sorted(titles.items())
    ]
    return Table(_columns(rows), tuple(lines))


def ground_table(rows: Sequence[Row], cell: str) -> Table:
    """Return requirements x cells of the same driver as `cell`: each outcome with its kernels.

    For a comparison of file systems, parameters and users, independent of the kernel.
    """
    cells = [one for row in rows for one in row.cells]
    drivers = {one.driver for one in cells if one.name == cell}
    columns = _in_order(one.name for one in cells if one.driver in drivers and one.result)
    titles: dict[str, str] = {}
    kernels: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        for one in row.cells:
            if one.name in columns:
                for id, outcome, title, _ in _asked(one):
                    titles[id] = title
                    of_cell = kernels.setdefault((id, one.name), {})
                    of_cell.setdefault(outcome, []).append(row.name)
    lines = [
        Line(id, title, tuple(_by_kernels(kernels.get((id, one), {})) for one in columns))
        for id, title in sorted(titles.items())
    ]
    return Table(tuple(columns), tuple(lines))


def fact_table(rows: Sequence[Row]) -> Table:
    """Return facts x kernels: the features of each kernel's overlayfs."""
    names = _in_order(name for row in rows for name in row.facts)
    lines = [
        Line(name, "", tuple(row.facts.get(name, _ABSENT) for row in rows))
        for name in names
        if not name.startswith("uname.")
    ]
    return Table(_columns(rows), tuple(lines))


def _asked(cell: Cell) -> Iterator[tuple[str, str, str, str]]:
    """Yield id, outcome, title and detail of each selected requirement of a cell."""
    for entry in cell.result.entries if cell.result else ():
        yield entry.id, entry.outcome, f"{entry.level}: {entry.title}", entry.detail


def _by_kernels(outcomes: Mapping[str, Sequence[str]]) -> str:
    """Return the outcome if all kernels have the same, otherwise each with its kernels."""
    if len(outcomes) < 2:
        return next(iter(outcomes), _ABSENT)
    return ", ".join(f"{outcome} on {' '.join(names)}" for outcome, names in outcomes.items())


def _columns(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(row.name for row in rows)


def _shown(state: str, outcomes: Mapping[str, str]) -> str:
    """Return a cell's state with its unmet requirements: the same state with others is a
    difference.

    A violation in a cell that is met is a SHOULD.
    """
    if state != "met":
        return state
    counts = Counter(outcomes.values())
    less = {"violated": counts["violated"], "not provable": counts["not-provable"]}
    return ", ".join([state, *(f"{count} {what}" for what, count in less.items() if count)])


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
