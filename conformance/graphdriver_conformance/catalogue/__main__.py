"""`python -m graphdriver_conformance.catalogue` prints docs/catalogue.md."""

from collections import Counter
from typing import Any

from graphdriver_conformance.catalogue.requirement import Level, Requirement, catalogue, table

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

_RETIRED = """
## Retired ids

Ids that no requirement has any more. A retired id is never reused.

| id | planned requirement | reason |
|---|---|---|
"""

_CHANGED = """
## Changed before the first release

| id | planned requirement | change |
|---|---|---|
"""


def coverage() -> list[dict[str, Any]]:
    """Return the checks of other suites, and the requirements that cover each of them."""
    checks: list[dict[str, Any]] = table("other_suites.toml")["check"]
    return checks


def document() -> str:
    """Return the page."""
    families: dict[str, list[Requirement]] = {}
    for one in catalogue().values():
        families.setdefault(one.family, []).append(one)
    ids = table("retired.toml")
    return (
        _HEAD
        + _counts(families)
        + "".join(_family(name, sorted(some, key=_id)) for name, some in sorted(families.items()))
        + _COVERAGE
        + _checks(coverage())
        + _RETIRED
        + "".join(map(_planned, ids["retired"]))
        + _CHANGED
        + "".join(map(_planned, ids["changed"]))
    )


def _planned(one: dict[str, str]) -> str:
    return f"| {one['id']} | {one['planned']} | {one['reason']} |\n"


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
