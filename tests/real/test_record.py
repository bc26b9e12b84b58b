"""The records of third-party drivers are complete, and the pages match them."""

import json
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from real import comparison, findings
from real.expectations import known_of, surprises
from real.page import document
from real.suites import SUITES, short
from real.targets import TARGETS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DOCS / "real-drivers.json").read_text())
    return data


def test_page_matches_the_record(record: dict[str, Any]) -> None:
    page = (DOCS / "real-drivers.md").read_text()

    assert page == document(record), "python -m tests.real --page"


def test_recorded_runs_are_as_known(record: dict[str, Any]) -> None:
    assert {
        name: lines
        for name, one in record["targets"].items()
        if (lines := surprises(name, one["outcomes"]))
    } == {}


def test_known_violations_are_of_requirements_and_explained(record: dict[str, Any]) -> None:
    assert set(record["targets"]) <= set(TARGETS)
    for name in record["targets"]:
        known = known_of(name)
        assert known or not TARGETS[name].packages, f"{name}: only ours is without any"
        assert known.keys() - set(catalogue()) == set()


def test_unexpected_outcomes_are_reported_in_both_directions() -> None:
    name = "containers-storage-overlay"
    outcomes = dict.fromkeys(catalogue(), "met") | dict.fromkeys(known_of(name), "violated")
    assert surprises(name, outcomes) == {}

    outcomes |= {"LIF-001": "violated", "LIF-013": "met", "MET-001": "error"}
    assert surprises(name, outcomes) == {
        "LIF-001": f"{name}: LIF-001 is violated, and not known to be",
        "LIF-013": f"{name}: LIF-013 is met, but known to be violated",
        "MET-001": f"{name}: MET-001: the suite failed",
    }


def test_violations_are_known_for_some_suites_only() -> None:
    """delete-layer of the vfs driver keeps bind mounts in the version of Debian 12."""
    assert "LIF-022" not in known_of("containers-storage-vfs")
    assert "LIF-022" in known_of("containers-storage-vfs@sid")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("26.1.5+dfsg1-9+deb13u1", "26.1"), ("1.7.24~ds1-6", "1.7"), ("1:2.3-4", "2.3"), ("?", "?")],
)
def test_columns_have_short_versions(version: str, expected: str) -> None:
    assert short(version) == expected


def test_pages_of_findings_are_what_was_recorded() -> None:
    recorded = json.loads((DOCS / "findings" / "results.json").read_text())

    assert set(recorded) == set(findings.FINDINGS)
    for path, text in findings.pages(recorded).items():
        assert path.read_text() == text, "python -m tests.real.findings --pages"


@pytest.mark.parametrize("finding", findings.FINDINGS.values(), ids=str)
def test_finding_reproduces_without_this_project(finding: findings.Finding) -> None:
    recorded = json.loads((DOCS / "findings" / "results.json").read_text())[finding.name]
    script = finding.script.read_text()

    assert set(finding.suites) == set(recorded)
    assert set(recorded) <= set(SUITES)
    assert any(row["expected"] != row["actual"] for row in recorded.values())
    assert "graphdriver" not in script
    for section in ("Summary", "Versions", "Steps", "Expected", "Cause", "Upstream"):
        assert f"\n## {section}" in finding.page.read_text()


def test_comparison_is_what_was_recorded() -> None:
    record = json.loads((DOCS / "comparison.json").read_text())

    assert (DOCS / "comparison.md").read_text() == comparison.page_of(record)
    assert [] == record["overlay2"] == record["vfs"]
