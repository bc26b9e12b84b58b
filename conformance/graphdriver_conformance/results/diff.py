"""The difference between an older and a newer run of a driver."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphdriver_conformance.results.grid import ABSENT, Row, rows_of, when, word
from graphdriver_conformance.results.model import Outcome, RequirementResult, RunResult
from graphdriver_conformance.results.text import finding

__all__ = ["Change", "Difference", "NotComparable", "compare", "explanation", "lines"]

_BROKEN = (Outcome.VIOLATED, Outcome.BLOCKED, Outcome.WAIVED)
_NOT_TESTED = (ABSENT, Outcome.NOT_SELECTED.value)


class NotComparable(Exception):
    """Two files do not hold runs of the same drivers; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Change:
    """A requirement whose outcome differs; None where a run's suite did not have it."""

    row: Row
    old: RequirementResult | None
    new: RequirementResult | None

    @property
    def words(self) -> tuple[str, str]:
        """The outcomes as words, the older one first."""
        return word(self.old), word(self.new)

    @property
    def is_newly_violated(self) -> bool:
        """Whether the newer run has it violated or blocked, and the older one had not."""
        return self.new is not None and self.new.is_bad and not _is_broken(self.old)

    @property
    def is_newly_met(self) -> bool:
        """Whether it is met in the newer run, and was tested and not met in the older one."""
        return self.words[0] not in _NOT_TESTED and self.words[1] == Outcome.MET

    @property
    def is_of_selection(self) -> bool:
        """Whether only one of the runs tested it, and it is violated in neither."""
        tested = [one not in _NOT_TESTED for one in self.words]
        return not all(tested) and not _is_broken(self.old) and not _is_broken(self.new)


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between an older and a newer run.

    `circumstances` are facts of the driver, the machine and the run, each with its older and newer
    value. `tested_before` and `tested_now` are requirements that only one of the runs tested.
    """

    old: RunResult
    new: RunResult
    circumstances: tuple[tuple[str, str, str], ...]
    newly_violated: tuple[Change, ...]
    newly_met: tuple[Change, ...]
    others: tuple[Change, ...]
    tested_before: tuple[str, ...]
    tested_now: tuple[str, ...]

    @property
    def groups(self) -> list[tuple[str, tuple[Change, ...]]]:
        """The changes under their headings, without groups that are empty."""
        groups = [
            ("Newly violated", self.newly_violated),
            ("Newly met", self.newly_met),
            ("Other changes", self.others),
        ]
        return [(title, changes) for title, changes in groups if changes]

    @property
    def summary(self) -> str:
        """The numbers of changes, in one line."""
        return (
            f"{len(self.newly_violated)} newly violated, {len(self.newly_met)} newly met, "
            f"{_many(len(self.others), 'other change')}, "
            f"{_many(len(self.circumstances), 'change')} of circumstances"
        )


def compare(old: Sequence[RunResult], new: Sequence[RunResult]) -> list[Difference]:
    """Compare the runs of two files: one with one, or those of the same drivers.

    Raises NotComparable.
    """
    if len(old) == len(new) == 1:
        return [_difference(old[0], new[0])]
    before, after = ({run.driver.spec: run for run in runs} for runs in (old, new))
    if before.keys() != after.keys():
        texts = [", ".join(found) or "no driver" for found in (before, after)]
        raise NotComparable(
            f"the older file has runs of {texts[0]}, the newer one of {texts[1]}; "
            "name two files of the same drivers"
        )
    return [_difference(before[spec], run) for spec, run in after.items()]


def lines(difference: Difference) -> Iterator[tuple[str, str]]:
    """Yield each line for a terminal with its colour ("" for none)."""
    for name, run in (("old", difference.old), ("new", difference.new)):
        verdict = run.verdict.value.replace("-", " ").upper()
        yield f"{name}  {run.driver.spec}  {when(run)}  suite {run.suite}  {verdict}", ""
    yield "", ""
    if difference.circumstances:
        width = max(len(name) for name, _, _ in difference.circumstances)
        yield "changed circumstances", ""
        for name, before, after in difference.circumstances:
            yield f"    {name:<{width}}  {before} -> {after}", "yellow"
        yield "", ""
    for title, changes in difference.groups:
        colour = {"Newly violated": "red", "Newly met": "green"}.get(title, "yellow")
        yield f"{title.lower()} ({len(changes)})", ""
        for change in changes:
            yield from _change(change, colour)
        yield "", ""
    for name, ids in (("old", difference.tested_before), ("new", difference.tested_now)):
        if ids:
            yield f"asked only in the {name} run: {_many(len(ids), 'requirement')}", ""
    yield (
        f"{difference.new.driver.spec}: {difference.summary}",
        ("red" if difference.newly_violated else "green"),
    )


def _change(change: Change, colour: str) -> Iterator[tuple[str, str]]:
    row = change.row
    before, after = change.words
    yield f"  {row.id} ({row.level})  {row.title}: {before} -> {after}", colour
    if change.new and not change.is_newly_met:
        for line in explanation(change.new):
            yield f"      {line}", ""


def explanation(result: RequirementResult) -> Iterator[str]:
    """Yield the lines that explain an outcome that is not met."""
    if result.blocked_by:
        yield f"rests on {', '.join(result.blocked_by)}"
        return
    yield from finding(result, below_title=True)
    if result.is_bad and result.reproduce:
        yield f"reproduce: {result.reproduce}"


def _difference(old: RunResult, new: RunResult) -> Difference:
    changes = [Change(row, *row.cells) for row in rows_of([old, new]) if len(set(row.words)) > 1]
    changed = [one for one in changes if not one.is_of_selection]
    selection = [one for one in changes if one.is_of_selection]
    return Difference(
        old,
        new,
        tuple(_circumstances(old, new)),
        tuple(one for one in changed if one.is_newly_violated),
        tuple(one for one in changed if one.is_newly_met),
        tuple(one for one in changed if not (one.is_newly_violated or one.is_newly_met)),
        tuple(one.row.id for one in selection if one.words[0] not in _NOT_TESTED),
        tuple(one.row.id for one in selection if one.words[1] not in _NOT_TESTED),
    )


def _circumstances(old: RunResult, new: RunResult) -> Iterator[tuple[str, str, str]]:
    pairs = [(name, value(old), value(new)) for name, value in _FACTS]
    pairs.append(("claims not shared", _claims(old, new), _claims(new, old)))
    for title, of in (("status: ", _status), ("fact: ", _machine)):
        before, after = of(old), of(new)
        pairs += [
            (f"{title}{name}", before.get(name, "none"), after.get(name, "none"))
            for name in {**before, **after}
        ]
    yield from (pair for pair in pairs if pair[1] != pair[2])


def _status(run: RunResult) -> Mapping[str, str]:
    return dict(run.driver.status)


def _machine(run: RunResult) -> Mapping[str, str]:
    return run.where.facts


def _claims(run: RunResult, other: RunResult) -> str:
    """Return the capabilities that only this run's driver declares."""
    if run.driver.capabilities is None:
        return "everything"
    claims = set(run.driver.capabilities).difference(other.driver.capabilities or ())
    return ", ".join(sorted(claims)) or "none"


def _init(run: RunResult) -> str:
    error = run.driver.init_error
    return f"{error.kind}: {error.message}" if error else "succeeds"


_FACTS: tuple[tuple[str, Callable[[RunResult], str]], ...] = (
    ("driver", lambda run: run.driver.spec),
    ("options", lambda run: ", ".join(run.driver.options) or "none"),
    ("Init", _init),
    ("kernel", lambda run: run.where.kernel),
    ("machine", lambda run: run.where.machine),
    ("file system", lambda run: run.where.filesystem),
    ("user", lambda run: run.where.user),
    ("suite", lambda run: run.suite),
    ("catalogue", lambda run: run.catalogue),
    ("profile", lambda run: run.run.profile),
    ("seed", lambda run: str(run.run.seed)),
    ("end of the run", lambda run: run.run.ended.value),
    ("complete", lambda run: "yes" if run.run.complete else "no"),
)


def _is_broken(result: RequirementResult | None) -> bool:
    return result is not None and result.outcome in _BROKEN


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
