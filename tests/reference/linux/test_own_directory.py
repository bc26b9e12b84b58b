"""Work in a thread with its own working directory, interrupted by a signal."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from graphdriver.linux.mounts import with_own_directory


class Interrupted(Exception):
    """The exception that the signal handler raises."""


def test_signal_is_delayed_until_the_work_ends(tmp_path: Path) -> None:
    """The caller closes the directory: the next file to be opened would reuse its number."""
    handled, ended = threading.Event(), threading.Event()

    def interrupt(*_: object) -> None:
        if not handled.is_set():
            handled.set()
            raise Interrupted

    def work() -> None:
        # Python only notes a signal that arrives directly before a lock is awaited, and calls the
        # handler after the wait; the next signal interrupts the wait.
        while not handled.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            handled.wait(1)
        ended.set()

    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            with_own_directory(directory, work)
        assert ended.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(directory)


def test_signal_at_any_point_is_raised_after_the_work(tmp_path: Path) -> None:
    """Directly before the start of the thread, or after its end, it blocked the caller for ever."""
    points = sum(1 for _ in _interrupted_at(tmp_path, -1))
    assert points > 10

    for point in range(points):
        done = list(_interrupted_at(tmp_path, point))
        assert done[-1] in ("raised", "raised before the work")


def _interrupted_at(directory: Path, point: int) -> list[str]:
    """Raise at the given opcode of with_own_directory, as a signal handler would.

    Returns one word for each opcode, and its outcome as the last one.
    """
    seen: list[str] = []
    worked: list[bool] = []

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        if frame.f_code is not with_own_directory.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen.append("opcode")
            if len(seen) == point + 1:
                raise Interrupted
        return trace

    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        with_own_directory(opened, lambda: worked.append(True))
    except Interrupted:
        seen.append("raised" if worked else "raised before the work")
    finally:
        sys.settrace(before)
        os.close(opened)
    return seen
