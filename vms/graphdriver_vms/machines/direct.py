"""A kernel that is booted directly: one process, which runs the plan and ends.

Lines of its console that begin with `@` report the progress: `@kernel RELEASE` when its user space
runs, `@cell NAME`, and at the end `@end CODE` with the exit code of the guest's part.
"""

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphdriver_vms.errors import MachineFailed, NotBooted
from graphdriver_vms.machines.engine import Task
from graphdriver_vms.machines.surroundings import end, lines_of

__all__ = ["DirectBoot"]

_TAIL = 6


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """How one kernel is booted: the command, its environment, the file with its console.

    Its user space has to run after `boot_limit` seconds; it may be silent for `silence` seconds.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    console: Path
    directory: Path
    boot_limit: float = 180
    silence: float = 1200

    def run(self, task: Task, interrupted: threading.Event) -> str:
        """Boot it and wait for its end; return the release. Raises MachineFailed, NotBooted."""
        name = task.kernel.name
        release, code, problem = "", "", ""
        tail: list[str] = []
        process = self._start(name)

        until = time.monotonic() + self.boot_limit

        def watch() -> str:
            if interrupted.is_set():
                return "was interrupted"
            late = not release and time.monotonic() > until
            return f"no user space after {self.boot_limit:.0f} s" if late else ""

        try:
            with self.console.open("w", encoding="utf-8") as console:
                lines = lines_of(process, self.silence, watch)
                for raw in lines:
                    line = raw.rstrip("\r")
                    console.write(f"{line}\n")
                    console.flush()
                    word, _, rest = line.partition(" ")
                    if word == "@kernel":
                        release = rest.strip()
                    elif word == "@end":
                        code = rest.strip()
                    else:
                        tail = [*tail, line][-_TAIL:]
                        task.on_line(line)
        except TimeoutError as error:
            problem = str(error)
        finally:
            end(process)
        if release and code == "0":
            return release
        reason = problem or (f"the guest's part ended with {code}" if code else "the kernel ended")
        shown = "".join(f"\n    console: {line[:100]}" for line in tail if line.strip())
        failure = MachineFailed if release else NotBooted
        booted = "" if release else "did not boot: "
        raise failure(f"{name}: {booted}{reason}{shown}", f"see {self.console}")

    def _start(self, name: str) -> "subprocess.Popen[str]":
        try:
            return subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=dict(self.environment),
                cwd=self.directory,
                start_new_session=True,
            )
        except OSError as error:
            raise NotBooted(f"{name}: {self.command[0]}: {error.strerror}") from None
