"""Engines, which boot a kernel and run a plan on it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from graphdriver_vms.kernels import Kernel

__all__ = ["CHOICES", "Engine", "EngineName", "Task"]


class EngineName(StrEnum):
    """The engines: those of `graphdriver matrix run --engine`, and QEMU for a bzImage."""

    VAGRANT = "vagrant"
    UML = "uml"
    QEMU = "qemu"


CHOICES = (EngineName.VAGRANT, EngineName.UML)
"""The engines for `--engine`."""


@dataclass(frozen=True, slots=True)
class Task:
    """A plan, as JSON data, for one kernel; its results are written to `directory`."""

    kernel: Kernel
    plan: str
    directory: Path
    on_line: Callable[[str], None]
    report: Callable[[str], None]


class Engine(Protocol):
    """Boots kernels; several threads may call it concurrently."""

    def run_task(self, task: Task) -> str:
        """Boot the kernel, run the plan, fetch the results; return the kernel's release.

        The machine is destroyed afterwards in every case. Raises MachineFailed, and NotBooted if
        the kernel did not boot.
        """

    def interrupt(self) -> None:
        """End the current step of every machine, as after Ctrl-C."""
