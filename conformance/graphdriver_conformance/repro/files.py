"""The scripts as files, each tried once against the driver that it is about."""

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from graphdriver_conformance.outcome import Judgement

__all__ = ["Script", "write_scripts"]

_LONGEST = 120
"""Seconds that a script may take; a driver that hangs does not hang the run."""


@dataclass(frozen=True, slots=True)
class Script:
    """A file, and whether it reproduced the violation when it was tried."""

    path: Path
    reproduces: bool


def write_scripts(
    directory: Path, judged: Iterable[Judgement], prefix: str = ""
) -> dict[str, Script]:
    """Write a script for each violation that has one, and try it. Raises OSError.

    A test may do more than call verbs: kill a process, read a layer's files behind the driver. What
    its script shows then is not the violation, and the run says so.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = {}
    for one in judged:
        if one.script:
            path = directory / f"{prefix}{one.requirement.id}.py"
            path.write_text(one.script, "utf-8")
            path.chmod(0o755)
            written[one.requirement.id] = path
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        tried = pool.map(_reproduces, written.values())
    return {id: Script(path, did) for (id, path), did in zip(written.items(), tried, strict=True)}


def _reproduces(path: Path) -> bool:
    command = [sys.executable, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 1 and b"reproduced" in done.stdout
