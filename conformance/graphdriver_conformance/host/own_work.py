"""The suite's own work beside the driver: helper programs, and files that tests prepare.

Their errors are not the driver's. As OSErrors they could not be distinguished from errors of a
view, and would be reported as violations.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ProgramMissing", "SuiteError", "own_work", "run_program"]


class SuiteError(Exception):
    """The suite could not do its own part of a test; the message states which, and why."""


class ProgramMissing(SuiteError):
    """A helper program is not installed."""


@contextmanager
def own_work(task: str) -> Iterator[None]:
    """Turn an OSError of the block, which calls no driver, into a SuiteError that names `task`."""
    try:
        yield
    except OSError as error:
        raise SuiteError(f"the suite could not {task}: {error}") from error


def run_program(
    command: Sequence[str | Path], *, check: bool = True, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """Run a helper program to its end, output captured; `options` are those of subprocess.run.

    Raises ProgramMissing; SuiteError if it cannot be started, or with `check` if it fails.
    """
    program = str(command[0])
    if not shutil.which(program):
        raise ProgramMissing(f"the program {program} is not installed")
    try:
        done = subprocess.run(command, check=False, capture_output=True, **options)
    except (OSError, subprocess.SubprocessError) as error:
        raise SuiteError(f"the suite could not run {program}: {error}") from error
    if check and done.returncode:
        message = (
            done.stderr if isinstance(done.stderr, str) else done.stderr.decode(errors="replace")
        )
        shown = " ".join(map(str, command))
        raise SuiteError(f"{shown} ended with {done.returncode}: {message.strip()}")
    return done
