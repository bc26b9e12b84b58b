"""Descriptors, threads and children of a process, counted to find what a driver leaves."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

__all__ = ["resources"]


def resources(process: int) -> Counter[str]:
    """Count the resources of a process, of this one if the driver's process is not visible."""
    place = Path("/proc", str(process) if process else "self")
    found: Counter[str] = Counter()
    for descriptor in (place / "fd").iterdir():
        with suppress(FileNotFoundError):
            found[f"descriptor {os.readlink(descriptor).partition(':')[0]}"] += 1
    for task in (place / "task").iterdir():
        found["thread"] += 1
        with suppress(FileNotFoundError):
            found["child"] += len((task / "children").read_text().split())
    return found
