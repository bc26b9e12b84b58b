"""One act, and the power cut before each of its writes and after it; and what a start then shows.

The driver does the act once. Before each of its writes the image of its disk is kept as a power cut
would leave it at that moment. Each image is then mounted, as after a boot, and a fresh driver has
to find on it what a cut may leave.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver_conformance.faults.calls import Call
from graphdriver_conformance.faults.findings import Swept, Where, ordinal
from graphdriver_conformance.faults.processes import start
from graphdriver_conformance.faults.supervisor import EVERY, GO_ON, WRITES, Supervisor, Verdict
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.suite.support.disks import CannotMake
from graphdriver_conformance.suite.support.fault_scene import (
    ACTS,
    MIDDLE,
    Log,
    Scene,
    Victim,
    names_below,
)
from graphdriver_conformance.suite.support.images import ImageDisk, Survives, digest
from graphdriver_conformance.suite.support.kill_sweep import (
    Broken,
    Check,
    Reporter,
    chosen_points,
    shown_names,
)

__all__ = ["Cut", "CutScene", "cut_sweep"]

_SHOWN = {
    Survives.NOTHING: "all that was not synced is lost",
    Survives.NAMES: "the journal is committed, data that was not written back is lost",
}
_VICTIM = "victim"
_NOT_ASKED = ""
_RETURNED = "CRS-012"
# What the checks after a kill call a broken rule, and what it is after a power cut.
_RULES = {
    "CRS-001": "CRS-030",
    "CRS-002": "CRS-030",
    "CRS-003": "CRS-032",
    "CRS-004": "CRS-032",
    "CRS-005": "CRS-033",
    "CRS-006": "CRS-036",
    "CRS-007": "CRS-034",
    "CRS-008": "CRS-030",
    "CRS-010": "CRS-038",
}
_AFTER_RETURN = {"create": "CRS-031", "create_read_write": "CRS-031", "apply_diff": "CRS-035"}


@dataclass(frozen=True, slots=True)
class Cut:
    """A kind of power cut: on which file system, and how much survives."""

    format: str
    survives: Survives

    @property
    def name(self) -> str:
        """The name of the fault in a report's `Where`."""
        return f"cut-{self.format}-{self.survives.name.lower()}"


class CutScene(Scene):
    """The scene of faults on a disk whose power can be cut."""

    disk: ImageDisk
    prepared: int
    """The image of the disk with the layers that no cut may change."""

    def __init__(self, graphdriver: Subject, format: str) -> None:
        super().__init__(graphdriver)
        self._format = format
        self._point = graphdriver.home.parent / f"disk-{format}"

    def new_place(self) -> Path:
        """Make the disk, and the directory for the home on it."""
        try:
            self._point.mkdir(exist_ok=True)
            self.disk = ImageDisk(self._format, self._point)
        except CannotMake as error:
            self.graphdriver.not_provable(str(error))
        place = self._point / "place"
        place.mkdir()
        return place

    def build(self) -> None:
        """Make the home with its layers, and keep the image of the disk."""
        super().build()
        umount_below(self.place)
        self.disk.sync()
        self.prepared = self.disk.as_after_a_cut(Survives.NOTHING)

    def close(self) -> None:
        """Unmount the disk."""
        if self.trees:
            self.disk.close()
            os.close(self.prepared)


@dataclass(frozen=True, slots=True)
class _Moment:
    """The image that a cut leaves before a call, the last time after the act has returned."""

    point: int
    image: int


def cut_sweep(scene: CutScene, cut: Cut, name: str, most: int, only: int | None = None) -> Swept:
    """Let a driver do one act, and look at the images that a cut leaves before its writes."""
    swept = Swept(name)
    victim = Victim(_VICTIM)
    calls, moments = _recorded(scene, cut, name, victim)
    swept.calls = len(calls)
    points = {0, *chosen_points(calls, most)} if only is None else {only}
    seen: set[bytes] = set()
    for moment in moments:
        if moment.point in points:
            content = digest(moment.image)
            report = _reporter(scene, cut, swept, moment.point, calls, victim)
            swept.tried.append(report.happened)
            if content not in seen or not moment.point:
                _look(scene, report, moment, victim)
            seen.add(content)
        os.close(moment.image)
    return swept


def _recorded(
    scene: CutScene, cut: Cut, name: str, victim: Victim
) -> tuple[list[Call], list[_Moment]]:
    """Let a driver do the act; return its writes, and the images before each and after the last."""
    act, log, options = ACTS.get(name), Log(), scene.graphdriver.options
    victim.parent = act.parent if act else MIDDLE
    scene.disk.restore(scene.prepared)
    moments: list[_Moment] = []

    def keep(call: Call) -> Verdict:
        moments.append(_Moment(len(moments) + 1, scene.disk.as_after_a_cut(cut.survives)))
        return GO_ON

    with Supervisor(scene.home, WRITES) as supervisor:
        process = start(scene.graphdriver.source, supervisor.enter)
        try:
            if act is None:
                with supervisor.watching(EVERY, keep) as watched:
                    process.init(scene.home, options)
            else:
                driver = process.init(scene.home, options)
                act.prepare(scene, log, driver, victim)
                scene.disk.sync()
                with supervisor.watching(EVERY, keep) as watched:
                    act.call(log, driver, victim)
            moments.append(_Moment(0, scene.disk.as_after_a_cut(cut.survives)))
        finally:
            supervisor.kill()
            process.end()
    return watched.calls, moments


class _CutReporter(Reporter):
    """Books what the checks after a kill find under the rules of power cuts."""

    rules: dict[str, str]
    atomic: str
    """The rule, as after a kill, that the verb does all or nothing."""

    def found(
        self, requirement: str, expected: str, actual: str, tree: list[str] | None = None
    ) -> None:
        """Write down that a requirement is broken, where it is asked."""
        if requirement == _RETURNED and tree and self.atomic:
            self.found(self.atomic, expected, actual, tree)  # not lost, but there in part
        if rule := self.rules.get(requirement, _NOT_ASKED):
            Reporter.found(self, rule, expected, actual, tree)
        else:
            self.is_dirty = True


def _reporter(
    scene: CutScene, cut: Cut, swept: Swept, point: int, calls: list[Call], victim: Victim
) -> _CutReporter:
    act = ACTS.get(swept.act)
    shown = act.shown(victim) if act else "init(HOME)"
    where = "after it returned"
    if point:
        call = calls[point - 1].shown(os.fsencode(scene.home))
        where = f"before its {ordinal(point)} write ({call})"
    report = _CutReporter(scene, swept, Where(swept.act, cut.name, point))
    report.happened = f"{shown}, power cut on {cut.format} {where}; {_SHOWN[cut.survives]}"
    report.atomic = act.requirement if act and act.verb in _AFTER_RETURN else _NOT_ASKED
    report.rules = {
        **_RULES,
        _RETURNED: _AFTER_RETURN.get(act.verb, "CRS-030") if act else "CRS-030",
    }
    if not scene.graphdriver.claims(Capability.DURABLE):
        report.rules |= {"CRS-006": _NOT_ASKED}
        if act and act.verb == "apply_diff":
            report.rules |= {_RETURNED: _NOT_ASKED}
    return report


def _look(scene: CutScene, report: Reporter, moment: _Moment, victim: Victim) -> None:
    """Start a driver on an image, and check what it finds."""
    scene.disk.restore(moment.image)
    act = ACTS.get(report.where.act)
    # A removed layer may come back: whoever removed it will do so again.
    returned = not moment.point and (act is None or act.verb != "remove")
    report.log.lines.append(f"after {report.happened}")
    try:
        Check(report, act, victim, returned=returned).run()
    except Broken:
        pass
    finally:
        umount_below(scene.home)
    now = names_below(scene.place)
    if not report.is_dirty and now != scene.names:
        report.found(
            "CRS-010",
            "the names in the home are those of before",
            shown_names(now - scene.names, scene.names - now),
        )
