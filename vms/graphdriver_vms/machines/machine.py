"""One machine: up, run, collect, destroy; every step under a watchdog, everything logged."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from graphdriver_vms.errors import MachineFailed
from graphdriver_vms.machines.surroundings import Surroundings, end, lines_of, run_step, wait_for

__all__ = ["Machine"]

# Seconds; the limit of `up` depends on the kind of machine.
_STEP, _SILENCE = 240, 1200
_BOOT_FAILED = re.compile(r"graphdriver-guest: FAILED.*|Kernel panic.*|end Kernel panic.*")
_ENVIRONMENT = "PYTHONPATH=/opt/graphdriver/site-packages LC_ALL=C.UTF-8"
_PLAN, _RESULTS = "/var/tmp/plan.json", "/var/tmp/results"
# With these options a current OpenSSH can connect to servers of ten years ago, which sign with
# SHA-1 only.
_OLD_SSH = ("-o", "PubkeyAcceptedKeyTypes=+ssh-rsa", "-o", "HostKeyAlgorithms=+ssh-rsa")


class Machine:
    """A machine of the Vagrantfile, with the box built here. Call `destroy` in every case."""

    # Under emulation, with two machines on two cores, an `up` takes 30 to 100 seconds.
    up_limit: ClassVar[int] = 420
    # The guest's root file system in the machine, and the command that enters it.
    root: ClassVar[str] = ""
    enter: ClassVar[str] = ""
    _interrupted = threading.Event()

    @classmethod
    def interrupt_all(cls) -> None:
        """End the current step of every machine, as after Ctrl-C; they can still be destroyed."""
        cls._interrupted.set()

    def __init__(self, name: str, where: Surroundings) -> None:
        self.name = name
        self._where = where
        self._log = where.log(name)
        self._console = where.logs / f"{name}.console"
        self._ssh_config = where.state / f"{name}.ssh"

    def up(self) -> None:
        """Boot it. Raises MachineFailed with the tail of its console."""
        self._console.unlink(missing_ok=True)
        self._vagrant("up", self.up_limit, watch=self._boot_failure)
        self._ssh_config.write_text(self._vagrant("ssh-config", _STEP))

    def kernel(self) -> str:
        """Return the release of the running kernel."""
        return self._ssh("uname -r").strip()

    def prepare(self, report: Callable[[str], None]) -> None:
        """Copy files that box and `up` did not provide: none for this box. Raises MachineFailed."""

    def join(self) -> str:
        """Prepare it for pytest-xdist, and return its `--tx`. Raises MachineFailed."""
        self._ssh("sudo modprobe -a overlay loop || true")
        python = f"sudo {self.enter} env {_ENVIRONMENT} python3".replace("  ", " ")
        return f"ssh={self.name}//ssh_config={self._ssh_config}//python={python}//chdir=/var/tmp"

    def run(self, plan: str, on_line: Callable[[str], None]) -> None:
        """Run a plan in it, passing its output to `on_line`. Raises MachineFailed."""
        self._ssh(f"sudo sh -c 'cat > {self.root}{_PLAN}'", given=plan)
        command = (
            f"sudo {self.enter} env {_ENVIRONMENT} python3 "
            f"-m graphdriver_vms.guest {_PLAN} {_RESULTS}"
        )
        with self._ssh_process(command) as process:
            try:
                for line in lines_of(process, _SILENCE, self._interruption):
                    on_line(line)
            except TimeoutError as error:
                end(process)
                raise MachineFailed(
                    f"{self.name}: {error}{self._tail()}", f"see {self._log}"
                ) from None
        if process.returncode:
            raise MachineFailed(
                f"{self.name}: the guest's part ended with {process.returncode}{self._tail()}",
                f"see {self._log}",
            )

    def collect(self, target: Path) -> None:
        """Fetch the results. Raises MachineFailed."""
        target.mkdir(parents=True, exist_ok=True)
        sending = self._ssh_process(
            f"sudo tar -C {self.root}{_RESULTS} -cf - .", stderr=subprocess.DEVNULL
        )
        assert sending.stdout is not None
        # In every case, no ssh process may be left that waits for a reader.
        try:
            unpacking = subprocess.Popen(
                ["tar", "-C", target, "--no-same-owner", "-xf", "-"],
                stdin=sending.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            # Only the reader keeps the pipe open, so ssh notices when it is closed.
            sending.stdout.close()
            sending.stdout = None
            _, problem = wait_for(unpacking, _STEP, self._interruption)
            if not problem and not unpacking.returncode:
                _, problem = wait_for(sending, _STEP, self._interruption)
        finally:
            if sending.poll() is None:
                end(sending)
        codes = (sending.returncode, unpacking.returncode)
        if problem or any(codes):
            reason = problem or f"ssh and tar ended with {codes[0]} and {codes[1]}"
            raise MachineFailed(f"{self.name}: results not collected: {reason}")

    def destroy(self) -> None:
        """Destroy it, in any state. Raises MachineFailed."""
        self._vagrant("destroy", _STEP, watch=lambda: "")

    def _vagrant(self, step: str, limit: float, watch: Callable[[], str] | None = None) -> str:
        output, problem = run_step(
            self._where, (step, self.name), self._log, limit, watch or self._interruption
        )
        if problem:
            raise MachineFailed(
                f"{self.name}: vagrant {step} {problem}{self._tail()}", f"see {self._log}"
            )
        return output

    def _interruption(self) -> str:
        return "was interrupted" if self._interrupted.is_set() else ""

    def _boot_failure(self) -> str:
        if self._interrupted.is_set():
            return self._interruption()
        with contextlib.suppress(OSError):
            found = _BOOT_FAILED.search(self._console.read_text("utf-8", "replace"))
            return f"reported a failure of the guest: {found[0]}" if found else ""
        return ""

    def _tail(self) -> str:
        if self._interrupted.is_set():
            return ""
        try:
            lines = self._console.read_text("utf-8", "replace").splitlines()[-6:]
        except OSError:
            return ""
        return "".join(f"\n    console: {line[:100]}" for line in lines)

    def _ssh_command(self) -> list[str]:
        options = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8", *_OLD_SSH]
        return ["ssh", "-F", str(self._ssh_config), "-o", "LogLevel=ERROR", *options, self.name]

    def _ssh_process(
        self, command: str, given: int = subprocess.DEVNULL, stderr: int = subprocess.STDOUT
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._ssh_command(), command],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def _send(self, command: str, given: int, limit: float) -> None:
        """Run a command in it that reads the file `given`. Raises MachineFailed."""
        process = self._ssh_process(command, given)
        output, problem = wait_for(process, limit, self._interruption)
        if problem or process.returncode:
            reason = problem or f"failed: {output.strip()[-300:]}"
            raise MachineFailed(f"{self.name}: {command} {reason}", f"see {self._log}")

    def _ssh(self, command: str, given: str = "") -> str:
        try:
            done = subprocess.run(
                [*self._ssh_command(), command],
                input=given,
                capture_output=True,
                text=True,
                timeout=_STEP,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise MachineFailed(f"{self.name}: no answer to {command} in {_STEP} s") from None
        if done.returncode:
            raise MachineFailed(f"{self.name}: {command} failed: {done.stderr.strip()[-300:]}")
        return done.stdout
