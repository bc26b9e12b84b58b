"""Processes of the run: inheriting orphans, ending with the parent, and open descriptors."""

import contextlib
import ctypes
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

from graphdriver_conformance.host.fuse import abort_below

__all__ = [
    "adopt_orphans",
    "children_of_this_process",
    "descriptors_of",
    "die_with_parent",
    "kill_tree",
    "tree_of",
    "wait_for_end",
]

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# Seconds until a killed process is assumed to wait for FUSE; others end in milliseconds.
_PATIENCE = 10
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants (Linux 3.4)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children_of_this_process() -> set[int]:
    """Return the ids of all child processes, including those of other threads."""
    return _children_of(os.getpid())


def tree_of(roots: Iterable[int]) -> list[int]:
    """Return the living processes of `roots` and their descendants, parents first."""
    found: list[int] = []
    todo = list(roots)
    while todo:
        process = todo.pop(0)
        if process in found or not Path(f"/proc/{process}").exists():
            continue
        found.append(process)
        todo += sorted(_children_of(process))
    return found


def kill_tree(roots: Iterable[int], home: bytes | None = None) -> None:
    """Kill processes with all descendants, and wait until they have ended.

    If one does not end, the FUSE mounts below `home` are aborted: it waits for one of them.
    They are stopped before they are killed, so that none can start another meanwhile, or observe
    the death of its child. Their parent still has to reap them.
    """
    stopped: list[int] = []
    while more := [one for one in tree_of([*roots, *stopped]) if one not in stopped]:
        for process in more:
            _signal(process, signal.SIGSTOP)
        stopped += more
    descriptors: list[int] = []
    for process in stopped:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(process))
        _signal(process, signal.SIGKILL)
    for descriptor in descriptors:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)  # readable once the process has ended
        if home and not ended.poll(1000 * _PATIENCE):
            abort_below(os.fsdecode(home), os.getpid())
        ended.poll()
        os.close(descriptor)


def descriptors_of(process: int) -> list[str]:
    """Return the targets of a process's open descriptors, sorted; [] if it has ended."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{process}/fd/{name}"))
    return sorted(found)


def wait_for_end(process: int, seconds: float = 60) -> bool:
    """Wait until a process has ended; return whether it has."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        return bool(ended.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _children_of(process: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                found |= {int(one) for one in (task / "children").read_text().split()}
    return found


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
