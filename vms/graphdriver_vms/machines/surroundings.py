"""The environment of a run's machines, and steps of Vagrant in it, each under a watchdog."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from graphdriver_vms.kernels import data_file
from graphdriver_vms.machines.provider import VARIABLE, chosen_provider

__all__ = ["PREFIX", "Surroundings", "end", "lines_of", "run_step", "wait_for"]

PREFIX = "graphdriver-"
"""The prefix of all names of the matrix in libvirt."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The environment of a run's machines: cache, scratch for Vagrant, and logs.

    `uri` is that of libvirt on another host, "" for this host; `kvm` is whether it offers KVM, and
    `files` are the paths of vmlinuz and initrd there. `processors` are those of a machine.
    """

    cache: Path
    state: Path
    logs: Path
    uri: str = ""
    kvm: bool = False
    processors: int = 1
    files: tuple[tuple[str, str], ...] = ()

    @property
    def prefix(self) -> str:
        """The prefix of this run's names in libvirt, which concurrent runs also use."""
        return f"{PREFIX}{self.state.name.removeprefix('run-')}-"

    @property
    def payload(self) -> Path:
        """The directory that is copied into the guests; each run has a separate one."""
        return self.state / "payload"

    def log(self, name: str) -> Path:
        """Return the file for Vagrant's output about a machine."""
        return self.logs / f"{name}.vagrant.log"

    def environment(self) -> dict[str, str]:
        """Return the variables that the Vagrantfile and Vagrant read."""
        elsewhere = {"GRAPHDRIVER_MATRIX_URI": self.uri} if self.uri else {}
        if self.uri and not os.environ.get("GRAPHDRIVER_MATRIX_KVM"):
            elsewhere["GRAPHDRIVER_MATRIX_KVM"] = str(int(self.kvm))
        # A console on another host cannot be read from here.
        consoles = {} if self.uri else {"GRAPHDRIVER_MATRIX_CONSOLES": str(self.logs)}
        return {
            **os.environ,
            **elsewhere,
            **consoles,
            **{f"GRAPHDRIVER_MATRIX_{name.upper()}": place for name, place in self.files},
            "GRAPHDRIVER_MATRIX_PREFIX": self.prefix,
            "GRAPHDRIVER_MATRIX_PROCESSORS": str(self.processors),
            "GRAPHDRIVER_MATRIX_CACHE": str(self.cache),
            "GRAPHDRIVER_MATRIX_PAYLOAD": str(self.payload),
            "VAGRANT_HOME": str(self.cache / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(self.state / "machines"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_PARALLEL": "1",
            VARIABLE: chosen_provider(),
        }


def run_step(
    where: Surroundings,
    step: tuple[str, str],
    log: Path,
    limit: float,
    watch: Callable[[], str],
) -> tuple[str, str]:
    """Run a step of Vagrant, (step, machine); return its output, and the reason if it failed.

    It is ended after `limit` seconds, and as soon as `watch` returns a reason.
    """
    if problem := watch():
        return "", problem
    vagrantfile = data_file("Vagrantfile").parent
    command = [sys.executable, "-m", "graphdriver_vms.machines.step", str(vagrantfile), *step]
    with log.open("ab") as out:
        begin = out.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
            env=where.environment(),
            # Ctrl-C is then handled here, and the step can be ended with all its children.
            start_new_session=True,
        )
        output, problem = wait_for(process, limit, watch)
    if not problem and process.returncode:
        words = _last_words(log.read_bytes()[begin:].decode("utf-8", "replace"))
        problem = f"ended with {process.returncode}: {words}"
    return output, problem


def _last_words(text: str) -> str:
    """Return the line of Vagrant's output with the error."""
    lines = text.replace("\r", "\n").splitlines()
    messages = [one.strip() for one in lines if one.strip() and not one.startswith(("==>", " "))]
    errors = [one for one in messages if "rror" in one]
    return (errors or messages or ["it printed nothing"])[-1][:300]


def wait_for(
    process: "subprocess.Popen[str]", limit: float, watch: Callable[[], str]
) -> tuple[str, str]:
    """Wait for a process; return its output, and the reason if it was ended."""
    until = time.monotonic() + limit
    try:
        while True:
            try:
                return process.communicate(timeout=0.5)[0], ""
            except subprocess.TimeoutExpired:
                problem = watch()
                if not problem and time.monotonic() > until:
                    problem = f"did not end in {limit:.0f} s"
                if problem:
                    end(process)
                    return "", problem
    except BaseException:
        end(process)
        raise


def end(process: "subprocess.Popen[str]") -> None:
    """End a step and all its children: Vagrant cleans up on the first signal, if it can."""
    for number, timeout in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=timeout)
            return


def lines_of(
    process: "subprocess.Popen[str]", silence: float, watch: Callable[[], str]
) -> Iterator[str]:
    """Yield the lines of a process. Raises TimeoutError if it is silent too long, or watched."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    pending, heard = b"", time.monotonic()
    while True:
        if problem := watch():
            raise TimeoutError(problem)
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
