"""Synthetic runs for the report: results of the whole catalogue, without a driver."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.model import (
    DriverInfo,
    Outcome,
    Reason,
    RequirementResult,
    RunInfo,
    RunResult,
    Where,
)

MakeRun = Callable[..., RunResult]

VIOLATED: dict[str, Any] = {
    "outcome": Outcome.VIOLATED,
    "reason": Reason.MISMATCH,
    "expected": "the tree of the layer",
    "actual": "a tree without /d/a",
    "program": ("create('layer-0')", "diff('layer-0')"),
    "tree": ("- /d/a: it is missing",),
    "reproduce": "pytest --driver=mine --requirement=DIF-002",
    "script": "python repro/DIF-002.py",
}


def _make_run(
    spec: str = "mine:Driver",
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    kernel: str = "6.18.1",
    started: str = "2026-11-27T10:00:00Z",
    suite: str = "0.1.0",
    options: tuple[str, ...] = (),
    **run: Any,
) -> RunResult:
    """Return a run in which every requirement is met except `changes`, by requirement id."""
    rows = {
        id: RequirementResult.of(one, Outcome.MET, examples=1, seconds=0.01)
        for id, one in catalogue().items()
    }
    for id, fields in (changes or {}).items():
        rows[id] = replace(rows[id], **fields)
    return RunResult(
        suite,
        "0.1",
        DriverInfo(spec, spec.rpartition(":")[2], options, (("Backing Filesystem", "ext4"),), ()),
        RunInfo(command=("pytest", f"--driver={spec}"), **run),
        Where(kernel, "x86_64", "ext4", 0, {"userns": "false"}),
        started,
        12.5,
        rows,
    )


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Return the function that creates runs."""
    return _make_run
