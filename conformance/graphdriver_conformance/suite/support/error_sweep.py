"""One act in which one system call fails, for each of its calls, and the driver's behaviour.

The driver keeps running: it must report the error or return the correct result, must not hold
anything, and must succeed when it is called again. Then it is restarted, as after any other error.
"""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphdriver.contract import Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.drivers import Cause, NoAnswer
from graphdriver_conformance.drivers.resolve import OwnProcess
from graphdriver_conformance.faults.calls import Call, CallKind
from graphdriver_conformance.faults.findings import Swept, Where, ordinal
from graphdriver_conformance.faults.processes import start
from graphdriver_conformance.faults.strace import strace_line
from graphdriver_conformance.faults.supervisor import (
    ALL_CALLS,
    WRITES,
    Supervisor,
    Watched,
    failing,
)
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.host.mountinfo import mounts_below
from graphdriver_conformance.host.processes import descriptors_of, tree_of, wait_for_end
from graphdriver_conformance.oracle.archive import read_archive
from graphdriver_conformance.oracle.tree import Tree
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
    Scene,
    Victim,
    names_below,
)

__all__ = ["error_sweep"]

_RIGHT, _OTHERS, _AS_BEFORE = "CRS-040", "CRS-041", "CRS-042"
_AGAIN, _CAUSE, _LEAKS, _UNMOUNTS = "CRS-043", "CRS-044", "CRS-045", "CRS-046"

_EVERY_ERROR = ("ENOSPC", "EIO", "EMFILE", "ENOMEM", "EACCES", "EINTR")
_DELETES = ("unlink", "unlinkat", "rmdir")


@dataclass(frozen=True, slots=True)
class _Before:
    """The resources of a driver before the act."""

    mounts: tuple[str, ...]
    descriptors: Counter[str]
    processes: tuple[int, ...]


def error_sweep(
    scene: Scene, name: str, most: int, *, every: bool, only: Where | None = None
) -> Swept:
    """Let the calls of one act fail: `most` of them, each with a suitable error.

    With `every` error at each of them, and with the calls that read as well; or only with `only`.
    """
    swept = Swept(name)
    sweep = _Errors(scene, swept)
    if only:
        sweep.at(0, only.fault, with_reads=only.with_reads)
        sweep.at(only.point, only.fault, with_reads=only.with_reads)
        return swept
    calls = sweep.at(0, "EIO", with_reads=False)
    swept.calls = len(calls)
    for point in chosen_points(calls, most):
        for error in _EVERY_ERROR if every else [_suitable(calls[point - 1])]:
            sweep.at(point, error, with_reads=False)
    if every:
        calls = sweep.at(0, "EIO", with_reads=True)
        for point, call in enumerate(calls, 1):
            for error in _errors_of_read(call) if call.kind is CallKind.READ else ():
                sweep.at(point, error, with_reads=True)
    return swept


def _errors_of_read(call: Call) -> tuple[str, ...]:
    """Return the errors that a call that reads can return: only one that opens lacks
    descriptors.
    """
    if call.name == "flock":
        return ("ENOLCK",)
    if call.name.startswith("open"):
        return ("EIO", "EMFILE", "ENOMEM")
    return ("EIO", "ENOMEM")


def _suitable(call: Call) -> str:
    """Return the most common error of a call."""
    if call.name == "umount2":
        return "EBUSY"
    if call.kind is CallKind.FLUSH or call.name in _DELETES:
        return "EIO"
    return "ENOMEM" if call.kind is CallKind.MOUNT else "ENOSPC"


class _Errors:
    """Errors in a verb, or in Init, on a home with layers."""

    def __init__(self, scene: Scene, swept: Swept) -> None:
        self._scene = scene
        self._swept = swept
        self._act = ACTS.get(swept.act)
        self._number = 0
        self._answer: Any = None
        self._mounts_of_init: list[str] = []

    def at(self, point: int, error: str, *, with_reads: bool) -> list[Call]:
        """Let the call `point` fail, 0 for none; check. Returns the calls."""
        self._number += 1
        scene, act = self._scene, self._act
        where = Where(self._swept.act, error, point, with_reads)
        report = Reporter(scene, self._swept, where)
        victim = Victim(f"layer-{point}", act.parent if act else MIDDLE)
        kinds = ALL_CALLS if with_reads else WRITES
        with Supervisor(scene.home, kinds, skips_flushes=True) as supervisor:
            process = start(scene.graphdriver.source, supervisor.enter)
            try:
                watched = self._failed(supervisor, process, report, victim)
            except Broken:
                watched = Watched(point)
            finally:
                supervisor.kill()
                process.end()
        try:
            self._swept.tried += [report.happened] * (point > 0)
            self._start_again(report, victim)
        except Broken:
            pass
        finally:
            umount_below(scene.home)
        if report.is_dirty:
            scene.build()
        return watched.calls

    def _failed(
        self, supervisor: Supervisor, process: OwnProcess, report: Reporter, victim: Victim
    ) -> Watched:
        """Execute the act with the error in it, and check the driver's behaviour."""
        scene, act, where, log = self._scene, self._act, report.where, report.log
        number = where.error
        failure: Exception | None = None
        answer: Any = None
        driver: Driver | None = None
        if act:
            driver = scene.init(process, log)
            act.prepare(scene, log, driver, victim)
        before = self._before(process)
        with supervisor.watching(where.point, failing(number)) as watched:
            try:
                if act and driver:
                    answer = act.call(log, driver, victim)
                else:
                    driver = scene.init(process, log)
            except (DriverError, OSError) as error:
                failure = error
        shown = act.shown(victim) if act else "init(HOME)"
        if watched.hit is None:
            if failure:
                raise failure
            self._answer = _comparable(act, answer)
            self._mounts_of_init = [row.point for row in mounts_below(scene.home)] * (act is None)
            report.happened = f"{shown} without an error"
            return watched
        report.happened = (
            f"{shown}, whose {ordinal(where.point)} call ({watched.hit.shown(supervisor.home)}) "
            f"fails with {errno.errorcode[number]}"
        )
        report.strace = strace_line(watched, f"error={errno.errorcode[number]}")
        if isinstance(failure, NoAnswer):
            how = "does not return" if failure.cause is Cause.HUNG else "ends the driver's process"
            report.found(_RIGHT, f"{shown} raises an error or succeeds", f"it {how}: {failure}")
            raise Broken
        if failure:
            self._check_failure(report, process, before, failure, watched.hit)
        if act and driver:
            self._check_done(report, driver, act, victim, failure, answer, watched.hit)
        elif failure:
            with report.succeeds(_AGAIN, "init(HOME) once more"):
                scene.init(process, log)
        return watched

    def _before(self, process: OwnProcess) -> _Before:
        processes = process.processes()
        return _Before(
            tuple(row.point for row in mounts_below(self._scene.home)),
            _files_of(processes),
            tuple(tree_of(processes)),
        )

    def _check_failure(
        self,
        report: Reporter,
        process: OwnProcess,
        before: _Before,
        failure: Exception,
        hit: Call,
    ) -> None:
        """The error names its cause, and the driver holds nothing."""
        number = report.where.error
        if not _names_cause(failure, number):
            text = f"{errno.errorcode[number]}: {os.strerror(number)}"
            report.found(_CAUSE, f"the error names its cause, {text}", described(failure))
        held: list[str] = []
        for one in tree_of(process.processes()):
            if one not in before.processes and not wait_for_end(one):
                held.append(f"the process {one}")
        more = _files_of(process.processes()) - before.descriptors
        held += [f"a descriptor of {name}" for name in more]
        if hit.name != "umount2":  # after which a mount must exist
            points = [row.point for row in mounts_below(self._scene.home)]
            held += [
                f"a mount at {one}"
                for one in points
                if one not in (*before.mounts, *self._mounts_of_init)
            ]
        if held:
            shown = ", ".join(sorted(held)[:3])
            report.found(
                _LEAKS, "the driver holds the same resources as before the call", f"also {shown}"
            )

    def _check_done(
        self,
        report: Reporter,
        driver: Driver,
        act: Act,
        victim: Victim,
        failure: Exception | None,
        answer: Any,
        hit: Call,
    ) -> None:
        if failure is None:
            self._check_success(report, driver, act, victim, answer, hit)
            return
        log, id, shown = report.log, victim.id, act.shown(victim)
        AfterRestart(report, _OTHERS, _OTHERS, _OTHERS, _OTHERS).check_top(driver)
        allowed = [victim.before] + [None] * (act.verb == "remove")
        if act.verb not in ("get", "put", "cleanup"):
            state = state_of(log, driver, id)
            if isinstance(state, Exception) or (act.verb == "remove" and state is None):
                return  # it must be removed first, or does not exist
            # A part of the archive may be in a layer in use; the second try must complete it.
            if not is_one_of(state, allowed) and not act.is_held:
                wanted = "does not exist" if victim.before is None else "is as before"
                actual = "it exists" if victim.before is None else "it is not"
                lines = same(victim.before, state) if victim.before and state else []
                report.found(_AS_BEFORE, f"after a failure the layer {wanted}", actual, lines)
                raise Broken
        with report.succeeds(_AGAIN, f"{shown} again, without the error,"):
            answer = act.call(log, driver, victim)
        self._check_success(report, driver, act, victim, answer, None, _AGAIN)

    def _check_success(
        self,
        report: Reporter,
        driver: Driver,
        act: Act,
        victim: Victim,
        answer: Any,
        hit: Call | None,
        requirement: str = _RIGHT,
    ) -> None:
        """The effects of reported successes exist."""
        log, shown = report.log, act.shown(victim)
        wanted = f"{shown} has its effect if it succeeds"
        if act.verb in ("put", "cleanup"):
            points = [row.point for row in mounts_below(self._scene.home)]
            inside = [one for one in points if f"/{victim.id}/" in f"{one}/"]
            if inside:
                report.found(
                    _UNMOUNTS if hit else requirement,
                    f"{shown} raises an error, or unmounts the layer",
                    f"it succeeds, and there is a mount at {inside[0]}",
                )
                raise Broken
        if act.verb == "cleanup":
            return  # after cleanup a driver need not be usable before it is restarted
        if act.verb in ("diff", "changes") and _comparable(act, answer) != self._answer:
            report.found(requirement, wanted, "its result differs from the one without the error")
        if act.verb == "get":
            self._check_view(report, driver, victim, requirement)
        state = state_of(log, driver, victim.id)
        if not is_one_of(state, [victim.after]):
            lines = same(victim.after, state) if victim.after and isinstance(state, Tree) else []
            actual = "it succeeds, and the layer " + (
                f"cannot be read: {described(state)}"
                if isinstance(state, Exception)
                else "does not exist"
                if state is None
                else "exists"
                if victim.after is None
                else "shows another tree"
            )
            report.found(requirement, wanted, actual, lines)
            raise Broken

    def _check_view(
        self, report: Reporter, driver: Driver, victim: Victim, requirement: str
    ) -> None:
        """A writable view is writable; it is put twice, once for the act."""
        log = report.log
        with report.succeeds(requirement, f"get({victim.id!r}) again"):
            view = Path(log.call(driver, "get", victim.id))
        try:
            (view / "tried").touch()
            (view / "tried").unlink()
        except OSError as error:
            wanted = "a writable layer can be written"
            report.found(requirement, wanted, f"a file in its view: {described(error)}")
        for _ in range(2):
            log.call(driver, "put", victim.id)

    def _start_again(self, report: Reporter, victim: Victim) -> None:
        restart = AfterRestart(report, _OTHERS, _OTHERS, _OTHERS, _OTHERS)
        with restart.driver() as driver:
            # Without an error there is nothing to look for; kill_sweep looks after a return.
            has_failed = report.where.point > 0
            if self._act:
                if victim.before is victim.after and has_failed:
                    _check_unchanged(report, driver, victim)
                restart.remove(driver, victim.id)
            if has_failed:
                restart.check_others(driver)
            restart.check_cleanup(driver)
        # A missing name, such as a mount point, is not a remnant; layers are compared by tree.
        left = names_below(self._scene.place) - self._scene.names
        if left and not report.is_dirty:
            shown = shown_names(left, frozenset())
            report.found(_AS_BEFORE, "nothing is left in the home once the layer is removed", shown)


def _check_unchanged(report: Reporter, driver: Driver, victim: Victim) -> None:
    """A layer that the act does not change is unchanged."""
    state = state_of(report.log, driver, victim.id)
    if not is_one_of(state, [victim.after]):
        lines = same(victim.after, state) if victim.after and isinstance(state, Tree) else []
        report.found(_RIGHT, "the layer is as before after a restart", "it is not", lines)
        raise Broken


def _files_of(processes: Sequence[int]) -> Counter[str]:
    """Return the open files of processes.

    Not sockets, pipes and the like, which depend on connections.
    """
    return Counter(
        name for one in processes for name in descriptors_of(one) if name.startswith("/")
    )


def _names_cause(failure: Exception, number: int) -> bool:
    """Return whether an error has an errno, or contains its name or text."""
    if getattr(failure, "errno", None) == number:
        return True
    texts = " ".join([str(failure), *getattr(failure, "__notes__", ())]).lower()
    wanted: Iterator[str] = (
        one.lower() for one in (os.strerror(number), errno.errorcode[number], f"errno {number}")
    )
    return any(one in texts for one in wanted)


def _comparable(act: Act | None, answer: Any) -> Any:
    """Return the information about the layer in a result; for an archive, the members without
    times.
    """
    if act is None or act.verb != "diff":
        return answer
    entries = read_archive(answer)
    return sorted((one.name, repr(one.node.but(mtime=0)), one.hardlink or b"") for one in entries)
