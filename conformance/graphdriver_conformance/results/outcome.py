"""What came of each requirement: many test reports folded into one word."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from graphdriver_conformance.catalogue.requirement import Requirement

__all__ = ["NOT_SELECTED", "WORKS", "Judgement", "Outcome", "Verdict", "fold", "verdict_of"]


class Outcome(StrEnum):
    """What came of a requirement. A skip is never a pass."""

    MET = "met"
    VIOLATED = "violated"
    NOT_CLAIMED = "not-claimed"
    NOT_PROVABLE = "not-provable"
    BLOCKED = "blocked"
    WAIVED = "waived"
    ERROR = "error"


class Verdict(StrEnum):
    """What came of the driver."""

    CONFORMANT = "conformant"
    NOT_CONFORMANT = "not-conformant"
    INCONCLUSIVE = "inconclusive"


# One test that went wrong outweighs those that went well.
_WEIGHT = (
    Outcome.ERROR,
    Outcome.VIOLATED,
    Outcome.NOT_PROVABLE,
    Outcome.NOT_CLAIMED,
    Outcome.MET,
)
NOT_SELECTED = "not selected in this run"
"""The detail of a requirement that `--requirement` left out."""


WORKS = "works although not claimed: "
"""How the detail begins of what is not claimed, and was seen to work; the capability follows."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One requirement's outcome, with what the report says of it.

    `script` replays the verbs of a violation, `check_script` calls the test that found it.
    """

    requirement: Requirement
    outcome: Outcome
    detail: str | None = None
    reproduce: str | None = None
    seconds: float = 0.0
    examples: int = 0
    script: str | None = None
    check_script: str | None = None

    @property
    def was_asked(self) -> bool:
        """Whether the run was to look at it at all."""
        return self.detail != NOT_SELECTED


def fold(
    requirements: Mapping[str, Requirement], reports: Iterable[Mapping[str, Any]]
) -> dict[str, Judgement]:
    """Return a judgement for every requirement of the catalogue."""
    by_id: dict[str, list[Mapping[str, Any]]] = {id: [] for id in requirements}
    for report in reports:
        by_id[report["requirement"]].append(report)
    judged = {id: _judge(requirements[id], found) for id, found in by_id.items()}
    return {id: _blocked(one, judged) for id, one in judged.items()}


def verdict_of(judged: Mapping[str, Judgement]) -> Verdict:
    """Return `conformant` only when every claimed MUST was proven.

    A waiver lets a run pass; it does not make a driver conform.
    """
    must = [one for one in judged.values() if one.requirement.level == "MUST"]
    bad = {Outcome.VIOLATED, Outcome.BLOCKED, Outcome.WAIVED, Outcome.ERROR}
    if any(one.outcome in bad for one in must):
        return Verdict.NOT_CONFORMANT
    proven = any(one.outcome is Outcome.MET for one in must)
    if not proven or any(one.outcome is Outcome.NOT_PROVABLE for one in must):
        return Verdict.INCONCLUSIVE
    return Verdict.CONFORMANT


def _judge(requirement: Requirement, reports: list[Mapping[str, Any]]) -> Judgement:
    if not reports:
        return Judgement(requirement, Outcome.NOT_PROVABLE, NOT_SELECTED)
    # Of several that went equally wrong the one that takes least to tell.
    worst = min(
        reports,
        key=lambda one: (
            _WEIGHT.index(Outcome(one["outcome"])),
            (one["detail"] or "").startswith(WORKS),
            len(one["detail"] or ""),
        ),
    )
    return Judgement(
        requirement,
        Outcome(worst["outcome"]),
        worst["detail"],
        worst["reproduce"],
        round(sum(one["seconds"] for one in reports), 4),
        sum(one["examples"] for one in reports),
        worst.get("script"),
        worst.get("check_script"),
    )


def _blocked(one: Judgement, judged: Mapping[str, Judgement]) -> Judgement:
    """Name a broken verb once: what rests on a violated requirement is blocked by it."""
    if one.outcome is not Outcome.VIOLATED:
        return one
    culprit = _broken_below(one.requirement, judged, set())
    if culprit is None:
        return one
    return replace(one, outcome=Outcome.BLOCKED, detail=f"blocked by {culprit}\n{one.detail}")


def _broken_below(
    requirement: Requirement, judged: Mapping[str, Judgement], seen: set[str]
) -> str | None:
    for id in requirement.rests_on:
        if id in seen:
            continue
        seen.add(id)
        deeper = _broken_below(judged[id].requirement, judged, seen)
        if deeper or judged[id].outcome is Outcome.VIOLATED:
            return deeper or id
    return None
