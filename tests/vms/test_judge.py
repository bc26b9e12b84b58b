"""The evaluation of cells and rows, from records as guests write them."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from graphdriver_vms.errors import MatrixError
from graphdriver_vms.results.judge import Row, State, exit_code, judge_cell, read_row, write_row
from graphdriver_vms.results.result import InitError, Result, parse_result, read_result

OF_SCHEMA_1 = "ERROR: overlay2: the factory raised NotSupported: overlay2 needs Linux 4.0; newer"
REFUSED = Result((), InitError("NotSupported", "overlay2 needs Linux 4.0; newer", "refused"))
FILES = Path(__file__).parent / "results"


def record(**changed: Any) -> dict[str, Any]:
    return {
        "name": "ext4",
        "driver": "overlay2",
        "expect": "conformant",
        "requires": "",
        "exit": 0,
        "problem": "",
        "left": [],
        "seconds": 1.0,
    } | changed


def result(**outcomes: str) -> Result:
    return parse_result(_data(outcomes))


def _verdict(outcomes: dict[str, str]) -> str:
    """Return the verdict of the suite for these outcomes."""
    must = [outcome for id, outcome in outcomes.items() if not id.startswith("S")]
    if {"violated", "blocked"} & set(must):
        return "not-conformant"
    return "conformant" if set(must) == {"met"} else "inconclusive"


def _data(outcomes: dict[str, str], ended: str = "finished") -> dict[str, Any]:
    rows = [
        {
            "id": id.replace("_", "-"),
            "level": "SHOULD" if id.startswith("S") else "MUST",
            "title": f"title of {id}",
            "outcome": outcome,
            "detail": f"because\nof {id}" if outcome != "met" else None,
        }
        for id, outcome in outcomes.items()
    ]
    met = sum(one["outcome"] == "met" for one in rows)
    return {
        "schema": 2,
        "driver": {"init_error": None},
        "run": {"ended": ended},
        "verdict": _verdict(outcomes),
        "requirements": rows,
        "counts": {"met": met},
    }


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ({"A_1": "met", "A_2": "not-provable"}, State.MET),
        ({"A_1": "met", "A_2": "violated"}, State.DIFFERENT),
        ({"A_1": "met", "A_2": "blocked"}, State.DIFFERENT),
        ({"A_1": "met", "S_2": "violated"}, State.MET),
        ({"A_1": "met", "S_2": "error"}, State.DIFFERENT),
        ({"A_1": "not-provable"}, State.DIFFERENT),
    ],
)
def test_state_of_a_cell_is_that_of_its_requirements(
    outcomes: dict[str, str], state: State
) -> None:
    assert state is judge_cell(record(), {}, result(**outcomes)).state


@pytest.mark.parametrize("ended", ["interrupted", "crashed"])
def test_a_run_that_did_not_finish_is_different(ended: str) -> None:
    found = parse_result(_data({"A_1": "met"}, ended))

    cell = judge_cell(record(), {}, found)

    assert (cell.state, cell.detail) == (State.DIFFERENT, f"the run did not finish: {ended}")


def test_the_verdict_is_that_of_the_suite() -> None:
    """The matrix must not derive a verdict from the outcomes: rules of the suite may change."""
    data = _data({"A_1": "met"}) | {"verdict": "not-conformant"}

    cell = judge_cell(record(), {}, parse_result(data))

    assert (cell.state, cell.detail) == (State.DIFFERENT, "not-conformant")


@pytest.mark.parametrize("expect", ["conformant", "violated", "NotSupported"])
def test_a_cell_that_failed_after_the_suite_is_different(expect: str) -> None:
    """A file system that cannot be unmounted, or a process that died."""
    found = {"conformant": result(A_1="met"), "violated": result(A_1="violated")}
    failed = record(expect=expect, failure="umount ended with 32", exit=4)

    cell = judge_cell(failed, {}, found.get(expect, REFUSED))

    assert (cell.state, cell.detail) == (State.DIFFERENT, "umount ended with 32")


def test_a_planned_cell_that_did_not_report_is_different(tmp_path: Path) -> None:
    row = _row(tmp_path, "6.1", [record()], planned=["ext4", "xfs"])

    assert [(cell.name, cell.state) for cell in row.cells] == [
        ("ext4", State.MET),
        ("xfs", State.DIFFERENT),
    ]
    assert exit_code([row]) == 1


def test_a_cell_without_result_is_different_unless_it_had_no_file_system() -> None:
    assert State.DIFFERENT is judge_cell(record(exit=3), {}, None).state
    assert State.NOT_RUN is judge_cell(record(problem="no mkfs.xfs"), {}, None).state


def test_a_refusal_counts_only_where_it_is_asked_for_and_leaves_nothing() -> None:
    asked = record(expect="NotSupported", exit=4)

    assert State.REFUSED is judge_cell(asked, {}, REFUSED).state
    assert State.DIFFERENT is judge_cell({**asked, "left": ["home"]}, {}, REFUSED).state
    assert State.DIFFERENT is judge_cell({**asked, "expect": "IncompatibleFS"}, {}, REFUSED).state
    assert State.DIFFERENT is judge_cell({**asked, "expect": "conformant"}, {}, REFUSED).state
    assert State.DIFFERENT is judge_cell(asked, {}, None).state
    assert State.DIFFERENT is judge_cell(asked, {}, result(A_1="met")).state


@pytest.mark.parametrize("reason", ["process-died", "deadline", "error"])
def test_init_that_dies_or_hangs_is_no_refusal(reason: str) -> None:
    error = Result((), InitError("NotSupported", "it ended", reason))

    cell = judge_cell(record(expect="NotSupported"), {}, error)

    assert State.DIFFERENT is cell.state
    assert reason in cell.detail


def test_a_refusal_in_a_record_of_schema_1_is_read() -> None:
    asked = record(expect="NotSupported", exit=4, said=OF_SCHEMA_1)

    cell = judge_cell(asked, {}, None)

    assert (
        cell.state,
        cell.detail,
    ) == (State.REFUSED, "NotSupported: overlay2 needs Linux 4.0; newer")


@pytest.mark.parametrize("name", ["schema2.json", "refused.json"])
def test_files_of_schema_2_are_as_the_suite_writes_them(name: str) -> None:
    results = Path(__file__).parents[2] / "conformance/graphdriver_conformance/results"

    jsonschema.validate(
        json.loads((FILES / name).read_text()),
        json.loads((results / "result.schema.json").read_text()),
    )


@pytest.mark.parametrize("schema", [1, 2])
def test_files_of_both_schemas_say_the_same(schema: int) -> None:
    found = read_result(FILES / f"schema{schema}.json")

    assert found is not None
    assert found.outcomes() == {
        "LIF-001": "met",
        "LIF-002": "violated",
        "LIF-003": "blocked",
        "ARC-003": "not-provable",
        "QUO-001": "not-claimed",
    }, "LNK-001 was not selected"
    details = {one.id: one.detail for one in found.entries}
    assert "blocked by LIF-002" in details["LIF-003"]
    assert "its root is 700" in details["LIF-002"]
    assert details["LIF-001"] == ""
    cell = judge_cell(record(), {}, found)
    assert (cell.state, cell.detail) == (State.DIFFERENT, "LIF-002 violated, LIF-003 blocked")


def test_a_refusal_is_a_fact_of_the_file() -> None:
    found = read_result(FILES / "refused.json")

    cell = judge_cell(record(expect="NotSupported"), {}, found)

    assert State.REFUSED is cell.state
    assert cell.detail == "NotSupported: overlay2 needs Linux 4.0, this is 2.6.78 (HOME)"
    assert cell.outcomes() == {}, "a driver that refused met and violated nothing"


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "{}", '{"schema": 3, "requirements": []}'),
        '{"schema": 1, "requirements": [], "verdict": "fine"}',
        '{"schema": 2, "requirements": [], "verdict": "conformant", "run": {"ended": "soon"}}',
        '{"requirements": [], "verdict": "conformant"}',
    ],
)
def test_files_that_are_not_results_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)

    with pytest.raises(MatrixError, match=r"r\.json is not a result file"):
        read_result(tmp_path / "r.json")
    assert read_result(tmp_path / "nothing.json") is None


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ({"A_1": "violated"}, State.MET),
        ({"A_1": "violated", "A_2": "met"}, State.DIFFERENT),
        ({"A_1": "not-provable"}, State.DIFFERENT),
        ({}, State.DIFFERENT),
    ],
)
def test_broken_driver_must_be_detected(outcomes: dict[str, str], state: State) -> None:
    cell = judge_cell(record(expect="violated", exit=1), {}, result(**outcomes))

    assert state is cell.state
    assert cell.outcomes() == {}, "the tables are of drivers that are judged"


def test_missing_kernel_feature_is_not_provable_and_no_violation() -> None:
    """Linux 5.10 mounts no overlay in user namespaces; the probe finds this, not the version."""
    user = record(requires="userns.overlay", exit=4)

    cell = judge_cell(user, {"userns.overlay": "EPERM"}, REFUSED)

    assert State.NOT_PROVABLE is cell.state
    assert "userns.overlay is EPERM" in cell.detail
    assert State.DIFFERENT is judge_cell(user, {"userns.overlay": "ok"}, REFUSED).state


def _row(tmp_path: Path, name: str, cells: list[dict[str, Any]], **known: Any) -> Row:
    write_row(tmp_path / name, Row(name, **known))
    (tmp_path / name / "cells.json").write_text(json.dumps(cells))
    (tmp_path / name / "ext4.json").write_text(json.dumps(_data({"A_1": "met"})))
    return read_row(tmp_path / name)


def test_exit_codes(tmp_path: Path) -> None:
    good = _row(tmp_path, "good", [record()], release="6.1.0")
    bad = _row(tmp_path, "bad", [record(name="xfs")])
    failed = Row("failed", problem="never booted", failed=True)
    idle = Row("idle", problem="takes internet")

    assert exit_code([good, idle]) == 0
    assert exit_code([good, bad, idle]) == 1
    assert exit_code([good, bad, failed]) == 2
    assert exit_code([idle]) == 2, "where nothing ran nothing is as expected"
    assert good.release == "6.1.0"
