"""`python -m graphdriver_conformance.catalogue` prints docs/catalogue.md."""

import tomllib
from collections import Counter
from importlib.resources import files
from typing import Any

from graphdriver_conformance.catalogue.requirement import Level, Requirement, catalogue

__all__ = ["coverage", "document"]

_HEAD = """# The catalogue

What is asked of a driver is data, in `conformance/graphdriver_conformance/catalogue/FAMILY.toml`.
`graphdriver explain ID` has more of each, and [the kill table](kill-table.md) the broken drivers it
catches. A requirement that needs a capability is asked of drivers that claim it, one that needs
something of the machine where that is there. This page is printed by
`python -m graphdriver_conformance.catalogue`.

"""

_COVERAGE = """
## What other suites check

Check by check, what the suites that exist ask of a driver, and the requirements that have it here.

"""

_DROPPED = """
## Left out, merged, or another level

An id is never used for anything else.

| id | what it was to be | what became of it |
|---|---|---|
"""


def coverage() -> dict[str, list[dict[str, Any]]]:
    """Return `check`: what other suites check and by what it is covered; `dropped`: what is not."""
    text = (
        files("graphdriver_conformance.catalogue").joinpath("other_suites.toml").read_text("utf-8")
    )
    return tomllib.loads(text)


def document() -> str:
    """Return the page."""
    families: dict[str, list[Requirement]] = {}
    for one in catalogue().values():
        families.setdefault(one.family, []).append(one)
    found = coverage()
    return (
        _HEAD
        + _counts(families)
        + "".join(_family(name, sorted(some, key=_id)) for name, some in sorted(families.items()))
        + _COVERAGE
        + _checks(found["check"])
        + _DROPPED
        + "".join(f"| {one['id']} | {one['was']} | {one['why']} |\n" for one in found["dropped"])
    )


def _id(requirement: Requirement) -> str:
    return requirement.id


def _counts(families: dict[str, list[Requirement]]) -> str:
    rows = "| family | MUST | SHOULD | MAY |\n|---|--:|--:|--:|\n"
    for name, some in sorted(families.items()):
        levels = Counter(one.level for one in some)
        rows += f"| [{name}](#{name.lower()}) | {' | '.join(str(levels[one]) for one in Level)} |\n"
    levels = Counter(one.level for some in families.values() for one in some)
    return rows + f"| all | {' | '.join(str(levels[one]) for one in Level)} |\n"


def _family(name: str, requirements: list[Requirement]) -> str:
    rows = (
        f"\n## {name}\n\n| id | level | what must hold | needs | source |\n|---|---|---|---|---|\n"
    )
    for one in requirements:
        needs = ", ".join(one.needs)
        rows += f"| {one.id} | {one.level} | {one.title} | {needs} | {one.source} |\n"
    return rows


def _checks(checks: list[dict[str, Any]]) -> str:
    rows, suite = "", ""
    for one in checks:
        if one["suite"] != suite:
            suite = one["suite"]
            rows += f"\n### {suite}\n\n| check | covered by |\n|---|---|\n"
        rows += f"| {one['check']} | {', '.join(one.get('by', ())) or 'not: ' + one['not']} |\n"
    return rows.lstrip("\n")


if __name__ == "__main__":
    print(document(), end="")
