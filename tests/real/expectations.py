"""The known violations of the drivers, and the differences of a run from them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphdriver_conformance.catalogue.requirement import catalogue

from .suites import SUITES

__all__ = ["Known", "known_of", "surprises"]

_DIRECTORY = Path(__file__).with_name("expectations")
_KINDS = ("bug", "difference")


@dataclass(frozen=True, slots=True)
class Known:
    """A requirement with a known violation, in the versions of `suites`."""

    kind: str
    note: str
    upstream: str = ""
    sometimes: bool = False
    suites: list[str] = field(default_factory=lambda: list(SUITES))


def known_of(name: str) -> dict[str, Known]:
    """Return the known violations of the target DRIVER or DRIVER@SUITE, by requirement id.

    Raises ValueError.
    """
    driver, _, suite = name.partition("@")
    path = _DIRECTORY / f"{driver}.json"
    if not path.exists():
        return {}
    known = {id: Known(**row) for id, row in json.loads(path.read_text())["violated"].items()}
    for id, one in known.items():
        if one.kind not in _KINDS or not one.note:
            raise ValueError(f"{path.name}: {id}: a kind of {_KINDS} and a note are needed")
        if not set(one.suites) <= set(SUITES):
            raise ValueError(f"{path.name}: {id}: suites are of {SUITES}")
    return {id: one for id, one in known.items() if (suite or SUITES[0]) in one.suites}


def surprises(name: str, outcomes: Mapping[str, str]) -> dict[str, str]:
    """Return a line for each requirement whose outcome differs from the known one, by id."""
    known = known_of(name)
    lines = {}
    for id, outcome in sorted(outcomes.items()):
        broken = outcome in ("violated", "blocked")
        if outcome == "error":
            lines[id] = f"{name}: {id}: the suite failed"
        elif broken and id not in known:
            lines[id] = f"{name}: {id} is {outcome}, and not known to be"
        elif id in known and not broken and not known[id].sometimes:
            lines[id] = f"{name}: {id} is {outcome}, but known to be violated"
    # A record may be older than a requirement.
    gone = known.keys() - catalogue().keys()
    return lines | {id: f"{name}: {id} is known, but no requirement" for id in sorted(gone)}
