"""Threads that call a driver at once, and what came of each call.

A driver that is another process has a connection for each call, so that each thread is one more
client of it.
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
    """Make each call from a thread of its own, all begun together; return results or errors.

    Raises AssertionError for a call that does not come back, and what a call raised that no driver
    may raise.
    """
    # Nothing waits for time to pass; this only turns a driver that hangs into one that fails.
    patience = 2 * deadline()
    ready = threading.Barrier(len(calls))
    outcomes: list[_Result | DriverError | OSError | None] = [None] * len(calls)
    failures: list[BaseException] = []

    def make(index: int) -> None:
        ready.wait(patience)
        try:
            outcomes[index] = calls[index]()
        except (DriverError, OSError) as error:
            outcomes[index] = error
        except threading.BrokenBarrierError:
            pass  # someone else's failure, which says more
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=make, args=(index,), daemon=True) for index in range(len(calls))
    ]
    with _frequent_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patience)
    hanging = sum(thread.is_alive() for thread in threads)
    assert not hanging, f"{hanging} of {len(calls)} threads did not return: a deadlock"
    if failures:
        raise failures[0]
    return outcomes  # type: ignore[return-value]


def all_at_once(calls: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """Make the calls as `at_once` does; AssertionError when one was refused."""
    outcomes = at_once(calls)
    refused = refusals(outcomes)
    assert not refused, f"{len(refused)} of {len(calls)} threads failed: {refused[0]!r}"
    return outcomes  # type: ignore[return-value]


def refusals(outcomes: Sequence[object]) -> list[DriverError | OSError]:
    """Return the errors among outcomes."""
    return [one for one in outcomes if isinstance(one, (DriverError, OSError))]


@contextmanager
def _frequent_switches() -> Iterator[None]:
    """Let the interpreter change threads often, so that what can interleave does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
