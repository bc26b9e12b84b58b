"""The result model: one class for the result of a requirement, one for the result of a run.

A test reports a `RequirementResult`; `fold` joins those of all tests of a requirement into one;
waivers replace it; the result file stores it; the terminal, HTML, Markdown, JUnit and the kernel
matrix read it. Nothing is parsed back out of a sentence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from graphdriver_conformance.catalogue.requirement import Level, Requirement

__all__ = [
    "DriverInfo",
    "Ended",
    "InitError",
    "Outcome",
    "Reason",
    "RequirementResult",
    "RunInfo",
    "RunResult",
    "TestResult",
    "Verdict",
    "Where",
    "blocked",
    "fold",
    "verdict_of",
    "worse",
]


class Outcome(StrEnum):
    """The outcome of a requirement. A skip is never a pass."""

    MET = "met"
    VIOLATED = "violated"
    NOT_CLAIMED = "not-claimed"
    NOT_PROVABLE = "not-provable"
    BLOCKED = "blocked"
    WAIVED = "waived"
    ERROR = "error"
    NOT_SELECTED = "not-selected"


class Reason(StrEnum):
    """Why a requirement has its outcome; None for one that is met."""

    # violated
    MISMATCH = "mismatch"
    NOT_REFUSED = "not-refused"
    RAISED = "raised"
    WRONG_ERROR = "wrong-error"
    WRONG_TYPE = "wrong-type"
    PROCESS_DIED = "process-died"
    DEADLINE = "deadline"
    # not-claimed
    NO_CAPABILITY = "no-capability"
    TRANSPORT = "transport"
    # not-provable
    ENVIRONMENT = "environment"
    INIT_REFUSED = "init-refused"
    NOT_REPORTED = "not-reported"
    # blocked, waived, not-selected, error
    RESTS_ON = "rests-on"
    WAIVER = "waiver"
    BASELINE = "baseline"
    SELECTION = "selection"
    SHARD = "shard"
    SUITE = "suite"


FATAL = frozenset({Reason.PROCESS_DIED, Reason.DEADLINE})
"""Reasons after which a requirement that rests on the violated one is not run any more."""


class Verdict(StrEnum):
    """The verdict on the driver."""

    CONFORMANT = "conformant"
    NOT_CONFORMANT = "not-conformant"
    INCONCLUSIVE = "inconclusive"


class Ended(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"


# A test that failed outweighs those that passed.
_WEIGHT = (
    Outcome.ERROR,
    Outcome.VIOLATED,
    Outcome.BLOCKED,
    Outcome.NOT_PROVABLE,
    Outcome.NOT_CLAIMED,
    Outcome.MET,
)


@dataclass(frozen=True, slots=True)
class RequirementResult:
    """The result of one requirement: of one test of it, or of all of them.

    `detail` is one sentence for people where `expected` and `actual` do not apply: what this
    environment lacks, who waived the violation. `capability` is the one by whose claim the
    requirement was asked, or for lack of which it was not; `works` says that the driver does it
    although it does not claim it. `failures` counts the tests that failed, of which the one that
    takes least to read is shown. `example` holds the values that a property test drew, `script` the
    command that reproduces the violation without pytest.
    """

    id: str
    level: str
    title: str
    outcome: Outcome
    reason: Reason | None = None
    detail: str | None = None
    blocked_by: tuple[str, ...] = ()
    capability: str | None = None
    works: bool = False
    examples: int = 0
    seconds: float = 0.0
    failures: int = 0
    expected: str | None = None
    actual: str | None = None
    example: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    tree: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    kept: str | None = None
    reproduce: str | None = None
    script: str | None = None

    @classmethod
    def of(cls, requirement: Requirement, outcome: Outcome, **more: Any) -> "RequirementResult":
        """Return a result of `requirement`; `more` are further fields."""
        return cls(
            requirement.id, requirement.level.value, requirement.title, outcome=outcome, **more
        )

    @property
    def was_asked(self) -> bool:
        """Whether the run was to look at it at all."""
        return self.outcome is not Outcome.NOT_SELECTED

    @property
    def is_bad(self) -> bool:
        """Whether the driver breaks the requirement, or one that it rests on."""
        return self.outcome in (Outcome.VIOLATED, Outcome.BLOCKED)

    def to_data(self) -> dict[str, Any]:
        """Return it as the result file has it (schema 2)."""
        return {
            "id": self.id,
            "level": self.level,
            "title": self.title,
            "outcome": self.outcome.value,
            "reason": self.reason.value if self.reason else None,
            "detail": self.detail,
            "blocked_by": list(self.blocked_by),
            "capability": self.capability,
            "works": self.works,
            "examples": self.examples,
            "seconds": round(self.seconds, 4),
            "failures": self.failures,
            "expected": self.expected,
            "actual": self.actual,
            "example": list(self.example),
            "notes": list(self.notes),
            "program": list(self.program),
            "tree": list(self.tree),
            "mounts": list(self.mounts),
            "output": list(self.output),
            "kept": self.kept,
            "reproduce": self.reproduce,
            "script": self.script,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "RequirementResult":
        """Read what `to_data` wrote. Raises KeyError, TypeError or ValueError."""
        lists = ("blocked_by", "example", "notes", "program", "tree", "mounts", "output")
        texts = ("detail", "capability", "expected", "actual", "kept", "reproduce", "script")
        more: dict[str, Any] = {name: tuple(map(_text, data.get(name) or ())) for name in lists}
        more |= {name: _optional_text(data.get(name)) for name in texts}
        return cls(
            id=_text(data["id"]),
            level=Level(data["level"]).value,
            title=_text(data["title"]),
            outcome=Outcome(data["outcome"]),
            reason=Reason(data["reason"]) if data["reason"] else None,
            works=bool(data.get("works", False)),
            examples=int(data["examples"]),
            seconds=float(data["seconds"]),
            failures=int(data.get("failures", 0)),
            **more,
        )


@dataclass(frozen=True, slots=True)
class TestResult:
    """The result that one test reports: for which driver, and the scripts that may reproduce it.

    `scripts` are texts of Python programs, the one to be preferred first.
    """

    __test__ = False  # not a class of tests

    spec: str
    test: str
    result: RequirementResult
    scripts: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Return it as xdist and the journal carry it."""
        return {
            "spec": self.spec,
            "test": self.test,
            "result": self.result.to_data(),
            "scripts": list(self.scripts),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "TestResult":
        """Read what `to_data` wrote. Raises KeyError, TypeError or ValueError."""
        return cls(
            data["spec"],
            data["test"],
            RequirementResult.from_data(data["result"]),
            tuple(data["scripts"]),
        )


@dataclass(frozen=True, slots=True)
class InitError:
    """Why the driver could not be made: the error's class and message.

    `reason` is "refused" for a DriverError or OSError, "raised" for another exception, or
    "process-died" or "deadline".
    """

    kind: str
    message: str
    reason: str = "refused"

    @property
    def is_refusal(self) -> bool:
        """Whether the driver refused this environment, as it may."""
        return self.reason == "refused"

    def to_data(self) -> dict[str, str]:
        """Return it as the result file has it."""
        return {"class": self.kind, "message": self.message, "reason": self.reason}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "InitError":
        """Read what `to_data` wrote. Raises KeyError or TypeError."""
        return cls(_text(data["class"]), _text(data["message"]), _text(data["reason"]))


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """The driver that was judged; `capabilities` are those that it declares, None for all."""

    spec: str
    name: str
    options: tuple[str, ...] = ()
    status: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[str, ...] | None = None
    init_error: InitError | None = None

    def to_data(self) -> dict[str, Any]:
        """Return it as the result file has it."""
        return {
            "spec": self.spec,
            "name": self.name,
            "options": list(self.options),
            "status": [list(row) for row in self.status],
            "capabilities": None if self.capabilities is None else list(self.capabilities),
            "init_error": self.init_error.to_data() if self.init_error else None,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "DriverInfo":
        """Read what `to_data` wrote, or schema 1. Raises KeyError, TypeError or ValueError."""
        claims = data["capabilities"]
        error = data.get("init_error")
        return cls(
            _text(data["spec"]),
            _text(data["name"]),
            tuple(map(_text, data.get("options", ()))),
            tuple((_text(label), _text(value)) for label, value in data["status"]),
            None if claims is None else tuple(map(_text, claims)),
            InitError.from_data(error) if error else None,
        )


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How the suite was run, and whether it came to its end.

    `complete` says that every test that was collected has reported. `home` is the directory that
    was asked for, "" for none; `shard` the share of the requirements, I/N, None for all.
    """

    profile: str = "default"
    seed: int = 0
    processes: int = 1
    home: str = ""
    command: tuple[str, ...] = ()
    complete: bool = True
    ended: Ended = Ended.FINISHED
    shard: str | None = None

    def to_data(self) -> dict[str, Any]:
        """Return it as the result file has it."""
        return {
            "profile": self.profile,
            "seed": self.seed,
            "processes": self.processes,
            "home": self.home,
            "command": list(self.command),
            "complete": self.complete,
            "ended": self.ended.value,
            "shard": self.shard,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "RunInfo":
        """Read what `to_data` wrote. Raises KeyError, TypeError or ValueError."""
        return cls(
            _text(data["profile"]),
            int(data["seed"]),
            int(data["processes"]),
            _text(data["home"]),
            tuple(map(_text, data["command"])),
            bool(data["complete"]),
            Ended(data["ended"]),
            _optional_text(data.get("shard")),
        )


@dataclass(frozen=True, slots=True)
class Where:
    """The machine that the suite ran on."""

    kernel: str
    machine: str
    filesystem: str
    uid: int
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def user(self) -> str:
        """Who ran it."""
        if not self.uid:
            return "root"
        inside = " in a user namespace" if self.facts.get("userns") == "true" else ""
        return f"uid {self.uid}{inside}"

    def to_data(self) -> dict[str, Any]:
        """Return it as the result file has it."""
        return {
            "kernel": self.kernel,
            "machine": self.machine,
            "filesystem": self.filesystem,
            "uid": self.uid,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Where":
        """Read what `to_data` wrote. Raises KeyError, TypeError or ValueError."""
        return cls(
            _text(data["kernel"]),
            _text(data["machine"]),
            _text(data["filesystem"]),
            int(data["uid"]),
            {str(name): str(value) for name, value in data["facts"].items()},
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of judging one driver: all that a result file holds."""

    suite: str
    catalogue: str
    driver: DriverInfo
    run: RunInfo
    where: Where
    started: str
    seconds: float
    requirements: Mapping[str, RequirementResult]

    @property
    def verdict(self) -> Verdict:
        """The verdict, on the requirements that were selected."""
        return verdict_of(self.requirements.values(), self.run.ended)

    @property
    def violations(self) -> list[RequirementResult]:
        """What the driver breaks, in the order of the catalogue; blocked ones are not among it."""
        return [one for one in self.requirements.values() if one.outcome is Outcome.VIOLATED]

    def counts(self) -> dict[str, int]:
        """Return how many requirements had each outcome."""
        found = Counter(one.outcome for one in self.requirements.values())
        return {outcome.value: found[outcome] for outcome in Outcome}

    def count(self, level: str, outcome: Outcome) -> int:
        """Return how many requirements of the level had the outcome."""
        return sum(
            one.outcome is outcome and one.level == level for one in self.requirements.values()
        )

    def fails(self, level: str = "must", *, strict: bool = False) -> bool:
        """Say whether the run fails.

        It does when a requirement of at least `level` is violated, when the suite failed, when
        nothing was proven or the run did not finish; with `strict` also when something could not
        be proven here.
        """
        rows = self.requirements.values()
        return (
            self.run.ended is not Ended.FINISHED
            or any(one.is_bad and Level(one.level).fails(level) for one in rows)
            or any(one.outcome is Outcome.ERROR for one in rows)
            or not any(one.outcome is Outcome.MET for one in rows)
            or (strict and any(one.outcome is Outcome.NOT_PROVABLE for one in rows))
        )


def fold(
    requirements: Mapping[str, Requirement],
    collected: Mapping[str, int],
    results: Iterable[RequirementResult],
) -> dict[str, RequirementResult]:
    """Return a result for every requirement of the catalogue.

    `collected` says how many tests of each requirement were to report; `results` are those that
    did, one for each test. A requirement is met only when all of its tests reported and none
    failed.
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
    """Return results where those that rest on a violated one are blocked by it."""
    return {
        id: _blocked(one, requirements, results) if id in requirements else one
        for id, one in results.items()
    }


def verdict_of(results: Iterable[RequirementResult], ended: Ended = Ended.FINISHED) -> Verdict:
    """Return `conformant` only when every claimed MUST that was selected was proven.

    A waiver lets a run pass; it does not make a driver conform.
    """
    selected = [one for one in results if one.was_asked]
    must = [one for one in selected if one.level == Level.MUST]
    if any(one.is_bad or one.outcome is Outcome.WAIVED for one in must):
        return Verdict.NOT_CONFORMANT
    unsure = (Outcome.NOT_PROVABLE, Outcome.ERROR)
    proven = any(one.outcome is Outcome.MET for one in must or selected)
    if ended is not Ended.FINISHED or not proven or any(one.outcome in unsure for one in must):
        return Verdict.INCONCLUSIVE
    return Verdict.CONFORMANT


def worse(one: RequirementResult, other: RequirementResult) -> RequirementResult:
    """Return the one that counts of two results of one test: of its call and of its teardown.

    Of two that are equally bad it is the first: the other is often a consequence.
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
    # Of several that are equally bad, the one that takes least to read.
    worst = min(results, key=_rank, default=None)
    missing = collected - len(results)
    if missing > 0 and (worst is None or worst.outcome not in (Outcome.ERROR, Outcome.VIOLATED)):
        worst = RequirementResult.of(
            requirement,
            Outcome.NOT_PROVABLE,
            reason=Reason.NOT_REPORTED,
            detail=f"{missing} of {collected} tests did not report before the run ended",
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
    """Report a broken verb once: a requirement that rests on a violated one is blocked by it.

    Where the culprit killed its process or hung, that holds for requirements which are met as well:
    whether they ran before or after it depends on the order of the tests.
    """
    if one.outcome in (Outcome.NOT_SELECTED, Outcome.NOT_CLAIMED, Outcome.ERROR):
        return one
    culprits = _broken_below(requirements[one.id], requirements, folded, set())
    fatal = any(folded[id].reason in FATAL for id in culprits)
    if not culprits or not (fatal or one.is_bad):
        return one
    return replace(one, outcome=Outcome.BLOCKED, reason=Reason.RESTS_ON, blocked_by=tuple(culprits))


def _broken_below(
    requirement: Requirement,
    requirements: Mapping[str, Requirement],
    folded: Mapping[str, RequirementResult],
    seen: set[str],
) -> list[str]:
    """Return the violated requirements below one that themselves rest on none that is violated."""
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


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is a {type(value).__name__}, not a text")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)
