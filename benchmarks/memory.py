"""Peak memory of verbs, above that of an idle interpreter with the driver loaded."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import trees
from benchmarks.comparisons import apply_file, drain
from benchmarks.workspace import Record, Workspace
from graphdriver.overlay2 import Driver

__all__ = ["peaks"]


def peaks(workspace: Workspace, record: Record) -> None:
    """Measure diff, apply and changes of many small files, and of a large one."""
    sizes = workspace.sizes
    for number, (title, plant) in enumerate(
        (
            (f"{sizes.files:,} files of 1 KiB", partial(trees.many, files=sizes.files)),
            (f"one file of {sizes.big >> 20:,} MiB", partial(trees.big, size=sizes.big)),
        )
    ):
        _, archive = workspace.archive(plant)
        home = workspace.place / f"peak{number}"
        setup = Driver(home)
        for layer in ("packed", "fresh"):
            setup.create(layer)
        apply_file(setup, "packed", "", archive)
        for verb, work in (
            ("diff", lambda driver: drain(driver, "packed")),
            ("apply", lambda driver: apply_file(driver, "fresh", "", archive)),  # noqa: B023
            ("changes", lambda driver: driver.changes("packed")),
        ):
            record.memory[f"{verb}, {title}"] = peak_above_idle(home, work)


def peak_above_idle(home: Path, work: Callable[[Driver], object]) -> float:
    """Run `work` in a child and return its peak resident set less an idle child's, in MiB."""
    return (_peak(home, work) - _peak(home, lambda _driver: None)) / 1024


def _peak(home: Path, work: Callable[[Driver], object]) -> int:
    """Return ru_maxrss in KiB of a child that opens the home and runs `work`."""
    child = os.fork()
    if not child:
        status = 1
        try:
            # A fork inherits the parent's peak; writing 5 resets it to the current value.
            Path("/proc/self/clear_refs").write_text("5")
            work(Driver(home))
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
            Path(f"{home}.peak").write_text(str(peak))
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("the measured child failed; its message is above")
    return int(Path(f"{home}.peak").read_text())
