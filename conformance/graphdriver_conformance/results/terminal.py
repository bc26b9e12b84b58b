"""The verdict on the terminal: what is broken, what was not shown and why, and one line."""

from collections import Counter
from collections.abc import Iterator, Mapping

from graphdriver_conformance.catalogue.requirement import Level
from graphdriver_conformance.repro.files import Script
from graphdriver_conformance.results.outcome import WORKS, Judgement, Outcome, Verdict, verdict_of
from graphdriver_conformance.results.result_file import Result

__all__ = ["lines"]

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


def lines(result: Result, scripts: Mapping[str, Script] | None = None) -> Iterator[tuple[str, str]]:
    """Yield each line with its colour ("" for none); `scripts` are those that reproduce."""
    for one in result.judged.values():
        if one.outcome in (Outcome.VIOLATED, Outcome.ERROR):
            yield from _violation(one, (scripts or {}).get(one.requirement.id))
    yield from _blocked(result)
    yield from _waived(result)
    yield from _unproven(result)
    yield from _unclaimed(result)
    yield from _table(result)
    verdict = verdict_of(result.judged)
    where = result.environment
    who = "root" if not where.uid else f"uid {where.uid}"
    if where.facts.get("userns") == "true":
        who += " in a user namespace"
    yield (
        f"{result.driver['spec']}: {_WORDS[verdict]}  "
        f"({_reason(result, verdict)}; kernel {where.kernel}, {where.filesystem}, {who}, "
        f"{result.seconds:.1f} s)",
        _MARKUP[verdict],
    )


def _violation(one: Judgement, script: Script | None) -> Iterator[tuple[str, str]]:
    requirement = one.requirement
    word = "VIOLATED" if one.outcome is Outcome.VIOLATED else "SUITE ERROR"
    yield f"{word}  {requirement.id} ({requirement.level})  {requirement.title}", "red"
    for line in (one.detail or "").splitlines():
        # The rule is right above; what is expected may be nothing but the rule.
        if line != f"expected:  {requirement.title}":
            yield f"    {line}", ""
    yield f"    reproduce: {one.reproduce}", ""
    if script:
        missed = "" if script.reproduces else "  (did not reproduce it by itself)"
        yield f"    script:    {script.command}{missed}", ""
    yield f"    see:       graphdriver explain {requirement.id}", ""
    yield "", ""


def _blocked(result: Result) -> Iterator[tuple[str, str]]:
    culprits: dict[str, list[str]] = {}
    for one in result.judged.values():
        if one.outcome is Outcome.BLOCKED:
            culprit = (one.detail or "").partition("\n")[0]
            culprits.setdefault(culprit, []).append(one.requirement.id)
    for culprit, ids in culprits.items():
        yield f"{culprit}: {', '.join(ids)}", "yellow"


def _unclaimed(result: Result) -> Iterator[tuple[str, str]]:
    """Name capabilities that the driver does not claim and seems to have."""
    works: dict[str, list[bool]] = {}
    for one in result.judged.values():
        if one.outcome is Outcome.NOT_CLAIMED and one.was_asked:
            did = (one.detail or "").startswith(WORKS)
            for need in one.requirement.needs:
                works.setdefault(need, []).append(did)
    for need, seen in works.items():
        if all(seen):
            many = f"{len(seen)} requirement{'s' * (len(seen) > 1)}"
            yield f"works although not claimed: {need} ({many})", "yellow"


def _waived(result: Result) -> Iterator[tuple[str, str]]:
    for one in result.judged.values():
        if one.outcome is Outcome.WAIVED:
            how = (one.detail or "").partition("\n")[0]
            yield f"WAIVED  {one.requirement.id} ({one.requirement.level})  {how}", "yellow"


def _unproven(result: Result) -> Iterator[tuple[str, str]]:
    reasons: dict[str, list[str]] = {}
    for one in result.judged.values():
        if one.outcome is Outcome.NOT_PROVABLE and one.was_asked:
            reasons.setdefault(one.detail or "no reason given", []).append(one.requirement.id)
    for reason, ids in reasons.items():
        yield f"not provable here: {', '.join(ids)}", "yellow"
        yield f"    {reason}", ""


def _table(result: Result) -> Iterator[tuple[str, str]]:
    for level in Level:
        of_level = [one for one in result.judged.values() if one.requirement.level is level]
        found = Counter(one.outcome for one in of_level if one.was_asked)
        if found:
            shown = "  ".join(f"{found[o]} {o}" for o in Outcome if found[o] or o is Outcome.MET)
            yield f"{level:<6}  {shown}", ""
    unasked = sum(not one.was_asked for one in result.judged.values())
    if unasked:
        yield f"        {unasked} not selected in this run", ""


def _reason(result: Result, verdict: Verdict) -> str:
    must = [one for one in result.judged.values() if one.requirement.level is Level.MUST]
    count = Counter(one.outcome for one in must)
    if verdict is Verdict.NOT_CONFORMANT:
        broken = count[Outcome.VIOLATED] + count[Outcome.BLOCKED]
        texts = [f"{broken} MUST violated"] * bool(broken or not count[Outcome.WAIVED])
        texts += [f"{count[Outcome.WAIVED]} MUST violated and waived"] * bool(count[Outcome.WAIVED])
        texts += ["the suite failed"] * bool(count[Outcome.ERROR])
        return ", ".join(texts)
    if verdict is Verdict.INCONCLUSIVE:
        unproven = sum(one.outcome is Outcome.NOT_PROVABLE for one in must if one.was_asked)
        unasked = sum(not one.was_asked for one in must)
        texts = [f"{unproven} MUST not provable here"] * bool(unproven)
        texts += [f"{unasked} MUST not selected"] * bool(unasked)
        return f"no MUST violated, but {' and '.join(texts) or 'nothing was proven'}"
    unclaimed = count[Outcome.NOT_CLAIMED]
    also = f", {unclaimed} not claimed" if unclaimed else ""
    return f"all {count[Outcome.MET]} claimed MUST met{also}"
