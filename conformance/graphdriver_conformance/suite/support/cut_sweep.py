"""Power cuts before each write of one act and after it, and the state after the next start.

The driver executes the act once. Before each of its writes the image of its disk is copied in the
state that a power cut would leave. Each image is then mounted, as after a boot, and a new driver
must find an allowed state on it.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from graphdriver.contract import Capability, Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.drivers import NoAnswer
from graphdriver_conformance.faults.calls import Call, without_random_names
from graphdriver_conformance.faults.findings import Swept, Where, ordinal
from graphdriver_conformance.faults.processes import start
from graphdriver_conformance.faults.supervisor import EVERY, PROCEED, WRITES, Supervisor, Verdict
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.host.recorded_file import Flush, Write
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.disks import CannotMake
from graphdriver_conformance.suite.support.fault_report import (
    AfterRestart,
    Broken,
    Reporter,
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
    Log,
    Scene,
    Victim,
    names_below,
)
from graphdriver_conformance.suite.support.images import ImageDisk, Survives, copied, digest

__all__ = ["Cut", "CutScene", "HomeRefused", "cut_sweep", "flush_sweep"]

_SHOWN = {
    Survives.NOTHING: "all unsynced changes are lost",
    Survives.NAMES: "the journal is committed, data that was not written back is lost",
}
_VICTIM = "victim"
_STARTS, _REMOVES = "CRS-030", "CRS-032"


class _Rule(NamedTuple):
    """The requirements of a verb: no partial layer, and durability once it has returned."""

    half: str
    returned: str = ""


# A removed layer may reappear, because its owner can remove it again.
_RULES = {
    "create": _Rule("CRS-033", "CRS-031"),
    "create_read_write": _Rule("CRS-033", "CRS-031"),
    "remove": _Rule("CRS-034"),
    "apply_diff": _Rule("CRS-036", "CRS-035"),
}
_OF_DURABLE = {"CRS-035", "CRS-036"}


@dataclass(frozen=True, slots=True)
class Cut:
    """A kind of power cut: the file system, and how much survives."""

    format: str
    survives: Survives | None = None
    """None if writes to the disk are recorded, and unflushed writes are lost."""

    @property
    def name(self) -> str:
        """The name of the fault in a report's `Where`."""
        kind = self.survives.name.lower() if self.survives else "flushes"
        return f"cut-{self.format}-{kind}"


class HomeRefused(Exception):
    """The driver refuses to create layers on a file system; the message is the reason."""


class CutScene(Scene):
    """The home for faults, on a disk whose power can be cut."""

    disk: ImageDisk
    prepared: int
    """The image of the disk with the layers that no cut may change."""

    def __init__(self, graphdriver: Subject, format: str) -> None:
        super().__init__(graphdriver, skips_flushes=False)
        self._format = format
        self._opened = ExitStack()
        self._point = graphdriver.home.parent / f"disk-{format}"

    def new_place(self) -> Path:
        """Create the disk, and the directory for the home on it."""
        try:
            self._point.mkdir(exist_ok=True)
            self.disk = ImageDisk(self._format, self._point)
        except CannotMake as error:
            self.graphdriver.not_provable(str(error))
        self._opened.callback(self.disk.close)
        place = self._point / "place"
        place.mkdir()
        return place

    def build(self) -> None:
        """Create the home with its layers, and keep the image of the disk. Raises HomeRefused."""
        try:
            super().build()
        except (DriverError, OSError) as error:
            if isinstance(error, NoAnswer):
                raise
            raise HomeRefused(f"the driver refuses {self._format}: {error}") from error
        umount_below(self.place)
        self.disk.sync()
        self.prepared = self.disk.as_after_a_cut(Survives.NOTHING)
        self._opened.callback(os.close, self.prepared)

    def close(self) -> None:
        """Unmount the disk."""
        self._opened.close()


@dataclass(frozen=True, slots=True)
class _Moment:
    """The image that a cut leaves before a call, the last one after the act has returned."""

    point: int
    image: int


def cut_sweep(scene: CutScene, cut: Cut, name: str, most: int, only: int | None = None) -> Swept:
    """Let a driver execute one act, and check the images that a cut leaves before its writes."""
    swept = Swept(f"{name}, {cut.name}")
    victim = Victim(_VICTIM)
    calls, moments = _recorded(scene, cut, name, victim)
    swept.calls = len(calls)
    points = {0, *chosen_points(calls, most, with_first=False)} if only is None else {only}
    seen: set[bytes] = set()
    for moment in moments:
        if moment.point in points:
            content = digest(moment.image)
            report = Reporter(scene, swept, Where(name, cut.name, moment.point))
            report.happened = _described(scene, cut, name, moment.point, calls)
            swept.tried.append(report.happened)
            if content not in seen or not moment.point:
                _look(scene, report, moment.image, victim)
            seen.add(content)
        os.close(moment.image)
    return swept


def flush_sweep(scene: CutScene, cut: Cut, name: str, only: int | None = None) -> Swept:
    """Let a driver execute one act, and check the content of the disk after each of its flushes.

    Each time without the writes after the flush, and with some of them: a disk keeps them in its
    cache, and may write any. On a file system with periodic writes there are more flushes.
    """
    swept = Swept(f"{name}, {cut.name}")
    victim = Victim(_VICTIM)
    image, entries = _recorded_writes(scene, name, victim)
    ends = [0, *(index for index, one in enumerate(entries, 1) if isinstance(one, Flush))]
    swept.calls = len(ends) - 1
    done = 0
    for number, end in enumerate(ends, 1):
        _write(image, entries[done:end])
        done = end
        following = ends[number] if number < len(ends) else len(entries)
        cached = entries[end:following]
        # All flushes of the act are done: it may have returned.
        point = number if number < len(ends) else 0
        for some in ([], cached[1::2], cached[::2]) if len(cached) > 1 else ([], cached):
            if only not in (None, point):
                continue
            crashed = copied(image)
            _write(crashed, some)
            report = Reporter(scene, swept, Where(name, cut.name, point))
            report.happened = _described_flush(cut, name, number - 1, point, len(some))
            swept.tried.append(report.happened)
            _look(scene, report, crashed, victim)
            os.close(crashed)
    os.close(image)
    return swept


def _recorded_writes(scene: CutScene, name: str, victim: Victim) -> tuple[int, list[Write | Flush]]:
    """Let a driver execute the act; return the image before it, and its writes and flushes."""
    act, log = ACTS[name], Log(scene.graphdriver)
    victim.parent = act.parent
    image = copied(scene.prepared)
    file = scene.disk.mount_recorded(scene.graphdriver.home.parent / "recorded", image)
    try:
        process = start(scene.graphdriver.source)
        try:
            driver = scene.init(process, log)
            act.prepare(scene, log, driver, victim)
            scene.disk.sync()
            start_of_act, before = file.position(), copied(image)
            act.call(log, driver, victim)
            entries = file.entries(start_of_act, file.position())
        finally:
            process.end()
    finally:
        scene.disk.unmount()
        file.close()
        os.close(image)
    return before, entries


def _write(image: int, entries: Sequence[Write | Flush]) -> None:
    for one in entries:
        if isinstance(one, Write):
            os.pwrite(image, one.data, one.offset)


def _described_flush(cut: Cut, name: str, flushes: int, point: int, some: int) -> str:
    """Return a description of the state of the disk, for a report."""
    act = ACTS[name]
    shown = act.shown(Victim(_VICTIM, act.parent))
    where = f"after its {ordinal(flushes)} flush" if flushes else "before its first flush"
    if not point:
        where = "after it returned"
    more = f", with {some} of the writes that were not flushed" if some else ""
    return f"{shown}, power cut on {cut.format} {where}{more}"


def _recorded(
    scene: CutScene, cut: Cut, name: str, victim: Victim
) -> tuple[list[Call], list[_Moment]]:
    """Let a driver execute the act; return its writes, and the images before each and after the
    last.
    """
    act, log, survives = ACTS.get(name), Log(scene.graphdriver), cut.survives
    assert survives
    victim.parent = act.parent if act else MIDDLE
    scene.disk.restore(scene.prepared)
    moments: list[_Moment] = []

    def keep(call: Call) -> Verdict:
        moments.append(_Moment(len(moments) + 1, scene.disk.as_after_a_cut(survives)))
        return PROCEED

    with Supervisor(scene.home, WRITES) as supervisor:
        process = start(scene.graphdriver.source, supervisor.enter)
        try:
            if act is None:
                with supervisor.watching(EVERY, keep) as watched:
                    scene.init(process, log)
            else:
                driver = scene.init(process, log)
                act.prepare(scene, log, driver, victim)
                scene.disk.sync()
                with supervisor.watching(EVERY, keep) as watched:
                    act.call(log, driver, victim)
            moments.append(_Moment(0, scene.disk.as_after_a_cut(survives)))
        finally:
            supervisor.kill()
            process.end()
    return watched.calls, moments


def _described(scene: CutScene, cut: Cut, name: str, point: int, calls: list[Call]) -> str:
    """Return a description of the cut, for a report."""
    act = ACTS.get(name)
    shown = act.shown(Victim(_VICTIM, act.parent)) if act else "init(HOME)"
    where = "after it returned"
    if point:
        call = calls[point - 1].shown(os.fsencode(scene.home))
        where = f"before its {ordinal(point)} write ({call})"
    lost = _SHOWN[cut.survives] if cut.survives else ""
    return f"{shown}, power cut on {cut.format} {where}; {lost}"


class _Check:
    """The checks of a driver after a power cut."""

    def __init__(self, report: Reporter, victim: Victim) -> None:
        self._report = report
        self._victim = victim
        self._act = ACTS.get(report.where.act)
        self._after = AfterRestart(report, _STARTS, _STARTS, _REMOVES, _STARTS)

    def run(self) -> None:
        """Start a driver, and check everything. Raises Broken."""
        with self._after.driver() as driver:
            self._after.check_others(driver)
            if self._act:
                self._check_state(driver, self._act)
                self._after.remove(driver, self._victim.id)
                self._create_again(driver)
            self._after.check_cleanup(driver)

    def _check_state(self, driver: Driver, act: Act) -> None:
        """The layer is as before or as after the act; after the act has returned, as after it."""
        victim, id = self._victim, self._victim.id
        state = state_of(self._report.log, driver, id)
        rule = _RULES.get(act.verb, _Rule(_STARTS, _STARTS))
        is_over = not self._report.where.point and bool(rule.returned)
        allowed = [victim.after] if is_over else [victim.before, victim.after]
        if is_one_of(state, allowed):
            return
        wanted = "whole" if is_over else "as before the act, or as after it"
        expected = f"layer {id!r} is {wanted}"
        if isinstance(state, Tree):
            lines = min((same(one or Tree(), state) for one in allowed), key=len)
            shown = f"exists({id!r}) is True, and get shows another tree"
            for requirement in {rule.half, rule.returned if is_over else rule.half}:
                self._found(requirement, expected, shown, lines)
        elif is_over or act.verb not in _RULES:
            error = f"is True, and get raises {described(state)}" if state else "is False"
            self._found(rule.returned, expected, f"exists({id!r}) {error}")

    def _create_again(self, driver: Driver) -> None:
        victim, log, report = self._victim, self._report.log, self._report
        create = f"create({victim.id!r}, {victim.parent!r})"
        with report.succeeds(_REMOVES, f"{create} after the power cut"):
            log.call(driver, "create", victim.id, victim.parent)
            shown = log.tree(driver, victim.id)
        if lines := same(report.scene.tree_of_parent(victim.parent), shown):
            wanted = f"{create} creates a layer with its parent's tree"
            report.found(_REMOVES, wanted, "it shows another tree", lines)
        self._after.remove_existing(driver, victim.id)

    def _found(
        self, requirement: str, expected: str, actual: str, tree: list[str] | None = None
    ) -> None:
        """Record a violation, if the driver claims the needs of the requirement."""
        claimed = self._report.scene.graphdriver.claims(Capability.DURABLE)
        if claimed or requirement not in _OF_DURABLE:
            self._report.found(requirement, expected, f"after the power cut {actual}", tree)


def _look(scene: CutScene, report: Reporter, image: int, victim: Victim) -> None:
    """Start a driver on an image, and check its layers."""
    scene.disk.restore(image)
    report.log.lines.append(f"after {report.happened}")
    try:
        _Check(report, victim).run()
    except Broken:
        pass
    finally:
        umount_below(scene.home)
    now = names_below(scene.place)
    if not report.is_dirty and now != scene.names:
        report.found(
            "CRS-038",
            "the names in the home are the same as before",
            without_random_names(shown_names(now - scene.names, scene.names - now)),
        )
