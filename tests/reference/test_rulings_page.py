"""Every ruling names its tests, and these exist."""

import re
from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue

ROOT = Path(__file__).parents[2]
ROWS = re.findall(
    r"^\| (\d+) \|.*\| (.*) \|$", (ROOT / "docs/rulings.md").read_text(), re.MULTILINE
)


def test_every_ruling_has_its_row() -> None:
    assert [*range(1, 42)] == [int(number) for number, _ in ROWS]


@pytest.mark.parametrize(("number", "named"), ROWS)
def test_ruling_names_tests_that_exist(number: str, named: str) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", named)
    ids = re.findall(r"\b[A-Z]{3}-\d{3}\b", named)

    assert names or ids
    assert [name for name in names if f"def {name}(" not in tests] == []
    assert [id for id in ids if id not in catalogue()] == []


def test_every_corner_case_is_on_its_page() -> None:
    page = (ROOT / "docs/corners.md").read_text()

    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == [
        str(number) for number in range(1, 71)
    ]
