"""What is stored of other people's drivers is complete, and the page says the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from real.expectations import known_of, surprises
from real.page import document
from real.targets import TARGETS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DOCS / "real-drivers.json").read_text())
    return data


def test_page_is_what_the_record_says(record: dict[str, Any]) -> None:
    page = (DOCS / "real-drivers.md").read_text()

    assert document(record) == page, "python -m tests.real --page"


def test_recorded_runs_are_as_known(record: dict[str, Any]) -> None:
    assert {} == {
        name: lines
        for name, one in record["targets"].items()
        if (lines := surprises(name, one["outcomes"]))
    }


def test_known_violations_are_of_requirements_and_explained(record: dict[str, Any]) -> None:
    assert set(record["targets"]) <= set(TARGETS)
    for name in record["targets"]:
        known = known_of(name)
        assert known or not TARGETS[name].packages, f"{name}: only ours is without any"
        assert set() == known.keys() - set(catalogue())


def test_surprises_are_told_both_ways() -> None:
    name = "containers-storage-overlay"
    outcomes = dict.fromkeys(catalogue(), "met") | dict.fromkeys(known_of(name), "violated")
    assert [] == surprises(name, outcomes)

    outcomes |= {"LIF-001": "violated", "LIF-013": "met", "MET-001": "error"}
    assert [
        f"{name}: LIF-001 is violated, and not known to be",
        f"{name}: LIF-013 is met, but known to be violated",
        f"{name}: MET-001: the suite failed",
    ] == surprises(name, outcomes)
