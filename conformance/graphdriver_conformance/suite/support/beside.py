"""Preparations of tests beside the home: directories, file systems, and helper programs.

They do not call the driver, so their errors are not the driver's (`host.own_work`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host import mountinfo, syscalls
from graphdriver_conformance.host.environment import umount
from graphdriver_conformance.host.own_work import ProgramMissing, own_work
from graphdriver_conformance.host.own_work import run_program as _run_program
from graphdriver_conformance.oracle.plant import plant
from graphdriver_conformance.oracle.tree import Tree

__all__ = [
    "bind_mounted",
    "directory_beside",
    "importing_as_here",
    "mount_beside",
    "option_prefix",
    "run_program",
    "started",
]


def directory_beside(graphdriver: Subject, name: str, tree: Tree | None = None) -> Path:
    """Create a directory beside the home with `tree`; it is removed when the test ends."""
    made = graphdriver.home.parent / name
    with own_work(f"make {made}"):
        made.mkdir()
        plant(tree or Tree(), made)
    return made


def run_program(
    graphdriver: Subject, command: Sequence[str | Path], **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """Run a helper program; the requirement is not provable if it is not installed."""
    try:
        return _run_program(command, **options)
    except ProgramMissing as error:
        graphdriver.not_provable(str(error))


def mount_beside(graphdriver: Subject, type: str, options: str, source: str = "") -> Path:
    """Mount a file system beside the home; the end of the test unmounts it."""
    point = directory_beside(graphdriver, "disk")
    try:
        syscalls.mount(source or type, point, type, 0, options)
    except OSError as error:
        graphdriver.not_provable(f"no {type} can be mounted with {options}: {error.strerror}")
    return point


def importing_as_here() -> dict[str, str]:
    """Return the environment in which another Python finds the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


@contextmanager
def bind_mounted(source: Path, point: Path) -> Iterator[None]:
    """Bind-mount `source` to `point` for the duration of the block.

    The mount is found by its device: a removal may have renamed the directory above it.
    """
    with own_work(f"bind {source} to {point}"):
        syscalls.mount(str(source), point, "none", syscalls.MountFlag.BIND)
        bound = mountinfo.mounts_at(point)[-1]
    where = (bound.device, bound.root)
    try:
        yield
    finally:
        for row in mountinfo.read():
            if (row.device, row.root) == where:
                umount(row.point)


def option_prefix(graphdriver: Subject) -> str:
    """Return the prefix of the driver's options: the declared one, otherwise its name."""
    return str(getattr(graphdriver.driver, "option_prefix", None) or graphdriver.driver)


@contextmanager
def started(
    graphdriver: Subject, command: Sequence[str | Path], **options: Any
) -> "Iterator[subprocess.Popen[bytes]]":
    """Start a helper program with pipes for input and output; killed if the block fails."""
    if not shutil.which(command[0]):
        graphdriver.not_provable(f"the program {command[0]} is not installed")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
