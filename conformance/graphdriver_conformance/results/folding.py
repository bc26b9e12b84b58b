"""The result of a requirement from the results of its tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from graphdriver_conformance.catalogue.requirement import Requirement
from graphdriver_conformance.results.model import RequirementResult
from graphdriver_conformance.results.outcomes import FATAL, Outcome, Reason

__all__ = ["blocked", "fold", "worse"]

# A failed test takes precedence over those that passed.
_WEIGHT = (
    Outcome.ERROR,
    Outcome.VIOLATED,
    Outcome.BLOCKED,
    Outcome.NOT_PROVABLE,
    Outcome.NOT_CLAIMED,
    Outcome.MET,
)


def fold(
    requirements: Mapping[str, Requirement],
    collected: Mapping[str, int],
    results: Iterable[RequirementResult],
) -> dict[str, RequirementResult]:
    """Return a result for every requirement of the catalogue.

    `collected` is the number of tests of each requirement that should report; `results` are the
    reported ones, one for each test. A requirement is met only if all of its tests have reported
    and none failed.
    """
    by_id: dict[str, list[RequirementResult]] = {id: [] for id in requirements}
    for result in results:
        by_id[result.id].append(result)
    folded = {
        id: _joined(requirements[id], collected.get(id, 0), found) for id, found in by_id.items()
    }
    return blocked(folded, requirements)


def blocked(
    results: Mapping[str, RequirementResult], requirements: Mapping[str, Requirement]
) -> dict[str, RequirementResult]:
    """Return results in which requirements that depend on a violated one are blocked by it."""
    return {
        id: _blocked(one, requirements, results) if id in requirements else one
        for id, one in results.items()
    }


def worse(one: RequirementResult, other: RequirementResult) -> RequirementResult:
    """Return the relevant one of two results of one test: of its call and of its teardown.

    Of two equally severe ones it is the first: the other is often a consequence.
    """
    worst = min((one, other), key=lambda result: _WEIGHT.index(result.outcome))
    return replace(
        worst,
        seconds=one.seconds + other.seconds,
        examples=max(one.examples, other.examples),
    )


def _joined(
    requirement: Requirement, collected: int, results: Sequence[RequirementResult]
) -> RequirementResult:
    if not results and not collected:
        return RequirementResult.of(requirement, Outcome.NOT_SELECTED, reason=Reason.SELECTION)
    # Of several equally severe ones, the shortest.
    worst = min(results, key=_rank, default=None)
    missing = collected - len(results)
    if missing > 0 and (worst is None or worst.outcome not in (Outcome.ERROR, Outcome.VIOLATED)):
        worst = RequirementResult.of(
            requirement,
            Outcome.NOT_PROVABLE,
            reason=Reason.NOT_REPORTED,
            detail=f"{missing} of {collected} tests were left out or did not report",
        )
    assert worst is not None
    return replace(
        worst,
        seconds=sum(one.seconds for one in results),
        examples=sum(one.examples for one in results),
        failures=sum(one.outcome is Outcome.VIOLATED for one in results),
    )


def _rank(result: RequirementResult) -> tuple[int, bool, int]:
    text = (result.detail, result.actual, *result.program, *result.tree)
    length = sum(len(line or "") for line in text)
    return _WEIGHT.index(result.outcome), result.works, length


def _blocked(
    one: RequirementResult,
    requirements: Mapping[str, Requirement],
    folded: Mapping[str, RequirementResult],
) -> RequirementResult:
    """Report a broken verb once: a requirement that depends on a violated one is blocked by it.

    If a violation killed its process or hung, this also applies to requirements that are met:
    whether they ran before or after it depends on the order of the tests.
    """
    if one.outcome in (Outcome.NOT_SELECTED, Outcome.NOT_CLAIMED, Outcome.ERROR):
        return one
    causes = _broken_below(requirements[one.id], requirements, folded, set())
    fatal = any(folded[id].reason in FATAL for id in causes)
    if not causes or not (fatal or one.is_bad):
        return one
    return replace(one, outcome=Outcome.BLOCKED, reason=Reason.RESTS_ON, blocked_by=tuple(causes))


def _broken_below(
    requirement: Requirement,
    requirements: Mapping[str, Requirement],
    folded: Mapping[str, RequirementResult],
    seen: set[str],
) -> list[str]:
    """Return the violated requirements below one that themselves depend on no violated one."""
    found: list[str] = []
    for id in requirement.rests_on:
        if id in seen:
            continue
        seen.add(id)
        deeper = _broken_below(requirements[id], requirements, folded, seen)
        below = folded.get(id)
        if deeper or below is None or below.outcome is not Outcome.VIOLATED:
            found += deeper
        else:
            found.append(id)
    return sorted(found)
