"""docs/catalogue.md is up to date, and the links in its table of other suites are valid."""

from pathlib import Path

import pytest

from graphdriver_conformance.catalogue import requirement
from graphdriver_conformance.catalogue.__main__ import coverage, document
from graphdriver_conformance.catalogue.requirement import catalogue, table


def test_page_matches_the_code() -> None:
    page = Path(__file__).parents[2] / "docs" / "catalogue.md"

    assert page.read_text() == document(), (
        "python -m graphdriver_conformance.catalogue > docs/catalogue.md"
    )


def test_checks_of_other_suites_are_covered_or_have_a_reason() -> None:
    checks = coverage()

    assert [one["check"] for one in checks if bool(one.get("by")) is bool(one.get("not"))] == []
    assert {id for one in checks for id in one.get("by", ())} - set(catalogue()) == set()


def test_retired_ids_are_unique_and_have_a_reason() -> None:
    ids = [
        one["id"] for one in table("retired.toml")["retired"] if one["planned"] and one["reason"]
    ]

    assert len(set(ids)) == len(table("retired.toml")["retired"])


def test_retired_id_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirement, "table", lambda _: {"retired": [{"id": "LIF-001"}]})

    with pytest.raises(ValueError, match="LIF-001: retired ids are never reused"):
        catalogue.__wrapped__()
