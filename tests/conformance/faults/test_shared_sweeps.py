"""Sweeps run once per session, and are not provable if another process does the work."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphdriver_conformance.drivers.resolve import resolve
from graphdriver_conformance.faults.findings import FaultFound, Finding, Swept, Where
from graphdriver_conformance.fixture.needs import Asked, NotProvable
from graphdriver_conformance.fixture.program import Program
from graphdriver_conformance.suite.support import shared_sweeps
from graphdriver_conformance.suite.support.effort import SHRINK_VARIABLE
from graphdriver_conformance.suite.support.fault_scene import Scene


def _subject(shared: Path) -> Any:
    def not_provable(reason: str) -> None:
        raise NotProvable(reason)

    return SimpleNamespace(
        source=resolve("vfs"),
        asked=Asked(),
        only_fault=None,
        shared=shared,
        options=(),
        claims=lambda capability: True,
        not_provable=not_provable,
        program=Program(),
        note=lambda text: None,
    )


@pytest.fixture(autouse=True)
def without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scene, "build", lambda scene: None)


def test_sweep_is_made_once(tmp_path: Path) -> None:
    made: list[str] = []
    found = Finding("CRS-005", Where("create_base", "kill", 1), "killed", "a", "b")

    def sweep(scene: Scene, name: str, only: Where | None) -> Swept:
        made.append(name)
        return Swept(name, 3, ["one"], [found] * (name == "create_base"))

    for _ in range(2):
        subject = _subject(tmp_path)
        sweeps = list(shared_sweeps._of_acts(subject, "kill", ["create_base"], sweep))

    assert made == ["create_child", "create_base"]
    assert [one for sweep in sweeps for one in sweep.findings] == [found]


def test_driver_that_delegates_to_another_process_is_not_provable(tmp_path: Path) -> None:
    def sweep(scene: Scene, name: str, only: Where | None) -> Swept:
        return Swept(name)

    with pytest.raises(NotProvable, match="the suite did not start"):
        list(shared_sweeps._of_acts(_subject(tmp_path), "kill", ["get"], sweep))


def test_only_the_fault_that_is_asked_for_is_made(tmp_path: Path) -> None:
    subject = _subject(tmp_path)
    subject.only_fault = Where("get", "EIO", 4)

    def sweep(scene: Scene, name: str, only: Where | None) -> Swept:
        return Swept(name, tried=[repr(only)])

    (swept,) = shared_sweeps._of_acts(subject, "error", ["create_base"], sweep)

    assert (swept.act, swept.tried) == ("get", [repr(subject.only_fault)])


@pytest.mark.parametrize(("shrinks", "last"), [("no", "create_base"), ("yes", "get")])
def test_no_sweep_follows_a_finding_where_only_the_outcome_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shrinks: str, last: str
) -> None:
    monkeypatch.setenv(SHRINK_VARIABLE, shrinks)
    made: list[str] = []

    def sweep(scene: Scene, name: str, only: Where | None) -> Swept:
        made.append(name)
        where = Where(name, "kill", 1)
        findings = [Finding(id, where, "killed", "a", "b") for id in ("CRS-002", "CRS-005")]
        return Swept(name, 3, ["one"], findings[: 1 + (name == "create_base")])

    subject = _subject(tmp_path)
    sweeps = shared_sweeps._of_acts(subject, "kill", ["create_base", "get"], sweep)
    with pytest.raises(FaultFound):
        shared_sweeps.assert_met(subject, "CRS-005", sweeps)

    assert made[-1] == last
