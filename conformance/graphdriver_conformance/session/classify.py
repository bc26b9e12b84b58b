"""Classification of a test's end: a violation of the driver or an error of the suite."""

import linecache
import re
import traceback
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis.errors import Flaky

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import Requirement
from graphdriver_conformance.drivers import Cause, NoAnswer
from graphdriver_conformance.faults.findings import FaultFound
from graphdriver_conformance.fixture.boundary import DriverExited, NoError, WrongType, origin_of
from graphdriver_conformance.fixture.needs import NotClaimed
from graphdriver_conformance.fixture.subject import NotRefused, PastDeadline, Subject, inner
from graphdriver_conformance.host.environment import is_full
from graphdriver_conformance.oracle.compare import TreesDiffer
from graphdriver_conformance.results.model import Outcome, Reason, RequirementResult
from graphdriver_conformance.session.values import shown_pair

__all__ = ["Compared", "classify", "printable"]

_MOST_MOUNTS = 5
_LONGEST_LINE = 240
_LONGEST_TEXT = 20_000
# A path may be as long as PATH_MAX; its cause, after it, is to be found.
_LONG_WORD = re.compile(r"(\S{120})(\S{280,})(\S{80})")
# Notes of Hypothesis to omit: the call around the values, objects without a useful repr, and the
# steps of a state machine, which the program of verbs shows better.
_NOT_SHOWN = re.compile(r"\($|^\)$|graphdriver=|^data=data\(|^state\b|= state\.")

Compared = tuple[str, object, object]
"""The operator and both operands of the failed comparison."""


def classify(
    requirement: Requirement,
    error: BaseException | None,
    subject: Subject | None,
    compared: Compared | None = None,
) -> RequirementResult:
    """Return the result of a test that ended with `error`, None if it passed.

    An AssertionError, an exception from a verb, and an OSError from a mounted layer are violations;
    any other exception is an error of the suite, and so is any exception on a full disk. A
    requirement that the driver does not claim is never violated; if the driver meets it
    nevertheless, this is reported.
    """

    def result(outcome: Outcome, reason: Reason | None = None, **more: object) -> RequirementResult:
        return RequirementResult.of(requirement, outcome, reason=reason, **more)

    asked = subject.asked if subject else None
    if asked and asked.unclaimed:
        names = ", ".join(asked.unclaimed)
        works = error is None
        detail = (
            f"{'works although not claimed: ' if works else 'the driver does not claim '}{names}"
        )
        more = {"detail": detail, "capability": asked.unclaimed[0], "works": works}
        return result(Outcome.NOT_CLAIMED, Reason.NO_CAPABILITY, **more)
    if error is None:
        return result(Outcome.MET, capability=asked.capability if asked else None)
    if isinstance(error, NotClaimed):
        reason = Reason.NO_CAPABILITY if error.capability else Reason.TRANSPORT
        more = {"detail": printable(str(error)), "capability": error.capability}
        return result(Outcome.NOT_CLAIMED, reason, **more)
    if isinstance(error, pytest.skip.Exception):
        detail = printable(str(error)) or "skipped without a reason"
        return result(Outcome.NOT_PROVABLE, Reason.ENVIRONMENT, detail=detail)
    if subject and is_full(subject.home.parent):
        place = subject.home.parent.parent
        actual = f"the disk of the homes, {place}, is full: free some space; the error was {error}"
        return result(Outcome.ERROR, Reason.SUITE, actual=printable(actual))
    if isinstance(error, Flaky):
        error = _hypothesis_cause(error, subject)
    if isinstance(error, (AssertionError, DriverError, OSError)) or origin_of(error):
        return _violation(requirement, error, subject, compared)
    if isinstance(error, Flaky) and subject and subject.raised:
        error.add_note(f"an example raised {subject.raised!r}")
    notes = "; ".join(getattr(error, "__notes__", ()))
    text = f"{type(error).__name__}: {error}{_innermost_line(error)}"
    actual = printable(f"{text} ({notes})" if notes else text)
    return result(Outcome.ERROR, Reason.SUITE, actual=actual)


def printable(text: str) -> str:
    """Return the text with surrogates escaped, which cannot be encoded for a file or terminal."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _short(text: str) -> str:
    """Return the text without the middle of long paths, and without the end of a whole file."""
    text = _LONG_WORD.sub(lambda word: f"{word[1]}...{len(word[2])} characters...{word[3]}", text)
    left_out = len(text) - _LONGEST_TEXT
    return text if left_out <= 0 else f"{text[:_LONGEST_TEXT]}... ({left_out} characters more)"


def _violation(
    requirement: Requirement,
    error: BaseException,
    subject: Subject | None,
    compared: Compared | None,
) -> RequirementResult:
    reason, expected, actual = _finding(requirement, error, compared)
    found = RequirementResult.of(
        requirement,
        Outcome.VIOLATED,
        reason=reason,
        expected=_short(printable(expected)),
        actual=_short(printable(actual)),
        tree=_printable(_tree_lines(error)),
        example=_printable(_drawn(error)),
    )
    if subject is None:
        return found
    return replace(
        found,
        capability=subject.asked.capability,
        notes=_printable(subject.notes),
        program=_printable(subject.program.lines()),
        mounts=_printable(
            error.finding.mounts if isinstance(error, FaultFound) else _mounts(subject)
        ),
        output=_printable(subject.source.processes.last_output(inner(subject.driver))),
    )


def _tree_lines(error: BaseException) -> list[str] | tuple[str, ...]:
    """Return the differences from the expected tree, if the violation has some."""
    if isinstance(error, FaultFound):
        return error.finding.tree
    return error.lines if isinstance(error, TreesDiffer) else ()


def _finding(
    requirement: Requirement, error: BaseException, compared: Compared | None
) -> tuple[Reason, str, str]:
    """Return the reason of a violation, the expected and the actual result."""
    if isinstance(error, TreesDiffer):
        count = "1 difference" if error.count == 1 else f"{error.count} differences"
        actual = f"{error.message.rstrip(': ')} ({count})"
        return Reason.MISMATCH, requirement.title, actual
    if isinstance(error, WrongType):
        return Reason.WRONG_TYPE, error.expected, error.actual
    if isinstance(error, DriverExited):
        return Reason.PROCESS_DIED, error.expected, error.actual
    if isinstance(error, NoError):
        return Reason.RAISED, error.expected, error.actual
    if isinstance(error, FaultFound):
        return Reason.MISMATCH, error.expected, error.actual
    if isinstance(error, NotRefused):
        reason = Reason.WRONG_ERROR if error.raised else Reason.NOT_REFUSED
        return reason, f"{error.called} raises DriverError or OSError", error.outcome
    if isinstance(error, PastDeadline):
        return Reason.DEADLINE, requirement.title, str(error)
    if not isinstance(error, AssertionError):
        return _raised(error)
    message = _message(error)
    if compared:
        expected, found = _compared(*compared)
        repeats = not message or any(one in message for one in (found, "{", "["))
        return Reason.MISMATCH, expected, (message or found) if repeats else f"{message}: {found}"
    asserted = message or f"the test finds otherwise: {_asserted(error)}"
    return Reason.MISMATCH, requirement.title, asserted


def _compared(operator: str, left: object, right: object) -> tuple[str, str]:
    """Return the expected and the actual value of a comparison in pytest's order, actual first.

    A membership test has the expected member first.
    """
    if operator in ("in", "not in"):
        member, found = shown_pair(left, right)
        return f"{member} {operator} the result", found
    expected, found = shown_pair(right, left)
    return (expected if operator == "==" else f"the result {operator} {expected}"), found


def _raised(error: BaseException) -> tuple[Reason, str, str]:
    """Return the finding for an exception that is not an assertion of the test."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    call = origin_of(error)
    where = "" if isinstance(error, (DriverError, NoAnswer)) else _innermost_line(error)
    if isinstance(error, NoAnswer):
        reason = {Cause.DIED: Reason.PROCESS_DIED, Cause.HUNG: Reason.DEADLINE}.get(error.cause)
        expected = f"{call or 'the call'} is answered"
        return reason or Reason.RAISED, expected, f"{call}: {text}" if call else text
    if call and not isinstance(error, (DriverError, OSError)):
        # `refuses` reports a wrong class of an expected refusal; here no error was expected.
        return Reason.RAISED, f"{call} succeeds", f"{call} raised {text}{where}"
    expected = f"{call} succeeds" if call else "no error"
    return Reason.RAISED, expected, f"{call} raised {text}{where}" if call else f"{text}{where}"


def _mounts(subject: Subject) -> list[str]:
    home = str(subject.home)
    mounts = subject.mounts()
    rows = [line.replace(home, "HOME")[:300] for line in mounts[:_MOST_MOUNTS]]
    more = len(mounts) - _MOST_MOUNTS
    return rows + [f"... and {more} more"] * (more > 0)


def _hypothesis_cause(flaky: BaseException, subject: Subject | None) -> BaseException:
    """Return the driver's error from Hypothesis's report that it was not raised again."""
    candidates: list[BaseException | None] = [
        *getattr(flaky, "exceptions", ()),
        flaky.__cause__,
        flaky.__context__,
    ]
    candidates.append(subject.raised if subject else None)
    for one in candidates:
        if one is not None and (
            isinstance(one, (AssertionError, DriverError, OSError)) or origin_of(one)
        ):
            if subject:
                subject.note("not every time: the driver answers the same calls differently")
            return one
    return flaky


def _message(error: AssertionError) -> str:
    """Return the message of the test, without pytest's addition to it."""
    text = str(error)
    return "" if text.startswith("assert ") else text.partition("\nassert ")[0].strip()


def _asserted(error: BaseException) -> str:
    """Return the source line of the failed assertion."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "/suite/" in one.filename]
    frame = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return linecache.getline(frame.filename, frame.lineno or 0).strip().removeprefix("assert ")


def _innermost_line(error: BaseException) -> str:
    """Return the innermost line of an exception's traceback, "" without a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    return f"  ({last.filename.rpartition('/')[2]}:{last.lineno} {last.name})" if last else ""


def _drawn(error: BaseException) -> Iterator[str]:
    """Yield the values of the smallest example from Hypothesis's notes."""
    for note in getattr(error, "__notes__", ()):
        if "reproduce_failure" in note or "<state machine>" in note:
            continue
        for line in note.splitlines():
            text = line.strip().rstrip(",")
            if text and not _NOT_SHOWN.search(text):
                yield text[:_LONGEST_LINE]


def _printable(lines: Iterator[str] | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(printable(line) for line in lines)
