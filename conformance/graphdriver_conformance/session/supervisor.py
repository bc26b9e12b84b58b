"""The process that runs the tests, and the one that watches it.

The tests of the suite run in a child of the pytest process (with xdist: of each worker), forked
before the driver is imported. A driver that kills its process, exits, or never returns ends that
child only: the parent reports the test as violated, with the signal or deadline and the verb that
was running, cleans up and continues with the next test in a new child.
"""

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from itertools import takewhile
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from graphdriver_conformance.fixture.watch import Watch
from graphdriver_conformance.host.fuse import abort_below
from graphdriver_conformance.host.processes import (
    adopt_orphans,
    children_of_this_process,
    die_with_parent,
)

__all__ = ["Child", "ChildDied", "ChildHung"]

# Seconds between checks of the deadlines; answers and deaths are separate events.
_LOOK = 0.5
# A test that calls no verb for so long has hung in the suite itself: seconds, and deadlines.
_SILENCE, _SILENT_DEADLINES = 900.0, 10
_FRAMES = 8
_exit = os._exit  # a driver may replace the module's


class ChildDied(Exception):
    """The child ended before it answered: by a signal, or with an exit status.

    `how` describes this in words, `output` are the innermost lines of the Python stack, if any.
    """

    def __init__(self, status: int, output: list[str]) -> None:
        if status < 0:
            try:
                name = f" ({signal.Signals(-status).name})"
            except ValueError:
                name = ""
            self.how = f"died with signal {-status}{name}"
        else:
            self.how = f"exited with status {status}"
        super().__init__(self.how)
        self.output = output


class ChildHung(Exception):
    """The child was killed: `call` exceeded the deadline; "" if no verb was running."""

    def __init__(self, call: str, seconds: float) -> None:
        super().__init__(f"{call or 'the test'} did not return within {seconds:g} s")
        self.call = call
        self.seconds = seconds


class Child:
    """A forked process that runs `main` with its end of a pipe; `watch` is shared with it.

    `place` is the directory of its homes. FUSE mounts below it are aborted when it is killed.
    """

    def __init__(self, main: Callable[[Connection], None], watch: Watch, place: Path) -> None:
        self._watch = watch
        self._place = place
        self._status: int | None = None
        watch.reset()
        adopt_orphans()
        self._before = children_of_this_process()
        self._crash_log = tempfile.TemporaryFile()
        self._connection, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python 3.12 warns if other threads run: xdist's threads are not affected.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = os.fork()
        if not self._process:
            self._connection.close()
            self._run(main, theirs)
        theirs.close()
        self._descriptor = _pidfd(self._process)

    def send(self, message: object) -> None:
        """Send a message; `receive` reports the death of the child."""
        with contextlib.suppress(OSError):
            # Connection.send would leave a view of a buffer in the traceback of Ctrl-C, which the
            # garbage collector cannot release: it would print a BufferError.
            self._connection.send_bytes(pickle.dumps(message))

    def receive(self, deadline: float) -> Any:
        """Return the next message. Raises ChildDied, or ChildHung after it killed the child."""
        while True:
            waited_for: list[Any] = [self._connection]
            if self._descriptor is not None:
                waited_for.append(self._descriptor)
            ready = wait(waited_for, _LOOK)
            if self._connection in ready or self._connection.poll():
                try:
                    return pickle.loads(self._connection.recv_bytes())
                except (EOFError, OSError):
                    self._await_end(deadline)
                    raise ChildDied(self._reap(), self._last_frames()) from None
            if self._ended():
                raise ChildDied(self._reap(), self._last_frames())
            if hung := self._hung(deadline):
                self.kill()
                raise hung

    def end(self, timeout: float) -> None:
        """Ask the child to end, and kill it if it does not within `timeout` seconds."""
        self.send(None)
        self._await_end(timeout)
        self.kill()

    def kill(self) -> None:
        """Kill the child and all its processes."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            abort_below(self._place, self._process)
            self._reap()
        self._kill_orphans()
        self._connection.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._crash_log.close()

    def _run(self, main: Callable[[Connection], None], theirs: Connection) -> None:
        """Be the child."""
        code = 1
        try:
            die_with_parent()
            # Ctrl-C is handled by the parent, which ends this process; a signal to this process
            # group is handled here.
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, lambda *_: None)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            faulthandler.enable(self._crash_log, all_threads=False)
            main(theirs)
            code = 0
        except (EOFError, BrokenPipeError):
            pass  # the parent has died
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            _exit(code)

    def _hung(self, deadline: float) -> ChildHung | None:
        calls = self._watch.calls()
        if calls and calls[0].seconds > deadline:
            return ChildHung(calls[0].call, deadline)
        silence = (time.monotonic_ns() - self._watch.last_event) / 1e9
        if not calls and silence > (limit := max(_SILENCE, _SILENT_DEADLINES * deadline)):
            return ChildHung("", limit)
        return None

    def _ended(self) -> bool:
        """Return whether the child has ended, and keep its exit status."""
        if self._process:
            process, status = os.waitpid(self._process, os.WNOHANG)
            if process:
                self._process, self._status = 0, os.waitstatus_to_exitcode(status)
        return not self._process

    def _await_end(self, timeout: float) -> None:
        """Wait for the child to end; kill it after `timeout` seconds."""
        limit = time.monotonic() + timeout
        while self._process and self._status is None:
            left = limit - time.monotonic()
            if left <= 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process, signal.SIGKILL)
                return
            if self._descriptor is not None:
                wait([self._descriptor], min(_LOOK, left))
            else:
                time.sleep(0.01)
            self._ended()

    def _reap(self) -> int:
        """Return the exit status, negative for a signal."""
        if self._process:
            _, status = os.waitpid(self._process, 0)
            self._process, self._status = 0, os.waitstatus_to_exitcode(status)
        return self._status or 0

    def _kill_orphans(self) -> None:
        """Kill processes that the child started: this process is their parent since the child
        ended.
        """
        while left := children_of_this_process() - self._before:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            for process in left:
                abort_below(self._place, process)  # a server may wait for its own mount
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process, 0)

    def _last_frames(self) -> list[str]:
        """Return the innermost frames that faulthandler wrote, the driver's own first."""
        self._crash_log.seek(0)
        lines = self._crash_log.read().decode("utf-8", "replace").splitlines()
        frames = [line.strip() for line in lines if line.strip().startswith("File ")]
        # The most recent call is first; below the suite's own frames are pytest's.
        own = takewhile(lambda line: f"{_PACKAGE}/" not in line, frames)
        return [*[line for line in lines if "Fatal" in line][:1], *list(own)[:_FRAMES]]


_PACKAGE = Path(__file__).parents[1].as_posix()


def _pidfd(process: int) -> int | None:
    """Return a descriptor that is readable once the process has ended; None before Linux 5.3."""
    try:
        return os.pidfd_open(process)
    except OSError:
        return None
