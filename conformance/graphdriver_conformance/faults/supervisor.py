"""Supervision of processes: their system calls counted, and a fault at a chosen one.

    with Supervisor(home, CHANGES) as supervisor:
        process = start(source, supervisor.enter)   # every process that enters is supervised
        driver = process.init(home, options)
        with supervisor.watching(at=5, fault=kill) as watched:
            driver.create("layer", "parent")        # killed before its 5th call: raises NoAnswer
        watched.hit                                  # the Call at which the fault occurred

Calls are counted in the order in which they arrive, over all threads and children of all processes
that entered. A call is blocked while the fault runs: an action of the fault, such as a power cut of
the home's disk, precedes the effect of the call.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from graphdriver_conformance.faults.calls import (
    Call,
    CallKind,
    call_of,
    filter_for,
    flushes,
    is_elsewhere,
)
from graphdriver_conformance.host import seccomp
from graphdriver_conformance.host.processes import kill_tree

__all__ = [
    "ALL_CALLS",
    "CHANGES",
    "EVERY",
    "KILL",
    "PROCEED",
    "WRITES",
    "Fault",
    "Supervisor",
    "Verdict",
    "Watched",
    "failing",
    "kill",
    "without_flushes",
]

CHANGES = frozenset({CallKind.CHANGE, CallKind.MOUNT})
"""The calls between which the disk differs: all points at which a kill can make a difference."""
WRITES = CHANGES | {CallKind.FLUSH}
"""Those, and the calls that sync: points for a power cut, and for a full disk."""
ALL_CALLS = frozenset(CallKind)
"""Those, and the calls that read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about a call: it continues, fails with the errno `error`, or all processes are
    killed.
    """

    error: int = 0
    kills: bool = False


EVERY = -1
"""Instead of a number: the fault applies to every call."""
PROCEED, KILL = Verdict(), Verdict(kills=True)


class Fault(Protocol):
    """Decides about a call; it may have other effects before the call is made.

    Called in a thread of the supervisor. Its exceptions are raised in the thread that watches.
    """

    def __call__(self, call: Call) -> Verdict:
        """Return the decision about the call."""


def kill(call: Call) -> Verdict:
    """Kill all supervised processes before the call."""
    return KILL


def failing(number: int) -> Fault:
    """Return the fault that makes a call fail with an errno."""
    return lambda call: Verdict(error=number)


@dataclass(slots=True)
class Watched:
    """The result of watching: the counted calls, and the one with the fault.

    `failure` is an error of the supervision itself.
    """

    at: int = 0
    fault: Fault = kill
    calls: list[Call] = field(default_factory=list)
    hit: Call | None = None
    failure: BaseException | None = None


class Supervisor:
    """Answers the calls of all processes that `enter`, in a thread of its own.

    It counts calls of `kinds` that affect `home` (Call.touches), and all calls of a process whose
    paths refer to other directories, such as a helper in a root directory of its own.

    With `skips_flushes` calls that flush succeed without being made, see `without_flushes`.
    """

    def __init__(
        self, home: Path, kinds: Set[CallKind] = CHANGES, *, skips_flushes: bool = False
    ) -> None:
        self._home = os.fsencode(home)
        self._kinds = kinds
        self._filter = filter_for(
            reads=CallKind.READ in kinds,
            skips_flushes=skips_flushes and CallKind.FLUSH not in kinds,
        )
        self._skipped = flushes() if skips_flushes else frozenset()
        self._ours, self._theirs = socket.socketpair()
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC)
        self._listeners: set[int] = set()
        self._roots: list[int] = []
        self._lock = threading.Lock()
        self._watched: Watched | None = None
        self._thread = threading.Thread(target=self._serve, name="graphdriver-suite", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Supervisor":
        """Return the supervisor."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the supervised processes, and end."""
        self.kill()
        os.close(self._woken)
        self._thread.join()
        for one in (self._ours, self._theirs):
            one.close()
        os.close(self._wake)

    @property
    def home(self) -> bytes:
        """The directory whose calls count."""
        return self._home

    @property
    def processes(self) -> list[int]:
        """The processes that entered."""
        return list(self._roots)

    def enter(self, *, only_if_watched: bool = False) -> None:
        """Become supervised: to be called in a new process, before it creates a thread or execs.

        Raises OSError if this is not possible (`seccomp.why_impossible`).
        """
        if only_if_watched and self._watched is None:
            return
        listener = seccomp.install(self._filter)
        socket.send_fds(self._theirs, [struct.pack("<i", os.getpid())], [listener])
        os.close(listener)

    @contextmanager
    def watching(self, at: int = 0, fault: Fault = kill) -> Iterator[Watched]:
        """Count calls for the duration of the block; the `at`th gets the fault, 0 for none.

        With EVERY each call gets it, and `hit` is the last one.

        Raises the exceptions of the fault.
        """
        watched = Watched(at, fault)
        with self._lock:
            self._watched = watched
        try:
            yield watched
        finally:
            with self._lock:
                self._watched = None
        if watched.failure:
            raise watched.failure

    def kill(self) -> None:
        """Kill every process that entered, with its children, and wait for their end."""
        kill_tree(self._roots, self._home)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._ours, select.POLLIN)
        while True:
            for descriptor, event in poll.poll():
                if descriptor == self._wake:
                    self._close_listeners()
                    return
                if descriptor == self._ours.fileno():
                    listener = self._receive_listener()
                    poll.register(listener, select.POLLIN)
                elif event & select.POLLIN:
                    self._answer(descriptor)
                else:  # all processes with this filter have ended
                    poll.unregister(descriptor)
                    self._listeners.discard(descriptor)
                    os.close(descriptor)

    def _receive_listener(self) -> int:
        data, (listener,), _, _ = socket.recv_fds(self._ours, 4, 1)
        self._roots.append(struct.unpack("<i", data)[0])
        self._listeners.add(listener)
        return listener

    def _close_listeners(self) -> None:
        """Release the listener: a call that still waits fails with ENOSYS, as the kernel
        defines.
        """
        for one in self._listeners:
            os.close(one)

    def _answer(self, listener: int) -> None:
        notification = seccomp.receive(listener)
        if notification is None:
            return
        with self._lock:
            watched = self._watched
        verdict, call = PROCEED, None
        if watched:
            try:
                call = self._counted(watched, call_of(notification))
                if call and watched.at in (len(watched.calls), EVERY):
                    watched.hit = call
                    verdict = watched.fault(call)
            except BaseException as error:
                watched.failure = error
        if verdict.kills:
            self.kill()
        elif verdict.error:
            seccomp.return_error(listener, notification.id, verdict.error)
        elif notification.number in self._skipped:
            seccomp.return_error(listener, notification.id, 0)
        elif not seccomp.continue_call(listener, notification.id) and watched and call:
            # A signal has interrupted the call (before Linux 5.19): it is repeated with a new
            # notification.
            with contextlib.suppress(ValueError):
                watched.calls.remove(call)

    def _counted(self, watched: Watched, call: Call) -> Call | None:
        """Count a call if it counts."""
        if call.kind not in self._kinds:
            return None
        if not call.touches(self._home) and not is_elsewhere(call.thread):
            return None
        watched.calls.append(call)
        return call


def without_flushes(*, only_if_watched: bool = False) -> None:
    """Let calls that flush (fsync and the like) succeed in this process without being made.

    Data that a process has written persists after its end without a flush: only a power cut shows
    the difference, and flushes take most of the time. To be called in a new process, like
    `Supervisor.enter`. Raises OSError.
    """
    seccomp.install_filter(seccomp.program([], [], flushes()))


def name_of(number: int) -> str:
    """Return the name of an errno."""
    return errno.errorcode.get(number, str(number))
