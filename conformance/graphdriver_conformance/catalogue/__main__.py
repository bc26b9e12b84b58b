"""`python -m graphdriver_conformance.catalogue` prints docs/catalogue.md."""

import tomllib
from collections import Counter
from importlib.resources import files
from typing import Any

from graphdriver_conformance.catalogue.requirement import Level, Requirement, catalogue

__all__ = ["coverage", "document"]

_HEAD = """# The catalogue

The requirements are data, in `conformance/graphdriver_conformance/catalogue/FAMILY.toml`.
`graphdriver explain ID` prints the details of each; [the kill table](kill-table.md) lists the
broken drivers that each one catches. A requirement that needs a capability applies to drivers that
claim the capability; one that needs a feature of the machine is tested where the machine has it.
This page is printed by `python -m graphdriver_conformance.catalogue`.

"""

_COVERAGE = """
## What other suites check

The checks of existing suites, and the requirements that cover each of them here.

"""

_DROPPED = """
## Retired ids

Requirements that were planned and left out, merged into others, or changed in level. A retired id
is never reused.

| id | planned requirement | reason |
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
    rows = f"\n## {name}\n\n| id | level | requirement | needs | source |\n|---|---|---|---|---|\n"
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
