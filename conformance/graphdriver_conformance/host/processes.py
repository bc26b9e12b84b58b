"""Processes of the run: who inherits orphans, and who ends with whom."""

import ctypes
import os
import signal
from pathlib import Path

__all__ = ["adopt_orphans", "children_of_this_process", "die_with_parent"]

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of processes below this one whose own parent ends (Linux 3.4)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children_of_this_process() -> set[int]:
    """Return the ids of all child processes, those of other threads among them."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(one) for one in (task / "children").read_text().split()}
        except OSError:
            continue  # the thread has ended
    return found


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
