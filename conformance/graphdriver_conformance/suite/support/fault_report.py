"""The findings of a fault; shared by sweeps of kills and of errors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from graphdriver.contract import Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.drivers import NoAnswer
from graphdriver_conformance.faults.calls import Call, CallKind, without_random_names
from graphdriver_conformance.faults.findings import Finding, Swept, Where
from graphdriver_conformance.host.mountinfo import mounts_below
from graphdriver_conformance.oracle.compare import Aspect, differences
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.fault_scene import TOP, Log, Scene, first_line

__all__ = [
    "AfterRestart",
    "Broken",
    "Reporter",
    "State",
    "chosen_points",
    "described",
    "is_one_of",
    "same",
    "shown_names",
    "state_of",
]

State = Tree | Exception | None
"""The state of a layer: its tree, the error of get, or absent."""

_ASPECTS = Aspect.DEFAULT | Aspect.HARDLINKS | Aspect.ROOT
_MOST_LINES = 6
_MOUNTS = ("mount", "move_mount")


def same(expected: Tree, actual: Tree) -> list[str]:
    """Return the differences of a tree from the expected one."""
    return differences(expected, actual, _ASPECTS)


def chosen_points(calls: list[Call], most: int, *, with_first: bool = True) -> list[int]:
    """Return the calls at which to test a fault: all, or at most `most` of them.

    Calls that rename a layer, and changes of mounts, are preferred, because most drivers have bugs
    there. The others are distributed evenly. With `with_first` the first call is always among them:
    an error there is worth a test. Without, faults are kills and power cuts: before the first call
    they change nothing, and before the call after a mount they leave the mount behind.
    """
    everywhere = range(1, len(calls) + 1)
    if len(calls) <= most:
        return list(everywhere)
    informative = [
        point
        for point, call in enumerate(calls, 1)
        if call.kind is CallKind.MOUNT or call.name.startswith(("rename", "symlink", "link"))
    ]
    behind = [point + 1 for point in informative if point < len(calls)]
    picked = {len(calls)}
    if with_first:
        picked.add(1)
    else:
        mounted = [point for point in behind if calls[point - 2].name in _MOUNTS]
        picked.update(_spread(mounted, most // 2))
    left = max(1, most - len(picked))
    picked.update(_spread(sorted({*informative, *behind}), min(most // 2, left)))
    rest = [point for point in everywhere if point not in picked]
    return sorted({*picked, *_spread(rest, max(0, most - len(picked)))})


def _spread(points: list[int], most: int) -> list[int]:
    if len(points) <= most:
        return points
    return [points[(2 * index + 1) * len(points) // (2 * most)] for index in range(most)]


@dataclass(slots=True)
class Reporter:
    """Creates the findings of one fault: the point, the event, and the calls so far."""

    scene: Scene
    swept: Swept
    where: Where
    happened: str = ""
    strace: str = ""
    is_dirty: bool = False
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log(self.scene.graphdriver)

    def found(
        self, requirement: str, expected: str, actual: str, tree: list[str] | None = None
    ) -> None:
        """Record a violation; the home is not used again."""
        self.is_dirty = True
        home = str(self.scene.home)
        rows = [str(row).replace(home, "HOME")[:300] for row in mounts_below(self.scene.home)]
        self.swept.findings.append(
            Finding(
                requirement,
                self.where,
                self.happened,
                expected,
                actual.replace(home, "HOME"),
                tuple((tree or [])[:_MOST_LINES]),
                tuple(line.replace(home, "HOME") for line in self.log.lines),
                tuple(rows[:_MOST_LINES]),
                self.strace,
            )
        )

    @contextmanager
    def succeeds(self, requirement: str, call: str) -> Iterator[None]:
        """Run a block whose call must succeed; otherwise the rest of the check is skipped."""
        try:
            yield
        except (DriverError, OSError) as error:
            self.found(requirement, f"{call} succeeds", f"{call} raises {described(error)}")
            raise Broken from error


class Broken(Exception):
    """After this finding nothing else can be checked."""


@dataclass(frozen=True, slots=True)
class AfterRestart:
    """The requirements of a restarted driver, and their checks."""

    report: Reporter
    starts: str
    others: str
    removes: str
    cleans: str

    @contextmanager
    def driver(self) -> Iterator[Driver]:
        """Start a driver on the home for the block. Raises Broken."""
        scene, log = self.report.scene, self.report.log
        process = scene.start()
        try:
            with self.report.succeeds(self.starts, "the next init(HOME)"):
                driver = scene.init(process, log)
            yield driver
        finally:
            process.end()

    def check_top(self, driver: Driver) -> None:
        """The topmost layer shows the lower ones; the others are compared if it differs."""
        report, scene = self.report, self.report.scene
        for id in scene.trees if report.is_dirty else [TOP]:
            with report.succeeds(self.others, f"get({id!r}) of another layer"):
                shown = report.log.tree(driver, id)
            if lines := same(scene.trees[id], shown):
                report.found(self.others, f"layer {id!r} is as before", "it is not", lines)

    def check_others(self, driver: Driver) -> None:
        """All exist as well. Raises Broken."""
        report = self.report
        lost = [id for id in report.scene.trees if not report.log.call(driver, "exists", id)]
        if lost:
            report.found(self.others, "every other layer exists", f"{', '.join(lost)} do not exist")
            raise Broken
        self.check_top(driver)

    def remove(self, driver: Driver, id: str) -> None:
        """Remove the victim, if it exists."""
        if self.report.log.call(driver, "exists", id):
            self.remove_existing(driver, id)

    def remove_existing(self, driver: Driver, id: str) -> None:
        """Remove a layer that is known to exist. Raises Broken."""
        log, call = self.report.log, f"remove({id!r}) after the restart"
        with self.report.succeeds(self.removes, call):
            log.call(driver, "remove", id)
        if log.call(driver, "exists", id):
            self.report.found(self.removes, f"{id!r} does not exist after {call}", "it exists")
            raise Broken

    def check_cleanup(self, driver: Driver) -> None:
        """No mount is left."""
        with self.report.succeeds(self.cleans, "cleanup() after the restart"):
            self.report.log.call(driver, "cleanup")
        if left := mounts_below(self.report.scene.home):
            points = ", ".join(row.point for row in left)
            wanted = "no mount is left below the home after cleanup()"
            self.report.found(self.cleans, wanted, f"left: {points}")


def state_of(log: Log, driver: Driver, id: str) -> State:
    """Return the state of a layer. Raises NoAnswer."""
    if not log.call(driver, "exists", id):
        return None
    try:
        return log.tree(driver, id)
    except NoAnswer:
        raise
    except (DriverError, OSError) as error:
        return error


def is_one_of(state: State, allowed: Sequence[Tree | None]) -> bool:
    """Return whether a layer is in one of the allowed states."""
    return any(
        state is one
        if state is None or one is None
        else isinstance(state, Tree) and not same(one, state)
        for one in allowed
    )


def described(error: BaseException) -> str:
    """Return an exception for a report."""
    return f"{type(error).__name__}: {first_line(error)}"


def shown_names(appeared: frozenset[str], gone: frozenset[str]) -> str:
    """Return the names that were created and removed, for a report."""
    parts = [f"left: {_first(appeared)}"] * bool(appeared) + [f"missing: {_first(gone)}"] * bool(
        gone
    )
    return "; ".join(parts)


def _first(names: frozenset[str]) -> str:
    masked = {without_random_names(name) for name in names}
    shown = sorted(masked, key=lambda name: (name.count("/"), name))[:3]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
