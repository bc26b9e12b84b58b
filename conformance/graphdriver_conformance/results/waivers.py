"""Violations that a project knows of: waived by name for a time, or there before (a baseline).

A waiver names one requirement and says why, where it is tracked and until when. One that is
expired, that names nothing, or whose requirement is met fails the run: otherwise lists of
exceptions only ever grow.
"""

import datetime
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.model import Outcome, Reason, RequirementResult

__all__ = [
    "BadWaivers",
    "Waiver",
    "apply_baseline",
    "apply_waivers",
    "read_baseline",
    "read_waivers",
]

_KEYS = {"requirement", "reason", "issue", "until"}
_WAIVABLE = (Outcome.VIOLATED, Outcome.BLOCKED)


class BadWaivers(Exception):
    """A file of waivers or a baseline cannot be used; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """One requirement that may be violated until a day, that day included."""

    requirement: str
    reason: str
    issue: str
    until: datetime.date

    def __str__(self) -> str:
        """Return what the report says of it."""
        return f"waived until {self.until}: {self.reason} ({self.issue})"


def read_waivers(path: Path) -> list[Waiver]:
    """Read `[[waive]]` entries. Raises BadWaivers."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadWaivers(f"{path}: {error.strerror}; name a file of [[waive]] entries") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadWaivers(f"{path} is no TOML: {error}") from None
    entries = data.get("waive")
    if not isinstance(entries, list) or set(data) != {"waive"}:
        raise BadWaivers(f"{path} must hold [[waive]] entries, and nothing else")
    return [_waiver(path, number, entry) for number, entry in enumerate(entries, 1)]


def apply_waivers(
    results: Mapping[str, RequirementResult], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[dict[str, RequirementResult], list[str]]:
    """Return the results with the waived ones, and what is wrong with the waivers."""
    after, wrong = dict(results), []
    for waiver in waivers:
        one = results.get(waiver.requirement)
        if one is None:
            wrong.append(f"{waiver.requirement}: no such requirement; remove its waiver")
        elif today > waiver.until:
            wrong.append(f"{waiver.requirement}: its waiver expired on {waiver.until}")
        elif one.outcome in _WAIVABLE:
            after[waiver.requirement] = replace(
                one, outcome=Outcome.WAIVED, reason=Reason.WAIVER, detail=str(waiver)
            )
        elif one.outcome is Outcome.MET:
            wrong.append(f"{waiver.requirement} is met; remove its waiver")
    return after, wrong


def read_baseline(path: Path) -> frozenset[str]:
    """Return the requirements that a result file has as violated. Raises BadWaivers."""
    try:
        rows = json.loads(path.read_bytes())["requirements"]
        known = (*_WAIVABLE, Outcome.WAIVED)
        return frozenset(str(row["id"]) for row in rows if str(row["outcome"]) in known)
    except OSError as error:
        raise BadWaivers(f"{path}: {error.strerror}; name an older result file") from None
    except (ValueError, KeyError, TypeError):
        raise BadWaivers(
            f"{path} is no result file; make one with --graphdriver-report=FILE.json"
        ) from None


def apply_baseline(
    results: Mapping[str, RequirementResult], before: Collection[str]
) -> dict[str, RequirementResult]:
    """Return the results with those violations waived that the baseline has as well."""
    return {
        id: replace(
            one, outcome=Outcome.WAIVED, reason=Reason.BASELINE, detail="also in the baseline"
        )
        if id in before and one.outcome in _WAIVABLE
        else one
        for id, one in results.items()
    }


def _waiver(path: Path, number: int, entry: Mapping[str, Any]) -> Waiver:
    def bad(what: str) -> BadWaivers:
        return BadWaivers(f"{path}: entry {number}: {what}")

    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise bad(f"must have {', '.join(sorted(_KEYS))}, and nothing else")
    until = entry["until"]
    try:
        day = until if isinstance(until, datetime.date) else datetime.date.fromisoformat(until)
    except (TypeError, ValueError):
        raise bad('until must be a day, as "2027-03-01"') from None
    for key in ("requirement", "reason", "issue"):
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise bad(f"{key} must be a text that is not empty")
    if entry["requirement"] not in catalogue():
        raise bad(f"{entry['requirement']}: no such requirement; `graphdriver list` shows them")
    return Waiver(entry["requirement"], entry["reason"], entry["issue"], day)
