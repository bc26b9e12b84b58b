"""docs/levels.md has a reason for each requirement below MUST, and for no other."""

import re
from pathlib import Path

from graphdriver_conformance.catalogue.requirement import Level, catalogue

PAGE = (Path(__file__).parents[2] / "docs" / "levels.md").read_text("utf-8")
_ROW = re.compile(r"^\| (?P<ids>[A-Z]{3}-[0-9]{3}[^|]*) \| (?P<level>[A-Z]+) \|", re.MULTILINE)
_RAISED = re.compile(r"^\| ([A-Z]{3}-[0-9]{3}) \| [^A-Z]", re.MULTILINE)


def _ids(text: str) -> list[str]:
    found: list[str] = []
    for part in text.split(", "):
        first, _, last = part.partition(" to ")
        family, numbers = first[:4], range(int(first[4:]), int((last or first)[4:]) + 1)
        found += [f"{family}{number:03}" for number in numbers]
    return found


def test_every_level_below_must_has_a_reason() -> None:
    explained = {id: row["level"] for row in _ROW.finditer(PAGE) for id in _ids(row["ids"].strip())}

    assert {
        one.id: one.level for one in catalogue().values() if one.level is not Level.MUST
    } == explained


def test_raised_levels_are_must() -> None:
    raised = _RAISED.findall(PAGE)

    assert "SIZ-003" in raised
    assert {catalogue()[id].level for id in raised} == {Level.MUST}
