"""One call of a command-line program, with a deadline: its answer, or the reason why there is none.

Programs that mount in user space leave a daemon that inherits their descriptors: a pipe would never
reach its end. Therefore output, including archives, is written to files.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from graphdriver_conformance.drivers import Cause, NoAnswer

__all__ = ["Answer", "DriverProgram", "DriverProgramMissing", "ProgramHung"]

_CHUNK_SIZE = 1 << 20


class DriverProgramMissing(FileNotFoundError):
    """The program is not installed; the message names its package."""


class ProgramHung(NoAnswer):
    """The program did not end within the deadline, or was killed by a signal; names the verb."""

    def __init__(self, *arguments: object, cause: Cause) -> None:
        super().__init__(*arguments)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Answer:
    """The exit status of a program, its output and its error output."""

    status: int
    output: BinaryIO
    complaint: str


class DriverProgram:
    """The program `name` of Debian's package `package`; `deadline` in seconds limits each call."""

    def __init__(
        self,
        name: str,
        package: str,
        deadline: float,
        environment: Mapping[str, str],
        enter: Callable[[], None] | None = None,
    ) -> None:
        """Find it in PATH; `environment` is its complete environment. Raises DriverProgramMissing.

        Every new process calls `enter` before it executes the program.
        """
        found = shutil.which(name)
        if found is None:
            raise DriverProgramMissing(
                errno.ENOENT, f"the program is not installed; apt-get install {package}", name
            )
        self._path = found
        self._name = name
        self._environment = dict(environment)
        self._deadline = deadline
        self._enter = enter

    def run(
        self,
        verb: str,
        arguments: Sequence[str],
        archive: BinaryIO | None = None,
        *,
        enters: bool = True,
    ) -> Answer:
        """Run it, with `archive` as its standard input. Raises ProgramHung.

        If the call is not part of a verb, its process need not call `enter`.

        The caller closes the output. An error while reading `archive` ends the program and is
        raised.
        """
        output = tempfile.TemporaryFile()
        try:
            with tempfile.TemporaryFile() as complaint:
                process: subprocess.Popen[bytes] = subprocess.Popen(
                    [self._path, *arguments],
                    stdin=subprocess.DEVNULL if archive is None else subprocess.PIPE,
                    stdout=output,
                    stderr=complaint,
                    env=self._environment,
                    bufsize=0,
                    start_new_session=True,
                    preexec_fn=self._enter if enters else None,
                )
                if archive is not None and not self._feed(process, archive):
                    process.wait()
                    raise self._too_slow(verb)
                status = self._wait(verb, process)
                complaint.seek(0)
                message = complaint.read().decode("utf-8", "replace").strip()
        except BaseException:
            output.close()
            raise
        output.seek(0)
        return Answer(status, output, message)

    def _feed(self, process: subprocess.Popen[bytes], archive: BinaryIO) -> bool:
        """Write as much of the archive as the program reads; False if it exceeded the deadline."""
        assert process.stdin
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        watchdog = threading.Timer(self._deadline, expire)
        watchdog.start()
        try:
            while chunk := archive.read(_CHUNK_SIZE):
                while chunk:
                    chunk = chunk[process.stdin.write(chunk) :]
        except BrokenPipeError:
            pass  # its exit status shows the reason
        except BaseException:
            _kill(process)
            process.wait()
            raise
        finally:
            watchdog.cancel()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        return not expired.is_set()

    def _wait(self, verb: str, process: subprocess.Popen[bytes]) -> int:
        try:
            status = process.wait(self._deadline)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            raise self._too_slow(verb) from None
        if status < 0:
            name = signal.Signals(-status).name
            raise ProgramHung(
                errno.EPIPE,
                f"{verb}: the program was killed by {name}",
                self._name,
                cause=Cause.DIED,
            )
        return status

    def _too_slow(self, verb: str) -> ProgramHung:
        problem = f"{verb}: no end within {self._deadline:g} s"
        return ProgramHung(errno.ETIMEDOUT, problem, self._name, cause=Cause.HUNG)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and its children, which have their own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
