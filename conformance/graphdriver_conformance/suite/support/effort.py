"""How much the property tests try, by profile."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings

__all__ = [
    "PROFILE_VARIABLE",
    "SHRINK_VARIABLE",
    "by_profile",
    "error_points",
    "examples",
    "fault_points",
    "first_will_do",
    "is_hurried",
    "is_thorough",
    "scaled",
    "search",
]

PROFILE_VARIABLE = "GRAPHDRIVER_PROFILE"
SHRINK_VARIABLE = "GRAPHDRIVER_SHRINK"
"""Set to `no` where only the outcome counts: the first example that fails will do then."""
_PROBING = 5
_FAULT_POINTS = {"quick": 3, "default": 12, "thorough": 4000}
_ERROR_POINTS = {"quick": 2, "default": 8, "thorough": 4000}
_FACTORS = {"quick": 0.2, "default": 1.0, "thorough": 10.0}
_Test = TypeVar("_Test", bound=Callable[..., None])
_Value = TypeVar("_Value")


def scaled(count: int) -> int:
    """Return `count` for the default profile, less or more of it for another one; 3 at least."""
    return max(3, round(count * _FACTORS[_profile()]))


def is_hurried() -> bool:
    """Say whether the profile is the quick one, which leaves out what others cover in part."""
    return _profile() == "quick"


def fault_points() -> int:
    """Return at how many system calls of one verb a fault is tried at most."""
    return _FAULT_POINTS[_profile()]


def error_points() -> int:
    """Return at how many system calls of one verb an error is tried at most."""
    return _ERROR_POINTS[_profile()]


def is_thorough() -> bool:
    """Say whether the profile is the one that leaves nothing out."""
    return _profile() == "thorough"


def _profile() -> str:
    return os.environ.get(PROFILE_VARIABLE, "default")


def by_profile(quick: _Value, default: _Value, thorough: _Value) -> _Value:
    """Return the value for the profile of this run."""
    values = {"quick": quick, "default": default, "thorough": thorough}
    return values[os.environ.get(PROFILE_VARIABLE, "default")]


def search(count: int, **more: Any) -> settings:
    """Return Hypothesis's settings for so many examples at the default profile.

    Not derandomized, which Hypothesis does by itself where CI is set: it would then draw the same
    whatever `--graphdriver-seed` says. Without Phase.explain, which takes minutes where mounts are
    made.
    """
    return settings(
        max_examples=scaled(count),
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        phases=_phases(),
        suppress_health_check=list(HealthCheck),
        **more,
    )


def first_will_do() -> bool:
    """Say whether only the outcome counts, so that a test may end at the first violation."""
    return os.environ.get(SHRINK_VARIABLE) == "no"


def _phases() -> tuple[Phase, ...]:
    return (Phase.explicit, Phase.generate, *([] if first_will_do() else [Phase.shrink]))


def examples(count: int) -> Callable[[_Test], _Test]:
    """Draw so many examples at the default profile; to stand right below `@given`.

    Each example starts a new program in the test's subject, so that a violation shows its own only.
    """

    def decorate(test: _Test) -> _Test:
        @functools.wraps(test)
        def one_example(*args: Any, **kwargs: Any) -> None:
            subject = kwargs.get("graphdriver")
            if subject is None:
                return test(*args, **kwargs)
            subject.start_example()
            if not subject.asked.unclaimed:
                try:
                    return test(*args, **kwargs)
                except Exception as error:
                    subject.raised = error
                    raise
            # Nobody claims that it works: a few examples, and no search for the smallest.
            if subject.examples <= _PROBING:
                try:
                    test(*args, **kwargs)
                except Exception as error:
                    pytest.skip(f"{type(error).__name__}: {error}")
            return None

        return search(count)(one_example)  # type: ignore[return-value]

    return decorate
