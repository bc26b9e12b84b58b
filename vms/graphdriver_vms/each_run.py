"""`matrix each`: pytest-xdist's `--dist each` over machines with a kernel each.

The suite runs on all of them at the same time, controlled by one pytest on this host.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from graphdriver_vms.kernels import Kernel
from graphdriver_vms.machines.engine import Task
from graphdriver_vms.machines.vagrant import VagrantEngine
from graphdriver_vms.progress import Progress

__all__ = ["XDIST", "command_of", "run_each"]

XDIST = "pytest-xdist"
"""The packages that the guests need in addition to the suite."""

_HOME = "/var/tmp"


def run_each(
    kernels: Sequence[Kernel],
    engine: VagrantEngine,
    arguments: Sequence[str],
    out: Path,
    progress: Progress,
) -> int:
    """Boot the kernels and run pytest over them; return its exit code. Machines are destroyed.

    `engine` must have a lane for each. Raises MachineFailed.
    """
    with ExitStack() as stack:
        places: list[str] = []
        releases: dict[str, str] = {}
        for kernel in kernels:
            task = _task(kernel, out, progress)
            machine, releases[kernel.name] = stack.enter_context(engine.booted(task))
            machine.prepare(task.report)
            places.append(machine.join())
            progress.say(kernel.name, f"ready, {releases[kernel.name]}")
        (out / "kernels.json").write_text(json.dumps(releases, indent=1) + "\n")
        done = subprocess.run(command_of(places, arguments, out), cwd=out, check=False)
        return done.returncode


def command_of(places: Sequence[str], arguments: Sequence[str], out: Path) -> list[str]:
    """Return the pytest command; each machine has a file each-NAME.json, and each.html has all."""
    return [
        *(sys.executable, "-m", "pytest", "--dist=each", "-p", "no:cacheprovider"),
        *(f"--tx={place}" for place in places),
        *(f"--graphdriver-home={_HOME}", f"--graphdriver-report={out}/each.json"),
        *(f"--graphdriver-html={out}/each.html", *arguments),
    ]


def _task(kernel: Kernel, out: Path, progress: Progress) -> Task:
    def report(text: str) -> None:
        progress.say(kernel.name, text)

    return Task(kernel, "", out, report, report)
