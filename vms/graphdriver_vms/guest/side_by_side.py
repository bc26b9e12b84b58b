"""Runs cells side by side, each in a process of its own."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["run_side_by_side"]

_Data = dict[str, Any]


def run_side_by_side(
    cells: Sequence[_Data],
    at_once: int,
    work: Callable[[_Data], _Data],
    started: Callable[[_Data], None],
    ended: Callable[[_Data, _Data], None],
) -> None:
    """Call `work` for each cell in a child, and `ended` with the record that it returned.

    The first cell is the longest one and starts first. A child that dies is a cell without result,
    and its record has the reason in `failure`.
    """
    waiting = sorted(cells, key=lambda one: 0 if one is cells[0] else _order(one))
    running: dict[int, _Data] = {}
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or running:
            cell = _next(waiting, list(running.values())) if len(running) < at_once else None
            if cell is not None:
                waiting.remove(cell)
                started(cell)
                running[_fork(cell, work, Path(scratch))] = cell
                continue
            child, status = os.wait()
            if child in running:
                cell = running.pop(child)
                ended(cell, _record(cell, status, Path(scratch)))


def _order(cell: _Data) -> int:
    """Return the place of a cell in the sequence: cells with parameters run beside few others, so
    they and those few are last.
    """
    return 2 if not cell["takes_overlay"] else int(bool(cell["parameters"]))


def _next(waiting: Sequence[_Data], running: Sequence[_Data]) -> _Data | None:
    """Return the first cell that can run beside the running ones."""
    fitting = (one for one in waiting if not any(_excludes(one, other) for other in running))
    return next(fitting, None)


def _excludes(one: _Data, other: _Data) -> bool:
    """Return whether two cells exclude each other: parameters apply to every overlay mount."""
    both = one["takes_overlay"] and other["takes_overlay"]
    return bool(both and (one["parameters"] or other["parameters"]))


def _fork(cell: _Data, work: Callable[[_Data], _Data], scratch: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        (scratch / cell["name"]).write_text(json.dumps(work(cell)))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _record(cell: _Data, status: int, scratch: Path) -> _Data:
    code = os.waitstatus_to_exitcode(status)
    if not code:
        record: _Data = json.loads((scratch / cell["name"]).read_text())
        return record
    failure = f"the process of the cell ended with {code}"
    return {**cell, "exit": None, "problem": "", "left": [], "seconds": 0.0, "failure": failure}
