"""A violation as a bug report: expected and actual, the program, the trees, the mounts."""

import linecache
import re
import traceback
from collections.abc import Iterator

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import Requirement
from graphdriver_conformance.fixture.subject import NotRefused, Subject
from graphdriver_conformance.oracle.compare import TreesDiffer

__all__ = ["failure_text"]

_MOST_MOUNTS = 5
_LONGEST_VALUE = 240
# Of Hypothesis's notes: the call around the values, what has no value to show, and the steps of a
# state machine, which the program of verbs tells better.
_UNTOLD = re.compile(r"\($|^\)$|graphdriver=|^data=data\(|^state\b|= state\.")


def failure_text(
    requirement: Requirement,
    error: BaseException,
    subject: Subject | None,
    compared: tuple[str, object, object] | None = None,
) -> str:
    """Return the text, whose first two lines are what was expected and what came instead."""
    expected, actual = _expected_and_actual(requirement, error, compared)
    parts = [f"expected:  {expected}", f"actual:    {actual}"]
    if isinstance(error, TreesDiffer):
        parts += ["tree:", *(f"  {line}" for line in error.lines)]
    if drawn := list(_drawn(error)):
        parts += ["example:", *(f"  {line}" for line in drawn)]
    if subject:
        if subject.notes:
            parts += ["notes:", *(f"  {note}" for note in subject.notes)]
        parts += ["program:", *(f"  {line}" for line in subject.program.lines())]
        if mounts := subject.mounts():
            home = str(subject.home)
            rows = [line.replace(home, "HOME")[:300] for line in mounts[:_MOST_MOUNTS]]
            more = [f"... and {len(mounts) - _MOST_MOUNTS} more"][: len(mounts) > _MOST_MOUNTS]
            parts += ["mounts:", *(f"  {row}" for row in [*rows, *more])]
    return "\n".join(parts)


def _expected_and_actual(
    requirement: Requirement, error: BaseException, compared: tuple[str, object, object] | None
) -> tuple[str, str]:
    if isinstance(error, TreesDiffer):
        many = "1 difference" if error.count == 1 else f"{error.count} differences"
        return requirement.title, f"{error.message.rstrip(': ')} ({many})"
    if isinstance(error, NotRefused):
        return f"{error.called} is an error", error.came
    if not isinstance(error, AssertionError):
        kind = type(error).__name__
        what = f"{kind}: {error}" if str(error) else kind
        origin = "" if isinstance(error, DriverError) else _origin(error)
        return "no error", f"{what}{origin}"
    message = _message(error)
    if compared:
        op, left, right = compared
        found = _short(right)
        wanted = _short(left) if op == "==" else f"{_short(left)} {op} what came"
        told = not message or any(one in message for one in (found, "{", "["))
        return wanted, (message or found) if told else f"{message}: {found}"
    return requirement.title, message or f"the test finds otherwise: {_asserted(error)}"


def _message(error: AssertionError) -> str:
    """Return what the test says, without what pytest adds to it."""
    text = str(error)
    return "" if text.startswith("assert ") else text.partition("\nassert ")[0].strip()


def _asserted(error: BaseException) -> str:
    """Return the source line of the assertion that failed."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "/suite/" in one.filename]
    frame = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return linecache.getline(frame.filename, frame.lineno or 0).strip().removeprefix("assert ")


def _origin(error: BaseException) -> str:
    """Say which call of an error that is no driver's own: its innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    return f"  ({last.filename.rpartition('/')[2]}:{last.lineno} {last.name})" if last else ""


def _drawn(error: BaseException) -> Iterator[str]:
    """Yield the values of the smallest example, as Hypothesis notes them; not how to draw it."""
    for note in getattr(error, "__notes__", ()):
        if "reproduce_failure" in note or "<state machine>" in note:
            continue
        for line in note.splitlines():
            text = line.strip().rstrip(",")
            if text and not _UNTOLD.search(text):
                yield text[:_LONGEST_VALUE]


def _short(value: object) -> str:
    if isinstance(value, (set, frozenset)):
        text = "{" + ", ".join(sorted(map(repr, value))) + "}" if value else "nothing"
    else:
        text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 40]}... (cut)"
