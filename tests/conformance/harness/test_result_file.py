"""Result files: every file that is written validates against the published schema."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from graphdriver_conformance.results.model import (
    Ended,
    Outcome,
    Reason,
    RequirementResult,
    TestResult,
    Verdict,
)
from graphdriver_conformance.results.result_file import read_results, result_of, to_data

pytest_plugins = ["pytester"]

SCHEMA: dict[str, Any] = json.loads(
    (files("graphdriver_conformance.results") / "result.schema.json").read_text("utf-8")
)
DRIVERS = """
import os
from graphdriver.errors import NotSupported
from graphdriver.vfs import Driver

class Refuses(Driver):
    def __init__(self, *_): raise NotSupported("not here", "go elsewhere")

class Dies(Driver):
    def __init__(self, *_): os._exit(3)

class RaisesSurrogate(Driver):
    def exists(self, id): raise ValueError("half a surrogate: \\udc80")
"""


def _written(pytester: pytest.Pytester, name: str, *more: str) -> dict[str, Any]:
    pytester.makepyfile(bad=DRIVERS)
    pytester.runpytest_subprocess(
        f"--driver={name}", "--requirement=LIF-001", "--requirement=INI-001",
        "--graphdriver-report=r.json", "-p", "no:cacheprovider", *more,
    )  # fmt: skip
    data: dict[str, Any] = json.loads((pytester.path / "r.json").read_text())
    return data


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
@pytest.mark.parametrize("name", ["vfs", "bad:Refuses", "bad:Dies", "bad:RaisesSurrogate"])
def test_written_files_validate(pytester: pytest.Pytester, name: str, processes: str) -> None:
    data = _written(
        pytester, name, processes, "--graphdriver-option=x=1" if name != "vfs" else "-q"
    )

    jsonschema.validate(data, SCHEMA)
    assert data["run"]["ended"] == "finished"
    assert data == to_data(result_of(data))


def test_init_that_refuses_is_in_the_file(pytester: pytest.Pytester) -> None:
    data = _written(pytester, "bad:Refuses")

    assert data["driver"]["init_error"] == {
        "class": "NotSupported",
        "message": "not here; go elsewhere",
        "reason": "refused",
    }
    assert data["verdict"] == "inconclusive"
    rows = {row["id"]: row for row in data["requirements"]}
    assert (rows["LIF-001"]["outcome"], rows["LIF-001"]["reason"]) == (
        "not-provable",
        "init-refused",
    )


def test_init_that_dies_is_a_violation(pytester: pytest.Pytester) -> None:
    data = _written(pytester, "bad:Dies")

    assert data["driver"]["init_error"]["reason"] == "process-died"
    assert data["verdict"] == "not-conformant"
    rows = {row["id"]: row for row in data["requirements"]}
    assert rows["INI-001"]["actual"] == "the process exited with status 3 in init(HOME)"
    assert rows["LIF-001"]["blocked_by"] == ["INI-001"]


def test_text_that_is_not_unicode_does_not_prevent_the_file(pytester: pytest.Pytester) -> None:
    data = _written(pytester, "bad:RaisesSurrogate")

    row = next(row for row in data["requirements"] if row["id"] == "LIF-001")
    assert "half a surrogate: \\udc80" in row["actual"]


def test_violations_validate(violated: Path) -> None:
    data = json.loads(violated.read_text())

    jsonschema.validate(data, SCHEMA)
    (result,) = read_results([violated])
    (row,) = result.violations
    assert row.program
    assert row.tree


def test_documents_have_the_same_schema() -> None:
    published = Path(__file__).parents[3] / "docs" / "result.schema.json"

    assert json.loads(published.read_text()) == SCHEMA


def test_schema_names_every_value_of_the_closed_sets() -> None:
    row = SCHEMA["properties"]["requirements"]["items"]["properties"]

    assert [one.value for one in Outcome] == row["outcome"]["enum"]
    assert [*(one.value for one in Reason), None] == row["reason"]["enum"]
    assert [one.value for one in Verdict] == SCHEMA["properties"]["verdict"]["enum"]
    assert [one.value for one in Ended] == SCHEMA["properties"]["run"]["properties"]["ended"][
        "enum"
    ]


def test_result_survives_the_transport() -> None:
    result = RequirementResult(
        "LIF-001",
        "MUST",
        "title",
        Outcome.VIOLATED,
        Reason.DEADLINE,
        program=("a", "b"),
        seconds=1.5,
    )

    carried = json.loads(json.dumps(TestResult("vfs", "test", result, ("text",)).to_data()))

    assert TestResult("vfs", "test", result, ("text",)) == TestResult.from_data(carried)


def test_files_of_schema_1_are_read(tmp_path: Path) -> None:
    row = {
        "id": "LIF-001", "level": "MUST", "title": "t", "seconds": 0.1, "examples": 1,
        "outcome": "met", "detail": None, "reproduce": None,
    }  # fmt: skip
    unasked = {"outcome": "not-provable", "detail": "not selected in this run"}
    failed = {"outcome": "violated", "detail": "expected:  a\nactual:    b", "reproduce": "pytest"}
    old = {
        "schema": 1,
        "suite": {"version": "0.1.0", "catalogue": "0.1"},
        "driver": {"spec": "vfs", "name": "vfs", "status": [["a", "b"]], "capabilities": None},
        "environment": {
            "kernel": "6.1", "machine": "x86_64", "filesystem": "ext4", "uid": 0, "facts": {},
        },
        "started": "2026-01-01T00:00:00Z",
        "seconds": 1.0,
        "seed": 7,
        "verdict": "not-conformant",
        "counts": {},
        "requirements": [
            row, {**row, **unasked, "id": "LIF-002"}, {**row, **failed, "id": "LIF-003"},
        ],
    }  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(old))

    (result,) = read_results([tmp_path / "old.json"])

    assert [one.outcome for one in result.requirements.values()] == [
        Outcome.MET,
        Outcome.NOT_SELECTED,
        Outcome.VIOLATED,
    ]
    assert result.run.seed == 7
    assert result.verdict is Verdict.NOT_CONFORMANT
