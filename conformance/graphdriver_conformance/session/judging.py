"""What a test's end says of its requirement."""

import pytest
from hypothesis.errors import Flaky

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import Requirement
from graphdriver_conformance.fixture.subject import NotClaimed, Subject
from graphdriver_conformance.host.environment import is_full
from graphdriver_conformance.results.outcome import WORKS, Outcome
from graphdriver_conformance.session.failure import failure_text

__all__ = ["judge"]

NOT_CLAIMED = "the driver does not claim "


def judge(
    requirement: Requirement,
    error: BaseException | None,
    subject: Subject | None,
    compared: tuple[str, object, object] | None = None,
) -> tuple[Outcome, str | None]:
    """Return the outcome and what is to be said of it.

    An AssertionError, an error that escaped a verb, or an errno out of the view is the driver's;
    anything else that was raised is the suite's own, and so is all on a full disk. What the driver
    does not claim is no violation; that it works all the same is told. `compared` are the operator
    and both sides of the comparison that failed, if one did.
    """
    if subject and subject.unclaimed:
        works = error is None
        return Outcome.NOT_CLAIMED, (WORKS if works else NOT_CLAIMED) + subject.unclaimed
    if error is None:
        return Outcome.MET, None
    if isinstance(error, NotClaimed):
        return Outcome.NOT_CLAIMED, str(error)
    if isinstance(error, pytest.skip.Exception):
        return Outcome.NOT_PROVABLE, str(error) or "skipped without a reason"
    if subject and is_full(subject.home.parent):
        where = f"the disk of the homes, {subject.home.parent.parent}, is full"
        return Outcome.ERROR, f"{where}: free some space; the error was {error}"
    if isinstance(error, Flaky):
        error = _steady(error, subject)
    escaped = subject.escaped if subject else None
    if isinstance(error, (AssertionError, DriverError, OSError)) or error is escaped:
        return Outcome.VIOLATED, failure_text(requirement, error, subject, compared)
    return Outcome.ERROR, f"{type(error).__name__}: {error}"


def _steady(flaky: BaseException, subject: Subject | None) -> BaseException:
    """Return the driver's error out of Hypothesis's complaint that it did not come again."""
    candidates = [*getattr(flaky, "exceptions", ()), flaky.__cause__, flaky.__context__]
    for one in candidates:
        if isinstance(one, (AssertionError, DriverError, OSError)):
            if subject:
                subject.note("not every time: the driver answers the same calls differently")
            return one
    return flaky
