"""Cells that run concurrently in a guest with several processors."""

import json
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from graphdriver_vms.cells import load_cells, plan
from graphdriver_vms.guest import agent, suite
from graphdriver_vms.guest.side_by_side import run_side_by_side

_Data = dict[str, Any]


def _cell(name: str, parameters: dict[str, str] | None = None, **keys: Any) -> _Data:
    return {"name": name, "parameters": parameters or {}, "takes_overlay": True, **keys}


def _run(cells: list[_Data], at_once: int, work: Any = lambda cell: {}) -> list[tuple[str, str]]:
    """Return the starts and ends of cells in their order."""
    events: list[tuple[str, str]] = []
    run_side_by_side(
        cells,
        at_once,
        work,
        lambda cell: events.append(("start", cell["name"])),
        lambda cell, record: events.append(("end", cell["name"])),
    )
    return events


def _overlaps(events: list[tuple[str, str]]) -> set[frozenset[str]]:
    """Return the pairs of cells that ran at the same time."""
    running: set[str] = set()
    pairs: set[frozenset[str]] = set()
    for word, name in events:
        if word == "end":
            running.remove(name)
            continue
        pairs |= {frozenset((name, other)) for other in running}
        running.add(name)
    return pairs


def test_one_processor_runs_them_in_sequence() -> None:
    events = _run([_cell("a"), _cell("b")], 1)

    assert events == [("start", "a"), ("end", "a"), ("start", "b"), ("end", "b")]


def test_two_processors_run_two(tmp_path: Path) -> None:
    """Each cell waits for the other: in sequence, neither would end."""
    for name in "ab":
        os.mkfifo(tmp_path / name)

    def wait_for_other(cell: _Data) -> _Data:
        mine, other = "ab" if cell["name"] == "a" else "ba"
        # Reading and writing in opposite order, so that both are open at the same time.
        for name in sorted((mine, other)):
            os.close(os.open(tmp_path / name, os.O_WRONLY if name == mine else os.O_RDONLY))
        return {}

    assert _overlaps(_run([_cell("a"), _cell("b")], 2, wait_for_other)) == {frozenset("ab")}


def test_parameters_of_the_module_exclude_every_other_overlay() -> None:
    cells = plan(list(load_cells().values()), "overlay2", frozenset(), "quick", "works")["cells"]
    known = {one["name"]: one for one in cells}

    events = _run(cells, 4)

    assert {name for word, name in events if word == "end"} == set(known)
    assert events[0][1] == "ext4", "the longest cell starts first"
    for pair in _overlaps(events):
        one, other = (known[name] for name in pair)
        if one["parameters"] or other["parameters"]:
            assert "vfs" in (one["driver"], other["driver"])


def test_a_cell_whose_process_dies_has_no_result_and_the_others_run() -> None:
    records: dict[str, _Data] = {}

    def work(cell: _Data) -> _Data:
        if cell["name"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if cell["name"] == "raises":
            raise ZeroDivisionError
        return {**cell, "exit": 0}

    def ended(cell: _Data, record: _Data) -> None:
        records[cell["name"]] = record

    cells = [_cell("killed"), _cell("raises"), _cell("good")]
    run_side_by_side(cells, 2, work, lambda cell: None, ended)

    assert {name: record["exit"] for name, record in records.items()} == {
        "killed": None,
        "raises": None,
        "good": 0,
    }
    assert "ended with -9" in records["killed"]["failure"]
    assert "ended with 70" in records["raises"]["failure"]
    assert "failure" not in records["good"]


def test_records_are_in_the_order_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells end in any order; reports list them in the order of cells.toml."""
    started = tmp_path / "started"

    def run_cell(cell: _Data, *_: object) -> _Data:
        if cell["name"] == "second":
            started.touch()
        until = time.monotonic() + 60
        while not started.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return {"name": cell["name"]}

    monkeypatch.setattr(suite, "warm_up", lambda: None)
    monkeypatch.setattr(agent, "probe_facts", dict)
    monkeypatch.setattr(agent, "_run_cell", run_cell)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    agent.run_plan({"cells": [_cell("first"), _cell("second")]}, tmp_path / "results")

    records = json.loads((tmp_path / "results/cells.json").read_text())
    assert [one["name"] for one in records] == ["first", "second"]


def test_failure_after_the_suite_is_no_cell_that_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "mounted_filesystem", lambda _: nullcontext(tmp_path))
    monkeypatch.setattr(agent, "d_type", lambda _: "yes")
    monkeypatch.setattr(suite, "run", lambda *_: 0)

    def fail(_: object) -> list[str]:
        raise OSError("Device or resource busy")

    monkeypatch.setattr(os, "listdir", fail)
    cell = _cell("ext4", driver="overlay2", requirements=[], make=[], user="root", personality="")

    record = agent._run_cell(cell, {"profile": "quick"}, tmp_path, {})

    assert (
        record["problem"],
        record["exit"],
        record["failure"],
    ) == ("", 0, "Device or resource busy")
