"""The scripts as files, each tested once with the driver of the violation."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

__all__ = ["write_scripts"]

_LONGEST = 120
"""Seconds that a script may take, so that a driver that hangs does not block the run."""


def write_scripts(
    directory: Path,
    scripts: Mapping[str, Sequence[str]],
    prefix: str = "",
    place: str | None = None,
) -> dict[str, str]:
    """Write a script for each requirement, and test it below `place`. Raises OSError.

    `scripts` are the texts for each requirement, the preferred one first. A test may do more than
    call verbs: start threads, kill a process, read a layer's files directly. If the replay of the
    verbs does not reproduce the violation, the script calls the test. Returns the command of each
    script, with a remark if it does not reproduce the violation.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{prefix}{id}.py" for id in scripts]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        tried = list(pool.map(_written, paths, scripts.values(), repeat(place)))
    before = f"TMPDIR={shlex.quote(place)} " if place else ""
    return {
        id: f"{before}python {shlex.quote(str(path))}"
        + ("" if reproduces else "  (did not reproduce it by itself)")
        for id, path, reproduces in zip(scripts, paths, tried, strict=True)
    }


def _written(path: Path, texts: Sequence[str], place: str | None) -> bool:
    """Write the first script that reproduces, otherwise the last; return whether it does."""
    return any(_reproduces(path, text, place) for text in texts)


def _reproduces(path: Path, text: str, place: str | None) -> bool:
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    command = [sys.executable, str(path)]
    env = os.environ | ({"TMPDIR": place} if place else {})
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LONGEST, check=False, env=env)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 1 and b"reproduced" in done.stdout
