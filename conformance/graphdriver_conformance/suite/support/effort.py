"""The effort of property tests, by profile."""

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
    "is_first_violation_enough",
    "is_hurried",
    "is_thorough",
    "scaled",
    "search",
]

PROFILE_VARIABLE = "GRAPHDRIVER_PROFILE"
SHRINK_VARIABLE = "GRAPHDRIVER_SHRINK"
"""Set to `no` if only the outcome is needed: the first failing example is then sufficient."""
_PROBING = 5
_FAULT_POINTS = {"quick": 4, "default": 12, "thorough": 4000}
_ERROR_POINTS = {"quick": 2, "default": 8, "thorough": 4000}
_FACTORS = {"quick": 0.2, "default": 1.0, "thorough": 10.0}
_Test = TypeVar("_Test", bound=Callable[..., None])
_Value = TypeVar("_Value")


def scaled(count: int) -> int:
    """Return `count` for the default profile, less or more of it for another one; at least 3."""
    return max(3, round(count * _FACTORS[_profile()]))


def is_hurried() -> bool:
    """Return whether the profile is quick, which omits tests that others cover in part."""
    return _profile() == "quick"


def fault_points() -> int:
    """Return the maximum number of system calls of one verb at which a fault is tested."""
    return _FAULT_POINTS[_profile()]


def error_points() -> int:
    """Return the maximum number of system calls of one verb at which an error is tested."""
    return _ERROR_POINTS[_profile()]


def is_thorough() -> bool:
    """Return whether the profile is thorough, which omits nothing."""
    return _profile() == "thorough"


def _profile() -> str:
    return os.environ.get(PROFILE_VARIABLE, "default")


def by_profile(quick: _Value, default: _Value, thorough: _Value) -> _Value:
    """Return the value for the profile of this run."""
    values = {"quick": quick, "default": default, "thorough": thorough}
    return values[os.environ.get(PROFILE_VARIABLE, "default")]


def search(count: int, **more: Any) -> settings:
    """Return Hypothesis's settings for `count` examples in the default profile.

    Not derandomized, which is Hypothesis's default in CI: it would then ignore
    `--graphdriver-seed`. Without Phase.explain, which takes minutes if mounts are made.
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


def is_first_violation_enough() -> bool:
    """Say whether only the outcome counts, so that a test may end at the first violation."""
    return os.environ.get(SHRINK_VARIABLE) == "no"


def _phases() -> tuple[Phase, ...]:
    return (
        Phase.explicit,
        Phase.generate,
        *([] if is_first_violation_enough() else [Phase.shrink]),
    )


def examples(count: int) -> Callable[[_Test], _Test]:
    """Draw `count` examples in the default profile; to be placed directly below `@given`.

    Each example starts a new program in the test's subject, so that a violation shows only its own.
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
            # The capability is not claimed: a few examples, and no search for the smallest.
            if subject.examples <= _PROBING:
                try:
                    test(*args, **kwargs)
                except Exception as error:
                    pytest.skip(f"{type(error).__name__}: {error}")
            return None

        return search(count)(one_example)  # type: ignore[return-value]

    return decorate
