"""Sweeps that several requirements use: each is made once in a run, by the first test that needs
it.

The processes of a run share the findings as files. A process that needs several sweeps makes those
that no other process is making, and waits for the rest.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from graphdriver_conformance.drivers.resolve import DriverSource
from graphdriver_conformance.faults.findings import KILL_NAME, FaultFound, Swept, Where
from graphdriver_conformance.faults.processes import cannot_start
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.suite.support.effort import (
    error_points,
    fault_points,
    is_first_violation_enough,
    is_hurried,
    is_thorough,
)
from graphdriver_conformance.suite.support.error_sweep import error_sweep
from graphdriver_conformance.suite.support.fault_scene import ACTS, Scene
from graphdriver_conformance.suite.support.kill_sweep import FIRST_INIT, INIT, kill_sweep

__all__ = ["Sweeps", "assert_met", "errors", "kills", "swept"]

Sweep = Callable[[Scene, str, Where | None], Swept]
"""Runs the sweep of an act, or of one fault in it only."""
Sweeps = Generator[Swept, None, None]
"""Sweeps of several acts, each run when it is requested."""

_ERROR = "error"
_CHANGING = "create_child"
"""An act in which every driver must change its home."""


def kills(graphdriver: Subject, names: Iterable[str]) -> Sweeps:
    """Kill the driver in each of the acts that it has; yield the findings."""

    def sweep(scene: Scene, name: str, only: Where | None) -> Swept:
        return kill_sweep(scene, name, fault_points(), only.point if only else None)

    return _of_acts(graphdriver, KILL_NAME, names, sweep)


def errors(graphdriver: Subject, names: Iterable[str]) -> Sweeps:
    """Let system calls of each of the acts fail; yield the findings."""

    def sweep(scene: Scene, name: str, only: Where | None) -> Swept:
        return error_sweep(scene, name, error_points(), every=is_thorough(), only=only)

    return _of_acts(graphdriver, _ERROR, names, sweep)


def assert_met(graphdriver: Subject, requirement: str, made: Sweeps) -> None:
    """Raise FaultFound for the first finding about a requirement; count the tested faults.

    Where only the outcome counts, no sweep is made after one with such a finding.
    """
    sweeps: list[Swept] = []
    with closing(made):
        for sweep in made:
            sweeps.append(sweep)
            if is_first_violation_enough() and any(
                one.requirement == requirement for one in sweep.findings
            ):
                break
    graphdriver.examples = max(1, sum(len(one.tried) for one in sweeps))
    for sweep in sweeps:
        for note in sweep.notes:
            graphdriver.note(note)
    findings = [one for sweep in sweeps for one in sweep.findings if one.requirement == requirement]
    if not findings:
        return
    first = findings[0]
    graphdriver.fault = first.where
    graphdriver.program.clear()
    for line in first.program:
        graphdriver.program.line(line)
    for line in _counts(sweeps, requirement):
        graphdriver.note(line)
    if first.strace:
        graphdriver.note(f"the same fault, by hand: {first.strace} PROGRAM")
    raise FaultFound(first)


def _counts(sweeps: Sequence[Swept], requirement: str) -> Iterator[str]:
    for sweep in sweeps:
        points = [one.where.point for one in sweep.findings if one.requirement == requirement]
        if points:
            shown = ", ".join(map(str, sorted(set(points))[:12]))
            yield (
                f"{sweep.act}: broken at {len(set(points))} of {len(sweep.tried)} points that were "
                f"tried, of {sweep.calls} (0 is after the last one): {shown}"
            )


def _require_supervision(graphdriver: Subject) -> None:
    """End the test if no process of this driver can be supervised."""
    if graphdriver.asked.unclaimed:
        graphdriver.not_claimed("the driver does not claim restartable", "restartable")
    if reason := cannot_start(graphdriver.source):
        graphdriver.not_provable(reason)


def _asked(graphdriver: Subject, names: Iterable[str]) -> list[str]:
    """Return the acts that the driver supports and the profile includes."""
    quick = {FIRST_INIT, INIT} | {name for name, act in ACTS.items() if act.is_quick}
    return [
        name
        for name in names
        if (not is_hurried() or name in quick)
        and (is_thorough() or name not in ACTS or not ACTS[name].is_thorough)
        and (name not in ACTS or all(map(graphdriver.claims, ACTS[name].needs)))
    ]


def _of_acts(graphdriver: Subject, kind: str, names: Iterable[str], sweep: Sweep) -> Sweeps:
    """Yield the sweeps of the acts that are asked; ends the test where nothing would be proven."""
    wanted = _asked(graphdriver, names)
    others = [name for name in wanted if name != _CHANGING]
    found = swept(graphdriver, kind, [_CHANGING, *others], sweep)
    if graphdriver.only_fault:
        yield from found
        return
    first = next(found)
    if not first.calls:
        graphdriver.not_provable(
            "no system call of the driver's process changes the home in create: the work is "
            "done by a process that the suite did not start"
        )
    if first.act in wanted:
        yield first
    yield from found


def swept(
    graphdriver: Subject,
    kind: str,
    names: Sequence[str],
    sweep: Sweep,
    scene: Scene | None = None,
) -> Sweeps:
    """Yield the sweeps of these acts, made here or elsewhere; `kind` is that of their faults."""
    _require_supervision(graphdriver)
    scene = scene or Scene(graphdriver)

    def make(name: str, only: Where | None = None) -> Swept:
        if not scene.trees:
            scene.build()
        return sweep(scene, name, only)

    if graphdriver.only_fault:
        yield make(graphdriver.only_fault.act, graphdriver.only_fault)
        return
    place = graphdriver.shared / "faults"
    place.mkdir(exist_ok=True)
    key = _key(graphdriver.source, graphdriver.options)
    found: dict[str, Swept] = {}
    awaited = list(names)
    for waits in (False, True):
        for name in names:
            if name in found:
                continue
            path = place / f"{key}-{kind}-{name}.json"
            with _locked(path, waits=waits) as is_mine:
                if is_mine and not path.exists():
                    _write(path, make(name))
                if is_mine:
                    found[name] = Swept.from_data(json.loads(path.read_text()))
            while awaited and awaited[0] in found:
                yield found[awaited.pop(0)]


def _write(path: Path, swept: Swept) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(swept.to_data()))
    os.replace(beside, path)


def _key(source: DriverSource, options: tuple[str, ...]) -> str:
    """Return the part of a file name for a driver and its options."""
    return hashlib.sha256(repr((source.spec, options)).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path, *, waits: bool) -> Iterator[bool]:
    """Hold the lock of a sweep for the block; False if another process makes it."""
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
