"""docs/catalogue.md is what the code says, and its table of other suites leads somewhere."""

from pathlib import Path

from graphdriver_conformance.catalogue.__main__ import coverage, document
from graphdriver_conformance.catalogue.requirement import catalogue


def test_page_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "catalogue.md"

    assert document() == page.read_text(), (
        "python -m graphdriver_conformance.catalogue > docs/catalogue.md"
    )


def test_checks_of_other_suites_are_covered_or_say_why_not() -> None:
    checks = coverage()["check"]

    assert [] == [one["check"] for one in checks if bool(one.get("by")) is bool(one.get("not"))]
    assert set() == {id for one in checks for id in one.get("by", ())} - set(catalogue())
