"""Kills of the driver before each change of one act, and the state that a new driver shows.

Each time a driver is started in a process of its own, executes the act until it is killed, and
another one is started on the same home, as after a restart of the daemon. The home's files are not
read: the results of verbs, mounts, and remaining names are checked.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphdriver.contract import Driver
from graphdriver_conformance.drivers import NoAnswer
from graphdriver_conformance.drivers.resolve import OwnProcess
from graphdriver_conformance.faults.calls import Call
from graphdriver_conformance.faults.findings import (
    KILL_NAME,
    Swept,
    Where,
    ordinal,
)
from graphdriver_conformance.faults.processes import start
from graphdriver_conformance.faults.strace import strace_line
from graphdriver_conformance.faults.supervisor import CHANGES, Supervisor, Watched
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.fault_report import (
    AfterRestart,
    Broken,
    Reporter,
    State,
    chosen_points,
    described,
    is_one_of,
    same,
    shown_names,
    state_of,
)
from graphdriver_conformance.suite.support.fault_scene import (
    ACTS,
    MIDDLE,
    Act,
    Scene,
    Victim,
    names_below,
)

__all__ = ["FIRST_INIT", "INIT", "RECOVERIES", "kill_sweep"]

INIT, FIRST_INIT = "init", "first_init"
"""The acts that are not verbs: Init on a home with layers, and on a missing home."""

RECOVERIES = {
    "init_after_create": "create_child",
    "init_after_apply": "apply_child",
    "init_after_remove": "remove_child",
}
"""Likewise: Init on a home whose driver was killed inside the named act."""

_ABSENT = "absent"


def kill_sweep(scene: Scene, name: str, most: int, only: int | None = None) -> Swept:
    """Kill a driver before each of its changes in one act, and after it has returned.

    At most `most` calls are tested; `only` is the single point to test.
    """
    swept = Swept(name)
    sweep: _Kills
    if name == FIRST_INIT:
        sweep = _FirstInits(scene, swept)
    elif name in RECOVERIES:
        sweep = _Recoveries(scene, swept, ACTS[RECOVERIES[name]])
    else:
        sweep = _Kills(scene, swept, ACTS.get(name))
    calls = sweep.at(0)
    swept.calls = len(calls)
    points = [only] if only else []
    if only is None:
        points = chosen_points(calls, most, with_first=False)
    for point in points:
        sweep.at(point)
    return swept


class _Kills:
    """Kills in a verb, or in Init, on a home with layers."""

    def __init__(self, scene: Scene, swept: Swept, act: Act | None = None) -> None:
        self._scene = scene
        self._swept = swept
        self._act = act
        self._number = 0

    def at(self, point: int) -> list[Call]:
        """Kill before the call `point`, 0 for after the last one; check. Returns the calls."""
        self._number += 1
        scene, act = self._scene, self._act
        victim = Victim(f"layer-{point}", act.parent if act else MIDDLE)
        report = Reporter(scene, self._swept, Where(self._swept.act, KILL_NAME, point))
        with Supervisor(scene.home, CHANGES, skips_flushes=True) as supervisor:
            process = start(scene.graphdriver.source, supervisor.enter)
            try:
                watched = self._killed(supervisor, process, report, victim)
            finally:
                supervisor.kill()
                process.end()
        self._swept.tried.append(report.happened)
        try:
            _Check(report, act, victim, returned=self._has_returned(watched)).run()
        except Broken:
            pass
        finally:
            umount_below(scene.home)
        self._check_names(report)
        if report.is_dirty:
            scene.build()
        return watched.calls

    def _killed(
        self, supervisor: Supervisor, process: OwnProcess, report: Reporter, victim: Victim
    ) -> Watched:
        """Let the driver execute the act until it is killed; return the observed calls."""
        scene, act, point, log = self._scene, self._act, report.where.point, report.log
        if act is None:
            with supervisor.watching(point) as watched:
                _until_killed(lambda: scene.init(process, log))
        else:
            driver = scene.init(process, log)
            act.prepare(scene, log, driver, victim)
            with supervisor.watching(point) as watched:
                victim.answer = _until_killed(lambda: act.call(log, driver, victim))
        shown = act.shown(victim) if act else "init(HOME)"
        _describe(report, watched, shown, supervisor.home)
        return watched

    def _has_returned(self, watched: Watched) -> bool:
        """Return whether the act had ended when the driver was killed."""
        return watched.hit is None

    def _check_names(self, report: Reporter) -> None:
        now, before = names_below(self._scene.place), self._scene.names
        if report.is_dirty or now == before:
            return
        report.found(
            "CRS-010",
            "the names in the home are the same as before",
            shown_names(now - before, before - now),
        )


class _Recoveries(_Kills):
    """Kills in the Init that follows a kill inside a verb, in which a home is repaired."""

    def __init__(self, scene: Scene, swept: Swept, act: Act) -> None:
        super().__init__(scene, swept, act)
        counted = len(_Kills(scene, Swept(swept.act), act).at(0))
        self._first = max(1, counted * 3 // 4)

    def _killed(
        self, supervisor: Supervisor, process: OwnProcess, report: Reporter, victim: Victim
    ) -> Watched:
        scene, act = self._scene, self._act
        assert act
        with Supervisor(scene.home, CHANGES, skips_flushes=True) as first:
            killed = start(scene.graphdriver.source, first.enter)
            try:
                driver = scene.init(killed, report.log)
                act.prepare(scene, report.log, driver, victim)
                with first.watching(self._first):
                    _until_killed(lambda: act.call(report.log, driver, victim))
            finally:
                first.kill()
                killed.end()
        with supervisor.watching(report.where.point) as watched:
            _until_killed(lambda: scene.init(process, report.log))
        shown = f"init(HOME) after {act.shown(victim)} was killed before its "
        shown += f"{ordinal(self._first)} change"
        _describe(report, watched, shown, supervisor.home)
        return watched

    def _has_returned(self, watched: Watched) -> bool:
        """Never: the verb was killed, independent of Init."""
        return False


class _FirstInits(_Kills):
    """Kills in the first Init, without an existing home."""

    def at(self, point: int) -> list[Call]:
        """Kill before the call `point`, create the driver again, use it and compare the names."""
        self._number += 1
        scene = self._scene
        place = scene.graphdriver.home.parent / f"first-{self._number}"
        place.mkdir()
        report = Reporter(scene, self._swept, Where(FIRST_INIT, KILL_NAME, point))
        home = place / "home"
        with Supervisor(place, CHANGES, skips_flushes=True) as supervisor:
            process = start(scene.graphdriver.source, supervisor.enter)
            try:
                with supervisor.watching(point) as watched:
                    _until_killed(lambda: scene.init(process, report.log, home))
            finally:
                supervisor.kill()
                process.end()
        _describe(report, watched, "the first init(HOME)", supervisor.home)
        self._swept.tried.append(report.happened)
        try:
            self._use(report, home)
        except Broken:
            pass
        finally:
            umount_below(place)
        if point == 0:
            self._names = names_below(place)
        elif (now := names_below(place)) != self._names and not report.is_dirty:
            report.found(
                "CRS-011",
                "the names in and beside the home are the same as after an Init without a kill",
                shown_names(now - self._names, self._names - now),
            )
        return watched.calls

    def _use(self, report: Reporter, home: Path) -> None:
        process = self._scene.start()
        log = report.log
        try:
            with report.succeeds("CRS-001", "the next init(HOME)"):
                driver = self._scene.init(process, log, home)
            with report.succeeds("CRS-011", "the use of a new home"):
                log.call(driver, "create", "base")
                log.call(driver, "create", "child", "base")
                shown = log.tree(driver, "child")
                log.call(driver, "remove", "child")
                log.call(driver, "remove", "base")
                log.call(driver, "cleanup")
            if lines := same(self._scene.shown_empty, shown):
                report.found("CRS-011", "a child shows its parent's tree", "it does not", lines)
        finally:
            process.end()


class _Check:
    """The checks of a new driver after a kill."""

    def __init__(
        self, report: Reporter, act: Act | None, victim: Victim, *, returned: bool
    ) -> None:
        self._report = report
        self._scene = report.scene
        self._act = act
        self._victim = victim
        self._returned = returned
        self._log = report.log
        self._restart = AfterRestart(report, "CRS-001", "CRS-002", "CRS-003", "CRS-009")

    def run(self) -> None:
        """Start a driver, check everything, and restore the home. Raises Broken."""
        with self._restart.driver() as driver:
            try:
                if self._act:
                    self._restart.check_top(driver)
                    self._check_victim(driver, self._act)
            finally:
                # Removing a remnant may damage other layers.
                self._restart.check_others(driver)
            self._restart.check_cleanup(driver)

    def _check_victim(self, driver: Driver, act: Act) -> None:
        state = self._state(driver, act)
        self._repeat(driver, act, state)
        self._restart.remove(driver, self._victim.id)
        self._create(driver)

    def _state(self, driver: Driver, act: Act) -> State:
        """Return the state of the victim, and report it if it is not allowed."""
        victim, report, id = self._victim, self._report, self._victim.id
        state = state_of(self._log, driver, id)
        allowed = [victim.after] if self._returned else [victim.before, victim.after]
        if is_one_of(state, allowed):
            return state
        must = self._returned or act.requirement == "CRS-008"
        if isinstance(state, Exception) and not must:
            return state  # a layer that raises a clear error is not a wrong layer
        requirement = "CRS-012" if self._returned else act.requirement
        wanted = " or ".join(dict.fromkeys(self._named(one) for one in allowed))
        lines: list[str] = []
        if state is None:
            actual = f"exists({id!r}) is False"
        elif isinstance(state, Exception):
            actual = f"exists({id!r}) is True, and get raises {described(state)}"
        else:
            lines = min((same(one or Tree(), state) for one in allowed), key=len)
            actual = f"exists({id!r}) is True, and get shows {self._resembled(state)}"
        report.found(requirement, f"the layer is {wanted}", f"after the restart {actual}", lines)
        return state

    def _repeat(self, driver: Driver, act: Act, state: State) -> None:
        """Call the verb again, like a caller that did not receive its result."""
        victim, report = self._victim, self._report
        if isinstance(state, Exception) or act.verb in ("remove", "cleanup"):
            return  # it is removed first; or remove and cleanup are called anyway
        creates = act.verb.startswith("create")
        if (state is None) != creates:
            return
        if act.verb == "apply_diff" and not is_one_of(state, [victim.before]):
            return  # the contract does not define applying an archive twice
        call = act.shown(victim)
        with report.succeeds("CRS-013", f"{call} again after the restart"):
            act.call(self._log, driver, victim)
            if act.verb == "get":
                self._log.call(driver, "put", victim.id)
            shown = self._log.tree(driver, victim.id)
        if victim.after is not None and (lines := same(victim.after, shown)):
            report.found(
                "CRS-013", f"{call} succeeds when it is called again", "the tree differs", lines
            )

    def _create(self, driver: Driver) -> None:
        """Use the id again, then clean up."""
        victim, report, id = self._victim, self._report, self._victim.id
        create = f"create({id!r}, {victim.parent!r})"
        with report.succeeds("CRS-004", f"{create} after the restart and remove"):
            self._log.call(driver, "create", id, victim.parent)
        with report.succeeds("CRS-004", f"get({id!r}) of the recreated layer"):
            shown = self._log.tree(driver, id)
        if lines := same(self._scene.tree_of_parent(victim.parent), shown):
            wanted = f"{create} creates a layer with its parent's tree"
            report.found("CRS-004", wanted, "it shows another tree", lines)
        self._restart.remove_existing(driver, id)

    def _named(self, tree: Tree | None) -> str:
        if tree is None:
            return _ABSENT
        victim = self._victim
        if tree == victim.after == victim.before:
            return "as before"
        return "whole" if tree == victim.after else "as before"

    def _resembled(self, tree: Tree) -> str:
        """Return which other layer has this tree, if any."""
        if not same(Tree(), tree):
            return "an empty tree"
        for id, one in self._scene.trees.items():
            if not same(one, tree):
                return f"the tree of {id!r}"
        whole = [one for one in (self._victim.before, self._victim.after) if one is not None]
        if any(all(line.startswith("- ") for line in same(one, tree)) for one in whole):
            return "a part of its tree"
        return "another tree"


def _until_killed(call: Callable[[], Any]) -> Any:
    """Return the result of a call, None if its process is killed meanwhile."""
    try:
        return call()
    except NoAnswer:
        return None


def _describe(report: Reporter, watched: Watched, shown: str, home: bytes) -> None:
    point = report.where.point
    if watched.hit is None:
        report.happened = f"{shown} returned, and the driver was killed"
        return
    call = watched.hit.shown(home)
    report.happened = f"{shown}, killed before its {ordinal(point)} change ({call})"
    report.strace = strace_line(watched, "signal=SIGKILL")
