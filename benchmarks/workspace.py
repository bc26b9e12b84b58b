"""The homes of all candidates of a group of comparisons; removed afterwards."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.comparison import Comparison, Row
from benchmarks.machine import Watch
from benchmarks.peers import Containerd, ContainersStorage, Docker
from benchmarks.result import Axis
from graphdriver.overlay2 import Driver

__all__ = ["FULL", "SMALL", "Record", "Sizes", "Workspace"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The amount of work of each comparison."""

    files: int
    big: int
    wide: int
    lowers: Sequence[int]
    layers: Sequence[int]
    mounts: Sequence[int]
    repeats: int
    image: str
    room: str


FULL = Sizes(
    files=10_000,
    big=1 << 30,
    wide=100_000,
    lowers=(1, 20, 120),
    layers=(10, 100, 1_000, 10_000),
    mounts=(10, 100, 1_000),
    repeats=20,
    image="12G",
    room="15G",
)
"""The amount of work for docs/performance.md."""

SMALL = Sizes(
    files=100,
    big=1 << 20,
    wide=1_000,
    lowers=(1, 3),
    layers=(4, 8),
    mounts=(2, 4),
    repeats=2,
    image="512M",
    room="1G",
)
"""The minimum that runs each comparison."""


@dataclass(slots=True)
class Record:
    """Runs comparisons, prints each row, and stores all rows."""

    rounds: int
    watch: Watch = field(default_factory=Watch)
    rows: list[Row] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    show: Callable[[Row], object] = print

    def measure(self, comparison: Comparison, rounds: int = 0, *, keep: bool = True) -> Row:
        """Measure a comparison; `keep` stores it as a row of the table."""
        row = comparison.measure(rounds or self.rounds, self.watch)
        self.show(row)
        if keep:
            self.rows.append(row)
        return row

    def leave_out(self, title: str, reason: str) -> None:
        """Store a row that could not be measured, with the reason."""
        row = Row(title, {}, reason=reason)
        self.show(row)
        self.rows.append(row)


@dataclass(frozen=True, slots=True)
class Workspace:
    """`place` is on ext4 and exclusive to the group, `spare` on tmpfs; missing peers are None."""

    place: Path
    spare: Path
    sizes: Sizes
    driver: Driver
    docker: Docker | None
    containerd: Containerd | None
    storage: ContainersStorage | None

    @classmethod
    @contextmanager
    def fresh(cls, ext4: Path, spare: Path, sizes: Sizes) -> Iterator["Workspace"]:
        """Create a workspace, and remove all files in it after the block."""
        place = ext4 / "workspace"
        place.mkdir()
        try:
            with ExitStack() as stack:
                docker = stack.enter_context(Docker.running(spare, place / "docker"))
                containerd = stack.enter_context(Containerd.running(spare))
                driver = Driver(place / "home")
                stack.callback(driver.cleanup)
                storage = ContainersStorage.if_installed(place / "storage")
                yield cls(place, spare, sizes, driver, docker, containerd, storage)
        finally:
            command = ["findmnt", "--noheadings", "--raw", "--output", "TARGET"]
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for point in reversed(listed.splitlines()):
                if point.startswith(f"{place}/"):
                    subprocess.run(["umount", "--lazy", point], check=False)
            shutil.rmtree(place)

    def archive(self, plant: Callable[[Path], object]) -> tuple[Path, Path]:
        """Return a new tree on ext4, created by `plant`, and its archive on tmpfs."""
        tree = self.place / "tree"
        if tree.exists():
            shutil.rmtree(tree)
        tree.mkdir()
        plant(tree)
        archive = self.spare / "layer.tar"
        subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
        return tree, archive
