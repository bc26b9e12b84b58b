"""The verdict on the terminal: causes first, each violation once, and a summary in the last
line.
"""

from collections import Counter
from collections.abc import Iterator

from graphdriver_conformance.catalogue.requirement import Level
from graphdriver_conformance.results.model import (
    Ended,
    Outcome,
    RequirementResult,
    RunResult,
    Verdict,
)
from graphdriver_conformance.results.text import finding

__all__ = ["by_importance", "lines", "verdict_reasons"]

_MOST_IDS = 40
_WORDS = {
    Verdict.CONFORMANT: "CONFORMANT",
    Verdict.NOT_CONFORMANT: "NOT CONFORMANT",
    Verdict.INCONCLUSIVE: "INCONCLUSIVE",
}
_MARKUP = {
    Verdict.CONFORMANT: "green",
    Verdict.NOT_CONFORMANT: "red",
    Verdict.INCONCLUSIVE: "yellow",
}


def lines(result: RunResult) -> Iterator[tuple[str, str]]:
    """Yield each line with its colour ("" for none)."""
    if error := result.driver.init_error:
        kind = f"{error.kind}: " if error.kind else ""
        yield f"init failed: {kind}{error.message}", "red"
        yield "", ""
    for one in by_importance(result):
        yield from _violation(one)
    yield from _blocked(result)
    yield from _waived(result)
    yield from _unproven(result)
    yield from _claims(result)
    yield from _works_unclaimed(result)
    yield from _table(result)
    where, verdict = result.where, result.verdict
    yield (
        f"{result.driver.spec}: {_WORDS[verdict]}  "
        f"({verdict_reasons(result)}; kernel {where.kernel}, {where.filesystem}, {where.user}, "
        f"{result.seconds:.1f} s)",
        _MARKUP[verdict],
    )


def verdict_reasons(result: RunResult) -> str:
    """Return the reasons of the verdict, in a few words."""
    verdict = result.verdict
    must = [one for one in result.requirements.values() if one.level == Level.MUST]
    count = Counter(one.outcome for one in must)
    if verdict is Verdict.NOT_CONFORMANT:
        broken, waived, blocked = (
            count[one] for one in (Outcome.VIOLATED, Outcome.WAIVED, Outcome.BLOCKED)
        )
        texts = [f"{broken} MUST violated"] * bool(broken or not (waived or blocked))
        texts += [f"{blocked} MUST blocked"] * bool(blocked)
        texts += [f"{waived} MUST violated and waived"] * bool(waived)
        return ", ".join(texts + _interruption(result))
    if verdict is Verdict.INCONCLUSIVE:
        unproven, errors = count[Outcome.NOT_PROVABLE], count[Outcome.ERROR]
        texts = [f"{unproven} MUST not provable here"] * bool(unproven)
        texts += [f"the suite failed in {errors} MUST"] * bool(errors)
        texts += _interruption(result)
        return f"no MUST violated, but {' and '.join(texts) or 'nothing was proven'}"
    unclaimed, unselected = count[Outcome.NOT_CLAIMED], count[Outcome.NOT_SELECTED]
    also = f", {unclaimed} not claimed" if unclaimed else ""
    if unselected:
        return f"in the selection: all {count[Outcome.MET]} claimed MUST met{also}"
    return f"all {count[Outcome.MET]} claimed MUST met{also}"


def by_importance(result: RunResult) -> list[RequirementResult]:
    """Return violations and errors of the suite: those that block others first, then by level."""
    blocks = Counter(id for one in result.requirements.values() for id in one.blocked_by)
    levels = [level.value for level in Level]
    shown = (Outcome.VIOLATED, Outcome.ERROR)
    found = [one for one in result.requirements.values() if one.outcome in shown]
    return sorted(found, key=lambda one: (-blocks[one.id], levels.index(one.level)))


def _violation(one: RequirementResult) -> Iterator[tuple[str, str]]:
    word = "VIOLATED" if one.outcome is Outcome.VIOLATED else "SUITE ERROR"
    yield f"{word}  {one.id} ({one.level})  {one.title}", "red"
    for line in finding(one, below_title=True):
        yield f"    {line}", ""
    yield f"    reproduce: {one.reproduce}", ""
    if one.script:
        yield f"    script:    {one.script}", ""
    yield f"    see:       graphdriver explain {one.id}", ""
    yield "", ""


def _blocked(result: RunResult) -> Iterator[tuple[str, str]]:
    by_causes: dict[tuple[str, ...], list[str]] = {}
    for one in result.requirements.values():
        if one.outcome is Outcome.BLOCKED:
            by_causes.setdefault(one.blocked_by, []).append(one.id)
    for causes, ids in by_causes.items():
        yield f"blocked by {', '.join(causes)}: {_ids(ids)}", "yellow"


def _ids(ids: list[str]) -> str:
    """Return ids in one line; many ids as counts of their families."""
    if len(ids) <= _MOST_IDS:
        return ", ".join(ids)
    families = Counter(id.partition("-")[0] for id in ids)
    listed = ", ".join(f"{family} ({count})" for family, count in families.items())
    return f"{len(ids)} requirements of {listed}"


def _waived(result: RunResult) -> Iterator[tuple[str, str]]:
    for one in result.requirements.values():
        if one.outcome is Outcome.WAIVED:
            yield f"WAIVED  {one.id} ({one.level})  {one.detail}", "yellow"


def _unproven(result: RunResult) -> Iterator[tuple[str, str]]:
    by_detail: dict[str, list[str]] = {}
    for one in result.requirements.values():
        if one.outcome is Outcome.NOT_PROVABLE:
            by_detail.setdefault(one.detail or "no reason given", []).append(one.id)
    for detail, ids in by_detail.items():
        yield f"not provable here: {_ids(ids)}", "yellow"
        yield f"    {detail}", ""


def _claims(result: RunResult) -> Iterator[tuple[str, str]]:
    """Name claims that are the reason for violations, and the number of requirements of each."""
    tested: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for one in result.requirements.values():
        if one.capability and one.outcome is not Outcome.NOT_CLAIMED:
            tested[one.capability] += 1
            bad[one.capability] += one.is_bad
    how = "claims" if result.driver.capabilities is not None else "claims (it declares nothing)"
    for capability, count in bad.items():
        if count:
            many = f"{count} of the {tested[capability]} requirements that depend on it"
            yield (
                f"the driver {how} {capability}: {many} are violated; "
                "leave it out of `capabilities` if the driver does not have it",
                "yellow",
            )


def _works_unclaimed(result: RunResult) -> Iterator[tuple[str, str]]:
    """Name capabilities that the driver does not claim but seems to have."""
    works: dict[str, list[bool]] = {}
    for one in result.requirements.values():
        if one.outcome is Outcome.NOT_CLAIMED and one.capability:
            works.setdefault(one.capability, []).append(one.works)
    for capability, seen in works.items():
        if all(seen):
            many = f"{len(seen)} requirement{'s' * (len(seen) > 1)}"
            yield f"works although not claimed: {capability} ({many})", "yellow"


def _table(result: RunResult) -> Iterator[tuple[str, str]]:
    unselected = 0
    for level in Level:
        of_level = [one for one in result.requirements.values() if one.level == level]
        found = Counter(one.outcome for one in of_level)
        unselected += found.pop(Outcome.NOT_SELECTED, 0)
        if found.total():
            shown = "  ".join(f"{found[o]} {o}" for o in Outcome if found[o] or o is Outcome.MET)
            yield f"{level:<6}  {shown}", ""
    if unselected:
        yield f"        {unselected} not selected in this run", ""


def _interruption(result: RunResult) -> list[str]:
    ended = result.run.ended
    return [] if ended is Ended.FINISHED else [f"the run was {ended}"]
