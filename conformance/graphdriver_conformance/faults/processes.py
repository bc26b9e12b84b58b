"""A driver of any kind in a separate process, which can be supervised and killed.

A Python driver is forked from this process, where it is already imported; the module of a scheme
starts its programs (`DriverSource.start`).
"""

import contextlib
import errno
import gc
import io
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from graphdriver.contract import Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.drivers import Cause, NoAnswer, deadline
from graphdriver_conformance.drivers.resolve import DriverSource, Enter, OwnProcess
from graphdriver_conformance.host.processes import die_with_parent, kill_tree

__all__ = ["Raised", "cannot_start", "start"]

# The process that supervises the run, if there is one, ends a verb at its deadline.
_TIMEOUT_FACTOR = 1.5


class Raised(DriverError):
    """An exception of a driver in another process that is not a refusal; `kind` is its class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind

    def __reduce__(self) -> tuple[type[DriverError], tuple[str, str]]:
        """Support pickling, which calls the class with `args`."""
        return type(self), (self.kind, self.message.removeprefix(f"{self.kind}: "))


def cannot_start(source: DriverSource) -> str:
    """Return why the suite cannot start a process with this driver, "" if it can."""
    if source.in_process or source.start is not None:
        return ""
    return "the suite did not start the driver, so it can neither supervise it nor start it again"


def start(source: DriverSource, enter: Enter | None = None) -> OwnProcess:
    """Start a process that can create the driver; it calls `enter` before anything else."""
    if source.start is not None:
        return source.start(enter)
    assert source.in_process, cannot_start(source)
    return _Forked(source, enter)


class _Forked:
    """A fork of this process in which a Python driver runs; verbs and answers pass through a
    pipe.
    """

    def __init__(self, source: DriverSource, enter: Enter | None) -> None:
        self._connection, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python 3.12 warns if other threads run: the supervisor's waits in poll(2).
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = os.fork()
        if not self._process:
            self._connection.close()
            _serve(source, enter, theirs)
        theirs.close()
        self._home: bytes | None = None

    def init(self, home: Path, options: tuple[str, ...]) -> Driver:
        """Create the driver in it."""
        self._home = os.fsencode(home)
        self._ask("init", (str(home), options))
        return cast(Driver, _Verbs(self._ask))

    def processes(self) -> list[int]:
        """Return the one that was forked."""
        return [self._process] if self._process else []

    def end(self) -> None:
        """Kill it."""
        if self._process:
            kill_tree([self._process], self._home)
            os.waitpid(self._process, 0)
            self._process = 0
            self._connection.close()

    def _ask(self, verb: str, arguments: tuple[Any, ...]) -> Any:
        """Call a verb in it. Raises the driver's exceptions, and NoAnswer."""
        try:
            self._connection.send((verb, arguments))
            if not self._connection.poll(timeout := _TIMEOUT_FACTOR * deadline()):
                hung = NoAnswer(errno.ETIMEDOUT, f"{verb} did not return within {timeout:g} s")
                hung.cause = Cause.HUNG
                raise hung
            failed, answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            died = NoAnswer(errno.EPIPE, f"the process died in {verb}")
            died.cause = Cause.DIED
            raise died from error
        if failed:
            raise answer
        return answer


class _Verbs:
    """The verbs of the driver in the other process."""

    def __init__(self, ask: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self._ask = ask

    def __str__(self) -> str:
        return str(self._ask("__str__", ()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            given = tuple(one.read() if hasattr(one, "read") else one for one in arguments)
            answer = self._ask(name, given)
            return io.BytesIO(answer) if name == "diff" else answer

        return call


def _serve(source: DriverSource, enter: Enter | None, connection: Connection) -> None:
    """The loop of the other process: answer until the pipe is closed."""
    try:
        die_with_parent()
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Objects of the other process are never garbage here, and traversing them copies pages.
        gc.freeze()
        if enter:
            enter()
        driver: Any = None
        while True:
            verb, arguments = connection.recv()
            try:
                if verb == "init":
                    home, options = arguments
                    driver = source.make(Path(home), options)
                    answer = None
                else:
                    answer = _done(driver, verb, arguments)
                reply = pickle.dumps((False, answer))
            except BaseException as error:
                reply = _failure(error)
            connection.send_bytes(reply)
    except BaseException:
        pass  # the caller has closed the pipe
    finally:
        os._exit(0)


def _done(driver: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    if verb == "apply_diff":
        id, parent, data = arguments
        return driver.apply_diff(id, parent, io.BytesIO(data))
    answer = getattr(driver, verb)(*arguments)
    if verb == "diff":
        with answer as stream:
            return stream.read()
    return str(answer) if isinstance(answer, os.PathLike) else answer


def _failure(error: BaseException) -> bytes:
    """Return an exception in a form for the pipe: refusals unchanged, if possible."""
    notes = getattr(error, "__notes__", [])
    if isinstance(error, OSError):
        plain: Exception = OSError(error.errno, str(error.strerror or error), error.filename)
    elif isinstance(error, DriverError):
        plain = DriverError(str(error))
    else:
        plain = Raised(type(error).__name__, str(error))
    for note in notes:
        plain.add_note(note)
    if isinstance(error, (OSError, DriverError)):
        with contextlib.suppress(Exception):
            reply = pickle.dumps((True, error))
            pickle.loads(reply)
            return reply
    return pickle.dumps((True, plain))
