"""Cost by size: the number of layers in a home, and of mounts on the host."""

import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.comparison import Aim, Candidate, Comparison
from benchmarks.comparisons import OURS, cycle_comparison, unsynced
from benchmarks.result import Axis
from benchmarks.workspace import Record, Workspace
from graphdriver.overlay2 import Driver

__all__ = ["layers", "mounts"]

# Layers of a home form chains of this length.
_CHAIN = 20


def layers(workspace: Workspace, record: Record) -> None:
    """Init, and the cycle, in homes with an increasing number of layers."""
    points = workspace.sizes.layers
    lines: dict[str, list[float]] = {}
    made = 0
    for count in points:
        made = _grow(workspace, made, count)
        is_last = count == points[-1]
        candidates = [Candidate(OURS, lambda: Driver(workspace.place / "home") and None)]
        if docker := workspace.docker:
            candidates.append(Candidate("Docker", lambda: docker.time("init")))
        title = f"Init on a home of {count:,} layers"
        row = record.measure(
            Comparison(title, candidates, (Aim(OURS, milliseconds=150),)), keep=is_last
        )
        title = f"create+get+put+remove in a home of {count:,} layers"
        cycled = record.measure(cycle_comparison(workspace, title, "layer1"), keep=is_last)
        for verb, measured in (("Init", row), ("cycle", cycled)):
            for name in measured.seconds:
                median = measured.median(name)
                assert median is not None
                lines.setdefault(f"{verb}, {name}", []).append(median)
    ended = {name: tuple(medians) for name, medians in lines.items()}
    record.axes.append(Axis("Layers in the home", "layers", tuple(points), ended))


def mounts(workspace: Workspace, record: Record) -> None:
    """Remove, with an increasing number of mounts on the host."""
    points, lines = workspace.sizes.mounts, dict[str, list[float]]()
    workspace.driver.create("base")
    if workspace.docker:
        workspace.docker.call("create", "base")
    for count in points:
        with _mounted(workspace.spare / "mounts", count):
            row = record.measure(_removals(workspace, count), keep=count == points[-1])
        for name in row.seconds:
            median = row.median(name)
            assert median is not None
            lines.setdefault(f"remove, {name}", []).append(median)
    ended = {name: tuple(medians) for name, medians in lines.items()}
    record.axes.append(Axis("Mounts on the host", "mounts", tuple(points), ended))


def _removals(workspace: Workspace, count: int) -> Comparison:
    driver, docker, repeats = workspace.driver, workspace.docker, workspace.sizes.repeats
    numbers = itertools.count()

    def ours() -> float:
        names = [f"gone{next(numbers)}" for _ in range(repeats)]
        for name in names:
            driver.create_read_write(name, "base")
        start = time.perf_counter()
        for name in names:
            driver.remove(name)
        return (time.perf_counter() - start) / repeats

    def theirs() -> float:
        assert docker
        names = [f"gone{next(numbers)}" for _ in range(repeats)]
        for name in names:
            docker.call("create", name, "base")
        return sum(docker.time("remove", name) for name in names) / repeats

    candidates = [Candidate(OURS, ours)]
    if docker:
        candidates.append(Candidate("Docker", theirs))
    title = f"remove, {count:,} mounts on the host"
    return Comparison(title, candidates, (Aim(OURS, milliseconds=0.6),))


def _grow(workspace: Workspace, made: int, count: int) -> int:
    """Create layers until there are `count`."""
    with unsynced():
        for number in range(made, count):
            name = f"layer{number + 1}"
            parent = f"layer{number}" if number % _CHAIN else ""
            workspace.driver.create(name, parent)
            if workspace.docker:
                workspace.docker.call("create", name, parent)
    return count


@contextmanager
def _mounted(point: Path, count: int) -> Iterator[None]:
    """Create `count` bind mounts for the duration of the block."""
    made = []
    try:
        for number in range(count):
            one = point / str(number)
            one.mkdir(parents=True)
            subprocess.run(["mount", "--bind", one, one], check=True)
            made.append(one)
        yield
    finally:
        for one in made:
            subprocess.run(["umount", one], check=True)
            one.rmdir()
