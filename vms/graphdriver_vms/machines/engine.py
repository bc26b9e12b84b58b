"""Engines: by what a kernel is booted and brought to run a plan."""

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
"""The engines that one can ask for."""


@dataclass(frozen=True, slots=True)
class Task:
    """A plan, as JSON has it, for one kernel; its results go to `directory`."""

    kernel: Kernel
    plan: str
    directory: Path
    on_line: Callable[[str], None]
    report: Callable[[str], None]


class Engine(Protocol):
    """Boots kernels; several threads may call it at once."""

    def conduct(self, task: Task) -> str:
        """Boot the kernel, run the plan, fetch the results; return the kernel's release.

        The machine is gone afterwards, however it ended. Raises MachineFailed, and NotBooted where
        the kernel did not come up.
        """

    def interrupt(self) -> None:
        """End the present step of every machine, as after Ctrl-C."""
