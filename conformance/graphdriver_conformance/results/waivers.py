"""Known violations: waived by name until a date, or present in an earlier run (a baseline).

A waiver names one requirement, or several by a pattern such as `LIF-*`, with the reason, the issue
and the last day. A waiver that is expired, matches no requirement, or is not needed because its
requirements are met fails the run: otherwise the list would only grow.
"""

import datetime
import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.model import Outcome, Reason, RequirementResult

__all__ = [
    "BadWaivers",
    "Waiver",
    "apply_baseline",
    "apply_waivers",
    "draft_waivers",
    "read_baseline",
    "read_waivers",
]

_KEYS = {"requirement", "reason", "issue", "until"}
_WAIVABLE = (Outcome.VIOLATED, Outcome.BLOCKED)


class BadWaivers(Exception):
    """A file of waivers or a baseline cannot be used; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """One requirement that may be violated until a day, including that day.

    `pattern` is the pattern in the file, "" if the file has the id.
    """

    requirement: str
    reason: str
    issue: str
    until: datetime.date
    pattern: str = ""

    @property
    def name(self) -> str:
        """The text in the file: an id, or a pattern."""
        return self.pattern or self.requirement

    def __str__(self) -> str:
        """Return the text for the report."""
        return f"waived until {self.until}: {self.reason} ({self.issue})"


def read_waivers(path: Path) -> list[Waiver]:
    """Read `[[waive]]` entries: a waiver for each matching requirement. Raises BadWaivers.

    Patterns are first, so that an entry for one requirement takes precedence over them.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadWaivers(f"{path}: {error.strerror}; name a file of [[waive]] entries") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadWaivers(f"{path} is not TOML: {error}") from None
    entries = data.get("waive")
    if not isinstance(entries, list) or set(data) != {"waive"}:
        raise BadWaivers(f"{path} must hold [[waive]] entries, and nothing else")
    found = [
        one for number, entry in enumerate(entries, 1) for one in _waivers(path, number, entry)
    ]
    return sorted(found, key=lambda one: not one.pattern)


def apply_waivers(
    results: Mapping[str, RequirementResult], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[dict[str, RequirementResult], list[str]]:
    """Return the results with waivers applied, and the errors of the waivers."""
    after, wrong = dict(results), []
    named: dict[str, set[Outcome]] = {}
    for waiver in waivers:
        one = results.get(waiver.requirement)
        if one is None:
            wrong.append(f"{waiver.name}: no such requirement; remove its waiver")
        elif today > waiver.until:
            wrong.append(f"{waiver.name}: its waiver expired on {waiver.until}")
        else:
            named.setdefault(waiver.name, set()).add(one.outcome)
            if one.outcome in _WAIVABLE:
                after[waiver.requirement] = replace(
                    one, outcome=Outcome.WAIVED, reason=Reason.WAIVER, detail=str(waiver)
                )
    # A pattern may be meant for requirements that were not selected in this run.
    wrong += [
        f"{name} is met; remove its waiver"
        for name, outcomes in named.items()
        if Outcome.MET in outcomes and outcomes <= {Outcome.MET, Outcome.NOT_CLAIMED}
    ]
    return after, list(dict.fromkeys(wrong))


def read_baseline(path: Path) -> frozenset[str]:
    """Return the requirements that are violated in a result file. Raises BadWaivers."""
    try:
        rows = json.loads(path.read_bytes())["requirements"]
        known = (*_WAIVABLE, Outcome.WAIVED)
        return frozenset(str(row["id"]) for row in rows if str(row["outcome"]) in known)
    except OSError as error:
        raise BadWaivers(f"{path}: {error.strerror}; name an older result file") from None
    except (ValueError, KeyError, TypeError):
        raise BadWaivers(
            f"{path} is not a result file; make one with --graphdriver-report=FILE.json"
        ) from None


def apply_baseline(
    results: Mapping[str, RequirementResult], before: Collection[str]
) -> dict[str, RequirementResult]:
    """Return the results with those violations waived that the baseline contains."""
    return {
        id: replace(
            one, outcome=Outcome.WAIVED, reason=Reason.BASELINE, detail="also in the baseline"
        )
        if id in before and one.outcome in _WAIVABLE
        else one
        for id, one in results.items()
    }


def draft_waivers(outcomes: Mapping[str, str], until: datetime.date) -> str:
    """Return a file of waivers for the violated and blocked requirements, "" if there are none.

    `outcomes` are those of a result file by id. The file is valid; reason and issue have to be
    filled in by its authors before that day.
    """
    bad = sorted(id for id, outcome in outcomes.items() if outcome in _WAIVABLE)
    if not bad:
        return ""
    head = (
        "# Known violations. Fill in why each is there and where it is tracked. Several can be\n"
        '# named by a pattern, as "LIF-*". A waiver that nothing needs any more fails the run.\n'
    )
    return head + "".join(_entry(id, outcomes[id], until) for id in bad)


def _entry(id: str, outcome: str, until: datetime.date) -> str:
    known = catalogue().get(id)
    title = f"# {known.level}: {known.title}\n" if known else ""
    return (
        f'\n{title}[[waive]]\nrequirement = "{id}"\nreason = "{outcome} when this file was begun"\n'
        f'issue = "not filed yet"\nuntil = "{until}"\n'
    )


def _waivers(path: Path, number: int, entry: Mapping[str, Any]) -> Iterator[Waiver]:
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
    name = entry["requirement"].strip()
    ids = [id for id in catalogue() if fnmatchcase(id, name)]
    if not ids:
        raise bad(f"{name}: no such requirement; `graphdriver list` shows them")
    pattern = "" if name in ids else name
    for id in ids:
        yield Waiver(id, entry["reason"], entry["issue"], day, pattern)
