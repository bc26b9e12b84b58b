"""A plugin that the suite starts, kills and restarts: `plugin+exec:COMMAND`.

COMMAND reads the path of its socket from $GRAPHDRIVER_SOCKET. It is split into words as by a shell
and run without a shell; the program is searched beside this Python, then in PATH. It runs in the
run's mount namespace, so its mounts are visible to the suite and end with the run.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from graphdriver_conformance.drivers import Cause, deadline
from graphdriver_conformance.drivers.plugin.client import PluginUnreachable

__all__ = ["PluginProcess", "words_of"]

# A unix socket's path has at most 107 bytes, which a long TMPDIR would exceed.
_LONGEST_TMPDIR = 60
_BETWEEN_LOOKS = 0.005
# The amount of its output in a violation: lines, and bytes in which they are searched.
_MOST_LINES, _MOST_OUTPUT = 12, 16 << 10
# Starting an interpreter on a busy machine takes longer than a call may: seconds.
_LEAST_START = 30.0


def words_of(command: str) -> list[str]:
    """Return the words of `command`, its program with a path. Raises ValueError, one sentence."""
    words = shlex.split(command)
    if not words:
        raise ValueError("there is no command; write plugin+exec:COMMAND")
    beside = os.path.dirname(sys.executable)
    program = shutil.which(words[0], path=beside) or shutil.which(words[0])
    if program is None:
        raise ValueError(f"there is no program {words[0]} in PATH; name it with its path")
    return [program, *words[1:]]


class PluginProcess:
    """A running plugin and its socket. Raises PluginUnreachable if it does not start to listen.

    The new process calls `enter` before it executes the plugin.
    """

    def __init__(self, words: list[str], enter: Callable[[], None] | None = None) -> None:
        self.name = Path(words[0]).name
        short = len(tempfile.gettempdir()) <= _LONGEST_TMPDIR
        self._directory = Path(
            tempfile.mkdtemp(prefix="graphdriver-plugin-", dir=None if short else "/tmp")
        )
        self.socket = self._directory / "plugin.sock"
        self._log = self._directory / "log"
        try:
            with self._log.open("wb") as log:
                # A process group of its own: the command's children are killed with it, and Ctrl-C
                # is not sent to it.
                self._process = subprocess.Popen(
                    words,
                    env={**os.environ, "GRAPHDRIVER_SOCKET": str(self.socket)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=enter,
                )
            self._await_socket()
        except BaseException:
            self.end(killed=True)
            raise

    @property
    def id(self) -> int:
        """The process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Say whether it runs."""
        return self._process.poll() is None

    def exit_message(self) -> str:
        """Return how it ended and its last output, "" while it runs."""
        try:
            # A connection breaks shortly before the process has ended.
            status = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            return ""
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"the plugin {how}{self._last_words()}"

    def end(self, *, killed: bool) -> None:
        """End it with SIGTERM, after `deadline` seconds or when `killed` with SIGKILL."""
        process = getattr(self, "_process", None)
        if process is not None:
            if not killed:
                process.terminate()
                try:
                    process.wait(deadline())
                except subprocess.TimeoutExpired:
                    killed = True
            self._kill_group()
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _await_socket(self) -> None:
        timeout = max(_LEAST_START, deadline())
        limit = time.monotonic() + timeout
        while not self._listens():
            if not self.is_running():
                raise PluginUnreachable(
                    f"{self.exit_message()} before it listened on $GRAPHDRIVER_SOCKET",
                    cause=Cause.DIED,
                )
            if time.monotonic() > limit:
                raise PluginUnreachable(
                    f"the plugin does not listen on $GRAPHDRIVER_SOCKET after {timeout:g} s"
                    f"{self._last_words()}",
                    cause=Cause.HUNG,
                )
            time.sleep(_BETWEEN_LOOKS)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            return probe.connect_ex(os.fspath(self.socket)) == 0

    def last_output(self) -> list[str]:
        """Return the last lines that it printed, on standard output or standard error."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _MOST_OUTPUT))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return [line.rstrip()[:300] for line in lines if line.strip()][-_MOST_LINES:]

    def keep_output(self, path: Path) -> None:
        """Copy its output to a file."""
        if self._log.exists():
            shutil.copyfile(self._log, path)

    def _last_words(self) -> str:
        lines = self.last_output()
        return f" (its last output: {lines[-1].strip()})" if lines else ""
