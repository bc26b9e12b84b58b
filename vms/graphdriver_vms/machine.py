"""One machine: up, run, collect, destroy; every step under a watchdog, everything logged."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from graphdriver_vms.errors import MachineFailed
from graphdriver_vms.kernels import data_file

__all__ = ["Machine", "Surroundings"]

# Seconds. Under emulation, with two machines on two cores, an `up` takes 30 to 100.
_UP, _STEP, _SILENCE = 420, 240, 1200
_BOOT_FAILED = re.compile(r"graphdriver-guest: FAILED.*|Kernel panic.*|end Kernel panic.*")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the machines of a run are: cache, scratch for Vagrant, place of the logs."""

    cache: Path
    state: Path
    logs: Path

    @property
    def payload(self) -> Path:
        """What is copied into the guests; each run has its own."""
        return self.state / "payload"

    def environment(self) -> dict[str, str]:
        """Return the variables that the Vagrantfile and Vagrant read."""
        return {
            **os.environ,
            "GRAPHDRIVER_MATRIX_CACHE": str(self.cache),
            "GRAPHDRIVER_MATRIX_PAYLOAD": str(self.payload),
            "GRAPHDRIVER_MATRIX_CONSOLES": str(self.logs),
            "VAGRANT_HOME": str(self.cache / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(self.state / "machines"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_PARALLEL": "1",
            "VAGRANT_DEFAULT_PROVIDER": os.environ.get("VAGRANT_DEFAULT_PROVIDER", "libvirt"),
        }


class Machine:
    """A machine of the Vagrantfile. `up` first; `destroy` in every case."""

    _interrupted = threading.Event()

    @classmethod
    def interrupt_all(cls) -> None:
        """End the present step of every machine, as after Ctrl-C; they can still be destroyed."""
        cls._interrupted.set()

    def __init__(self, name: str, where: Surroundings) -> None:
        self.name = name
        self._where = where
        self._log = where.logs / f"{name}.vagrant.log"
        self._console = where.logs / f"{name}.console"
        self._ssh_config = where.state / f"{name}.ssh"
        self._vagrantfile = data_file("Vagrantfile").parent

    def up(self) -> None:
        """Bring it up. Raises MachineFailed with the tail of its console."""
        self._console.unlink(missing_ok=True)
        self._vagrant("up", _UP, watch=self._boot_failure)
        self._ssh_config.write_text(self._vagrant("ssh-config", _STEP))

    def kernel(self) -> str:
        """Return the release of the kernel that answers."""
        return self._ssh(["uname", "-r"], _STEP).strip()

    def run(self, plan: str, on_line: Callable[[str], None], root: str = "") -> None:
        """Run a plan in it, telling `on_line` what it says. Raises MachineFailed."""
        self._ssh(["sh -c 'cat > /tmp/plan.json'"], _STEP, given=plan)
        command = (
            "sudo env PYTHONPATH=/opt/graphdriver/site-packages LC_ALL=C.UTF-8 "
            "python3 -m graphdriver_vms.guest /tmp/plan.json /var/tmp/results"
        )
        with self._ssh_process([command]) as process:
            try:
                for line in _lines(process, _SILENCE, self._interruption):
                    on_line(line)
            except TimeoutError as error:
                _end(process)
                raise MachineFailed(
                    f"{self.name}: {error}{self._tail()}", f"see {self._log}"
                ) from None
        if process.returncode:
            raise MachineFailed(
                f"{self.name}: the guest's part ended with {process.returncode}{self._tail()}",
                f"see {self._log}",
            )

    def collect(self, target: Path) -> None:
        """Fetch what the run left. Raises MachineFailed."""
        target.mkdir(parents=True, exist_ok=True)
        archive = subprocess.Popen(
            [*self._ssh_command(), "sudo tar -C /var/tmp/results -cf - ."], stdout=subprocess.PIPE
        )
        unpacked = subprocess.run(
            ["tar", "-C", target, "--no-same-owner", "-xf", "-"],
            stdin=archive.stdout,
            capture_output=True,
            timeout=_STEP,
            check=False,
        )
        if archive.wait(_STEP) or unpacked.returncode:
            raise MachineFailed(
                f"{self.name}: results not collected: {unpacked.stderr.decode()[-300:]}"
            )

    def destroy(self) -> None:
        """Destroy it, whatever state it is in. Raises MachineFailed."""
        self._vagrant("destroy", _STEP, watch=lambda: "")

    def _vagrant(self, step: str, limit: float, watch: Callable[[], str] | None = None) -> str:
        command = [sys.executable, "-m", "graphdriver_vms.step", str(self._vagrantfile)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*command, step, self.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._where.environment(),
                # So that Ctrl-C is ours to handle, and the step can be ended as a whole.
                start_new_session=True,
            )
            said, trouble = _wait(process, limit, watch or self._interruption)
        if trouble or process.returncode:
            reason = trouble or f"ended with {process.returncode}: {self._last_words()}"
            raise MachineFailed(
                f"{self.name}: vagrant {step} {reason}{self._tail()}", f"see {self._log}"
            )
        return said

    def _interruption(self) -> str:
        return "was interrupted" if self._interrupted.is_set() else ""

    def _boot_failure(self) -> str:
        if self._interrupted.is_set():
            return self._interruption()
        with contextlib.suppress(OSError):
            found = _BOOT_FAILED.search(self._console.read_text("utf-8", "replace"))
            return f"saw the guest fail: {found[0]}" if found else ""
        return ""

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").replace("\r", "\n").splitlines()
        told = [one.strip() for one in lines if one.strip() and not one.startswith(("==>", " "))]
        errors = [one for one in told if "rror" in one and "Traceback" not in one]
        return (errors or told or ["it said nothing"])[-1][:300]

    def _tail(self) -> str:
        if self._interrupted.is_set():
            return ""
        try:
            lines = self._console.read_text("utf-8", "replace").splitlines()[-6:]
        except OSError:
            return ""
        return "".join(f"\n    console: {line[:100]}" for line in lines)

    def _ssh_command(self) -> list[str]:
        options = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8"]
        return ["ssh", "-F", str(self._ssh_config), "-o", "LogLevel=ERROR", *options, self.name]

    def _ssh_process(self, command: list[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._ssh_command(), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def _ssh(self, command: list[str], limit: float, given: str | None = None) -> str:
        try:
            done = subprocess.run(
                [*self._ssh_command(), *command],
                input=given or "",
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise MachineFailed(f"{self.name}: no answer to {command[0]} in {limit} s") from None
        if done.returncode:
            raise MachineFailed(f"{self.name}: {command[0]} failed: {done.stderr.strip()[-300:]}")
        return done.stdout


def _wait(
    process: "subprocess.Popen[str]", limit: float, watch: Callable[[], str]
) -> tuple[str, str]:
    """Wait for a process; return what it said, and why it was ended if it was."""
    until = time.monotonic() + limit
    try:
        while True:
            try:
                return process.communicate(timeout=0.5)[0], ""
            except subprocess.TimeoutExpired:
                trouble = watch()
                if not trouble and time.monotonic() > until:
                    trouble = f"did not end in {limit:.0f} s"
                if trouble:
                    _end(process)
                    return "", trouble
    except BaseException:
        _end(process)
        raise


def _end(process: "subprocess.Popen[str]") -> None:
    """End a step and all that it started: Vagrant cleans up on the first signal, if it can."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=patience)
            return


def _lines(
    process: "subprocess.Popen[str]", silence: float, watch: Callable[[], str]
) -> Iterator[str]:
    """Yield the lines of a process. Raises TimeoutError once it is silent too long, or watched."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    pending, heard = b"", time.monotonic()
    while True:
        if trouble := watch():
            raise TimeoutError(trouble)
        if time.monotonic() - heard > silence:
            raise TimeoutError(f"silent for {silence:.0f} s")
        if not select.select([stream], [], [], 1)[0]:
            continue
        data = os.read(stream, 65536)
        if not data:
            return
        heard = time.monotonic()
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
