"""The state of each cell and row, from the files of the machines. This module runs nothing."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from graphdriver_vms.cells import CONFORMANT, VIOLATED
from graphdriver_vms.results.result import (
    FINISHED,
    NOT_CONFORMANT,
    InitError,
    Result,
    read_result,
)

__all__ = ["Cell", "Row", "State", "exit_code", "judge_cell", "read_row", "write_row"]

# The names of homes differ in each run; otherwise an error is the same on all kernels.
_HOME = re.compile(r"/\S+/graphdriver-\w{8}/\d+/home")
# For the text only: the suite's verdict counts.
_CAUSES = ("violated", "blocked", "waived", "error")


class State(StrEnum):
    """The state of a cell. Only the first two mean that requirements were tested."""

    MET = "met"
    REFUSED = "refused"
    NOT_PROVABLE = "not-provable"
    NOT_RUN = "not-run"
    DIFFERENT = "different"

    @property
    def shows_something(self) -> bool:
        """Whether it is evidence about the driver."""
        return self in (State.MET, State.REFUSED)


@dataclass(frozen=True, slots=True)
class Cell:
    """An evaluated cell of a row; `result` is None if there is none for the tables."""

    name: str
    driver: str
    state: State
    detail: str
    seconds: float = 0.0
    result: Result | None = None

    def outcomes(self) -> dict[str, str]:
        """Return the outcomes of the cell's requirements."""
        return self.result.outcomes() if self.result else {}


@dataclass(frozen=True, slots=True)
class Row:
    """A kernel's row. `problem` is the reason if there are no cells; `failed` means that it should
    have run.

    `booted` is false if its user space never ran. `planned` are the names of its cells.
    """

    name: str
    release: str = ""
    problem: str = ""
    failed: bool = False
    booted: bool = True
    seconds: float = 0.0
    planned: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)

    @property
    def is_different(self) -> bool:
        """Whether any cell is not as expected."""
        return any(cell.state is State.DIFFERENT for cell in self.cells)


def judge_cell(record: dict[str, Any], facts: dict[str, str], result: Result | None) -> Cell:
    """Evaluate one cell by its record, the kernel's features, and the suite's result file.

    Whether the driver conforms is the suite's verdict, which is compared with the expected one.
    """
    if record.get("failure"):
        failure = record["failure"]
        return Cell(record["name"], record["driver"], State.DIFFERENT, failure, record["seconds"])
    if record["expect"] == VIOLATED and not record["problem"]:
        state, detail = _caught(record, result)
        # The result is omitted: the outcomes of a broken driver are not for the tables.
        return Cell(record["name"], record["driver"], state, detail, record["seconds"])
    state, detail = _verdict(record, facts, result)
    return Cell(record["name"], record["driver"], state, detail, record["seconds"], result)


def _verdict(
    record: dict[str, Any], facts: dict[str, str], result: Result | None
) -> tuple[State, str]:
    if record["problem"]:
        return State.NOT_RUN, record["problem"]
    refused = _init_error(record, result)
    needed = record["requires"]
    lacking = bool(needed) and facts.get(needed, "unknown") != "ok"
    if record["expect"] != CONFORMANT or (lacking and refused):
        return _refusal_verdict(record, facts, refused)
    if refused:
        return State.DIFFERENT, f"Init failed ({refused.reason}): {_without_home(refused)}"
    if result is None:
        return State.DIFFERENT, f"no result; exit code {record['exit']}"
    if result.ended != FINISHED:
        return State.DIFFERENT, f"the run did not finish: {result.ended}"
    errors = any(one.outcome == "error" for one in result.entries)
    if result.verdict == NOT_CONFORMANT or errors:
        causes = [
            f"{one.id} {one.outcome}"
            for one in result.entries
            if one.outcome in _CAUSES and (one.level == "MUST" or one.outcome == "error")
        ]
        return State.DIFFERENT, ", ".join(causes) or result.verdict
    met = sum(one.outcome == "met" for one in result.entries)
    if not met:
        return State.DIFFERENT, "nothing was proven"
    return State.MET, ", ".join([f"{met} met", *_less(result)])


def _caught(record: dict[str, Any], result: Result | None) -> tuple[State, str]:
    """Evaluate a cell with a broken driver, which must violate every requested requirement."""
    asked = result.outcomes() if result else {}
    missed = [f"{id} {outcome}" for id, outcome in asked.items() if outcome != VIOLATED]
    if missed or not asked:
        error = _init_error(record, result)
        why = ", ".join(missed) or (f"Init: {_without_home(error)}" if error else "no result")
        return State.DIFFERENT, f"a broken driver was not caught: {why}"
    return State.MET, f"caught by {', '.join(asked)}"


def _less(result: Result) -> Iterator[str]:
    """List requirements that were not met in a cell as expected: a SHOULD, or not provable."""
    for outcome in ("violated", "not-provable"):
        ids = [one.id for one in result.entries if one.outcome == outcome]
        if ids:
            yield f"{outcome}: {', '.join(ids)}"


def _refusal_verdict(
    record: dict[str, Any], facts: dict[str, str], error: InitError | None
) -> tuple[State, str]:
    """Evaluate a cell in which Init must refuse, or may because of a missing feature."""
    expect = record["expect"] if record["expect"] != CONFORMANT else "NotSupported"
    if error is None:
        return State.DIFFERENT, f"Init must raise {expect}; exit code {record['exit']}, no error"
    if error.name != expect or not error.is_refusal:
        return State.DIFFERENT, f"Init must raise {expect}; {error.reason}: {_without_home(error)}"
    if record["left"]:
        return State.DIFFERENT, f"Init refused, but left {', '.join(record['left'])}"
    if record["expect"] == CONFORMANT:
        lack = f"{record['requires']} is {facts.get(record['requires'], 'unknown')}"
        return (
            State.NOT_PROVABLE,
            f"{lack} on this kernel, and Init refused: {_without_home(error)}",
        )
    return State.REFUSED, _without_home(error)


def _init_error(record: dict[str, Any], result: Result | None) -> InitError | None:
    """Return the error of Init, from the result file or, before schema 2, from the record."""
    if result and result.init_error:
        return result.init_error
    _, found, error = record.get("said", "").partition("the factory raised ")
    name, _, message = error.partition(": ")
    return InitError(name, message, "refused") if found else None


def _without_home(error: InitError) -> str:
    return _HOME.sub("HOME", str(error))


def read_row(directory: Path) -> Row:
    """Read the results of one machine, as `write_row` and the guest wrote them."""
    row = json.loads((directory / "row.json").read_text())
    facts = _json(directory / "facts.json", {})
    cells = [
        judge_cell(record, facts, read_result(directory / f"{record['name']}.json"))
        for record in _json(directory / "cells.json", [])
    ]
    if not row["problem"]:
        reported = {cell.name for cell in cells}
        cells += [
            Cell(name, "", State.DIFFERENT, "the machine did not report this cell")
            for name in row.get("planned", [])
            if name not in reported
        ]
    return Row(**row, facts=facts, cells=cells)


def write_row(directory: Path, row: Row) -> None:
    """Write the host's data of a row beside the guest's results."""
    directory.mkdir(parents=True, exist_ok=True)
    known = ("name", "release", "problem", "failed", "booted", "seconds", "planned")
    text = json.dumps({name: getattr(row, name) for name in known}, indent=1)
    (directory / "row.json").write_text(text + "\n")


def exit_code(rows: Sequence[Row]) -> int:
    """Return 2 if a machine failed or nothing ran, 1 for a difference, 0 otherwise."""
    if any(row.failed for row in rows):
        return 2
    if any(row.is_different for row in rows):
        return 1
    shown = any(cell.state.shows_something for row in rows for cell in row.cells)
    return 0 if shown else 2


def _json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.is_file() else default
