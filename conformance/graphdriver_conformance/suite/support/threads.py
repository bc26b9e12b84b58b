"""Threads that call a driver concurrently, and the results of the calls.

A driver in another process has a connection for each call, so that each thread is a separate
client.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from graphdriver.errors import DriverError
from graphdriver_conformance.drivers import deadline

__all__ = ["all_at_once", "at_once", "refusals"]

_Result = TypeVar("_Result")


def at_once(calls: Sequence[Callable[[], _Result]]) -> list[_Result | DriverError | OSError]:
    """Make each call in a thread of its own, all started together; return results or errors.

    Raises AssertionError for a call that does not return, and exceptions that no driver may raise.
    """
    # No thread waits for time to pass; this only turns a hang into a failure.
    timeout = 2 * deadline()
    ready = threading.Barrier(len(calls))
    outcomes: list[_Result | DriverError | OSError | None] = [None] * len(calls)
    failures: list[BaseException] = []

    def make(index: int) -> None:
        ready.wait(timeout)
        try:
            outcomes[index] = calls[index]()
        except (DriverError, OSError) as error:
            outcomes[index] = error
        except threading.BrokenBarrierError:
            pass  # an error of another thread, which is more useful
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=make, args=(index,), daemon=True) for index in range(len(calls))
    ]
    with _frequent_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
    hanging = sum(thread.is_alive() for thread in threads)
    assert not hanging, f"{hanging} of {len(calls)} threads did not return: a deadlock"
    if failures:
        raise failures[0]
    return outcomes  # type: ignore[return-value]


def all_at_once(calls: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """Make the calls like `at_once`; AssertionError if one was refused."""
    outcomes = at_once(calls)
    refused = refusals(outcomes)
    assert not refused, f"{len(refused)} of {len(calls)} threads failed: {refused[0]!r}"
    return outcomes  # type: ignore[return-value]


def refusals(outcomes: Sequence[object]) -> list[DriverError | OSError]:
    """Return the errors among outcomes."""
    return [one for one in outcomes if isinstance(one, (DriverError, OSError))]


@contextmanager
def _frequent_switches() -> Iterator[None]:
    """Let the interpreter switch threads often, so that calls interleave."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
