"""The scripts as files, each tried once against the driver that it is about."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from graphdriver_conformance.results.outcome import Judgement

__all__ = ["Script", "write_scripts"]

_LONGEST = 120
"""Seconds that a script may take; a driver that hangs does not hang the run."""


@dataclass(frozen=True, slots=True)
class Script:
    """A file, whether it reproduced the violation when it was tried, and by which command."""

    path: Path
    reproduces: bool
    command: str


def write_scripts(
    directory: Path, judged: Iterable[Judgement], prefix: str = "", place: str | None = None
) -> dict[str, Script]:
    """Write a script for each violation that has one, and try it below `place`. Raises OSError.

    A test may do more than call verbs: start threads, kill a process, read a layer's files behind
    the driver. Where the verbs replayed do not show the violation, the script calls the test.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {
        directory / f"{prefix}{one.requirement.id}.py": one
        for one in judged
        if one.script or one.check_script
    }
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        tried = pool.map(_written, wanted, wanted.values(), repeat(place))
    before = f"TMPDIR={shlex.quote(place)} " if place else ""
    return {
        one.requirement.id: Script(path, did, f"{before}python {shlex.quote(str(path))}")
        for (path, one), did in zip(wanted.items(), tried, strict=True)
    }


def _written(path: Path, one: Judgement, place: str | None) -> bool:
    """Write the first script that reproduces, otherwise the last; say whether it does."""
    texts = [text for text in (one.script, one.check_script) if text]
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
