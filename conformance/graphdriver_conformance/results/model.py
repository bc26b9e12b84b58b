"""The result model: one class for the result of a requirement, one for the result of a run.

A test reports a `RequirementResult`; `folding.fold` combines those of all tests of a requirement;
waivers replace it; the result file stores it; the terminal, HTML, Markdown, JUnit and the kernel
matrix read it. Facts are fields, and are never parsed from a sentence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphdriver_conformance.catalogue.requirement import Level, Requirement
from graphdriver_conformance.results.outcomes import Ended, Outcome, Reason, Verdict

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
    "verdict_of",
]


@dataclass(frozen=True, slots=True)
class RequirementResult:
    """The result of one requirement: of one test of it, or of all of them.

    `detail` is one sentence for people if `expected` and `actual` do not apply: a feature that this
    environment lacks, or the author of a waiver. `capability` is the one whose claim selected the
    requirement, or whose absence excluded it; `works` means that the driver has the feature
    although it does not claim it. `failures` counts the failed tests, of which the shortest is
    shown. `example` contains the values that a property test drew, `script` the command that
    reproduces the violation without pytest.
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
    def was_tested(self) -> bool:
        """Whether the run selected it."""
        return self.outcome is not Outcome.NOT_SELECTED

    @property
    def is_bad(self) -> bool:
        """Whether the driver violates the requirement, or one that it depends on."""
        return self.outcome in (Outcome.VIOLATED, Outcome.BLOCKED)

    def to_data(self) -> dict[str, Any]:
        """Return it as in the result file (schema 2)."""
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
    """The result that one test reports: the driver, and scripts that may reproduce it.

    `scripts` are texts of Python programs, the preferred one first.
    """

    __test__ = False  # not a class of tests

    spec: str
    test: str
    result: RequirementResult
    scripts: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Return it in the form used by xdist and the journal."""
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
    """The reason why the driver could not be created: the error's class and message.

    `reason` is "refused" for a DriverError or OSError, "raised" for another exception, or
    "process-died" or "deadline".
    """

    kind: str
    message: str
    reason: str = "refused"

    @property
    def is_refusal(self) -> bool:
        """Whether the driver refused this environment, which is allowed."""
        return self.reason == "refused"

    def to_data(self) -> dict[str, str]:
        """Return it as in the result file."""
        return {"class": self.kind, "message": self.message, "reason": self.reason}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "InitError":
        """Read what `to_data` wrote. Raises KeyError or TypeError."""
        return cls(_text(data["class"]), _text(data["message"]), _text(data["reason"]))


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """The tested driver; `capabilities` are the declared ones, None for all."""

    spec: str
    name: str
    options: tuple[str, ...] = ()
    status: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[str, ...] | None = None
    init_error: InitError | None = None

    def to_data(self) -> dict[str, Any]:
        """Return it as in the result file."""
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
    """How the suite was run, and how it ended.

    `complete` means that every collected test has reported. `home` is the directory of the option,
    "" for none; `shard` the share of the requirements, I/N, None for all.
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
        """Return it as in the result file."""
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
        """The name of the user that ran the suite."""
        if not self.uid:
            return "root"
        inside = " in a user namespace" if self.facts.get("userns") == "true" else ""
        return f"uid {self.uid}{inside}"

    def to_data(self) -> dict[str, Any]:
        """Return it as in the result file."""
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
    """The result of a run for one driver: the content of a result file."""

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
        """The violated requirements, in the order of the catalogue, without blocked ones."""
        return [one for one in self.requirements.values() if one.outcome is Outcome.VIOLATED]

    def counts(self) -> dict[str, int]:
        """Return the number of requirements with each outcome."""
        found = Counter(one.outcome for one in self.requirements.values())
        return {outcome.value: found[outcome] for outcome in Outcome}

    def count(self, level: str, outcome: Outcome) -> int:
        """Return the number of requirements of the level with the outcome."""
        return sum(
            one.outcome is outcome and one.level == level for one in self.requirements.values()
        )

    def fails(self, level: str = "must", *, strict: bool = False) -> bool:
        """Return whether the run fails.

        It does if a requirement of at least `level` is violated, if the suite failed, if no
        requirement was met or the run did not finish; with `strict` also if a requirement was not
        provable.
        """
        rows = self.requirements.values()
        return (
            self.run.ended is not Ended.FINISHED
            or any(one.is_bad and Level(one.level).fails(level) for one in rows)
            or any(one.outcome is Outcome.ERROR for one in rows)
            or not any(one.outcome is Outcome.MET for one in rows)
            or (strict and any(one.outcome is Outcome.NOT_PROVABLE for one in rows))
        )


def verdict_of(results: Iterable[RequirementResult], ended: Ended = Ended.FINISHED) -> Verdict:
    """Return `conformant` only if every claimed and selected MUST was met.

    With a waiver a run can pass, but the driver is not conformant.
    """
    selected = [one for one in results if one.was_tested]
    must = [one for one in selected if one.level == Level.MUST]
    if any(one.is_bad or one.outcome is Outcome.WAIVED for one in must):
        return Verdict.NOT_CONFORMANT
    unsure = (Outcome.NOT_PROVABLE, Outcome.ERROR)
    proven = any(one.outcome is Outcome.MET for one in must or selected)
    if ended is not Ended.FINISHED or not proven or any(one.outcome in unsure for one in must):
        return Verdict.INCONCLUSIVE
    return Verdict.CONFORMANT


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is a {type(value).__name__}, not a text")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)
