"""The state of a run: the tested drivers, their homes, and the machine."""

import datetime
import errno
import importlib.metadata
import itertools
import os
import shlex
from collections.abc import Callable, Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import pytest

from graphdriver.contract import Capability, Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import CATALOGUE_VERSION, Requirement, catalogue
from graphdriver_conformance.drivers import Cause, NoAnswer, deadline
from graphdriver_conformance.drivers.resolve import BadSpec, DriverSource, check_verbs
from graphdriver_conformance.fixture.boundary import DriverExited, made_at_boundary
from graphdriver_conformance.fixture.homes import Homes
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.fixture.watch import Watch
from graphdriver_conformance.host.environment import probe
from graphdriver_conformance.host.namespaces import Privileges
from graphdriver_conformance.results.model import (
    DriverInfo,
    InitError,
    Reason,
    RunInfo,
    RunResult,
    Where,
)
from graphdriver_conformance.results.waivers import (
    BadWaivers,
    Waiver,
    read_baseline,
    read_waivers,
)
from graphdriver_conformance.session.classify import printable
from graphdriver_conformance.session.supervisor import Child, ChildDied, ChildHung
from graphdriver_conformance.shard import Shard

__all__ = ["SUBJECT", "Run", "verified"]

_Answer = TypeVar("_Answer")
SUBJECT = pytest.StashKey[Subject]()
"""Key of the driver in a test's item."""
# Options that affect results, and their defaults: a reproducing command has all others.
_TELLING: dict[str, object] = {
    "option": [],
    "home": None,
    "profile": "default",
    "seed": 0,
    "deadline": 60.0,
}
# Attributes of a driver, besides its capabilities, and their types.
_DECLARED: dict[str, type[int] | type[str]] = {
    "layer_limit": int,
    "root_mode": int,
    "option_prefix": str,
}
# A driver in another process that cannot be reached: nothing was tested.
_NOBODY_THERE = (errno.ENOENT, errno.ECONNREFUSED)
# After this number, no more tests are started: each would wait for the deadline.
_MOST_LOST_CLEANUPS = 3
_TOMBSTONES = "fatal"
# An adapter itself reports a verb without an answer; the supervisor is the last resort.
_ADAPTERS_TIME = 3


class Run:
    """A run. Its first process creates the drivers; workers of xdist receive their data."""

    def __init__(
        self,
        config: pytest.Config,
        sources: list[DriverSource],
        homes: Homes,
        privileges: Privileges,
    ) -> None:
        self.config = config
        self.sources = {source.spec: source for source in sources}
        self.homes = homes
        self.options = tuple(config.getoption("graphdriver_option"))
        self.environment = probe(homes.base, privileges)
        asked = config.getoption("graphdriver_shard", None)
        self.shard = Shard.parse(asked) if asked else None
        self.limitation = privileges.limitation
        self.watch = Watch()
        self.left_out: list[tuple[str, str, str]] = []
        """Tests, by id, SPEC and requirement, that do not run although others of theirs do."""
        self._listener: Callable[[Path], None] = lambda home: None
        given = getattr(config, "workerinput", None)
        self.is_worker = given is not None
        # A worker without a directory for homes runs on a machine of its own.
        self.is_alone = given is None or "graphdriver_base" not in given
        received = None if self.is_alone else given
        self.shared = Path(received["graphdriver_base"]) if received else homes.base
        # Waivers are applied in the controller; another machine does not have the files.
        self.waivers, self.baseline = (
            ([], frozenset()) if self.is_worker and self.is_alone else self._known_violations()
        )
        self.drivers: dict[str, DriverInfo] = (
            {one["spec"]: DriverInfo.from_data(one) for one in received["graphdriver_drivers"]}
            if received
            else {source.spec: self._introduced(source) for source in sources}
        )

    def deadline(self, spec: str) -> float:
        """Return the number of seconds after which the supervisor kills a verb of this driver."""
        return deadline() * (1 if self.sources[spec].in_process else _ADAPTERS_TIME)

    def head(self, spec: str, started: str) -> RunResult:
        """Return the result of a driver before any test."""
        option = self.config.getoption
        return RunResult(
            suite=importlib.metadata.version("graphdriver-conformance"),
            catalogue=CATALOGUE_VERSION,
            driver=self.drivers[spec],
            run=RunInfo(
                profile=option("graphdriver_profile"),
                seed=option("graphdriver_seed"),
                processes=option("numprocesses", None) or 1,
                home=option("graphdriver_home") or "",
                command=("pytest", *map(str, self.config.invocation_params.args)),
                shard=str(self.shard) if self.shard else None,
            ),
            where=Where(
                self.environment.kernel,
                self.environment.machine,
                self.environment.filesystem,
                self.environment.uid,
                self.environment.facts,
            ),
            started=started,
            seconds=0.0,
            requirements={},
        )

    def reproduce(self, spec: str, id: str) -> str:
        """Return the command that repeats one requirement, with every relevant option."""
        words = ["pytest", f"--driver={spec}", f"--requirement={id}"]
        for name, default in _TELLING.items():
            value = self.config.getoption(f"graphdriver_{name}", None)
            if value is None or value == default:
                continue
            values = value if isinstance(value, list) else [value]
            words += [f"--graphdriver-{name}={one}" for one in values]
        return shlex.join(words)

    def set_home_listener(self, listener: Callable[[Path], None]) -> None:
        """Report every home that a test gets to the supervising process."""
        self._listener = listener

    def report_home(self, home: Path) -> None:
        """Tell the supervisor the home of the running test."""
        self._listener(home)

    def place_to_keep(self, id: str) -> str | None:
        """Return a new directory for the home of a violation, None unless homes are kept."""
        directory = self.config.getoption("graphdriver_keep", None)
        if not directory:
            return None
        base = Path(directory).absolute()
        base.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            place = base / (id if number == 1 else f"{id}-{number}")
            try:
                place.mkdir()
            except FileExistsError:
                continue
            return str(place)
        raise AssertionError("itertools.count does not end")

    def waiver_of(self, id: str) -> str:
        """Return why a violation does not fail this run, "" if it does."""
        today = datetime.date.today()
        valid = [one for one in self.waivers if one.requirement == id and today <= one.until]
        if valid:
            return str(valid[-1])  # an entry for one requirement comes after the patterns
        return "the baseline has this violation as well" if id in self.baseline else ""

    def is_fatal(self, spec: str, requirement: Requirement) -> list[str]:
        """Return the requirements whose verbs died or hung: itself, and its dependencies."""
        there = self._tombstones(spec)
        found: set[str] = set()
        todo = [requirement.id] if there else []
        while todo:
            id = todo.pop()
            if id in there:
                found.add(id)
            todo += catalogue()[id].rests_on
        return sorted(found)

    def remember_fatal(self, spec: str, id: str) -> None:
        """Prevent all processes of the run from starting tests that depend on this requirement."""
        self._tombstone(spec, id).touch()

    def remember_lost_cleanup(self, spec: str, id: str) -> None:
        """Count a cleanup() that died or hung: every test ends with one."""
        self._tombstone(spec, f"cleanup.{id}").touch()

    def lost_cleanups(self, spec: str) -> list[str]:
        """Return the requirements in whose tests cleanup() died or hung, if there are several."""
        first = "cleanup."
        found = sorted(
            name.removeprefix(first) for name in self._tombstones(spec) if name.startswith(first)
        )
        return found if len(found) >= _MOST_LOST_CLEANUPS else []

    def _tombstone(self, spec: str, name: str) -> Path:
        directory = self.shared / _TOMBSTONES
        directory.mkdir(exist_ok=True)
        return directory / f"{sorted(self.sources).index(spec)}.{name}"

    def _tombstones(self, spec: str) -> set[str]:
        """Return the names of those of a driver; there is no directory before the first."""
        try:
            names = os.listdir(self.shared / _TOMBSTONES)
        except FileNotFoundError:
            return set()
        beginning = f"{sorted(self.sources).index(spec)}."
        return {one.removeprefix(beginning) for one in names if one.startswith(beginning)}

    def _known_violations(self) -> tuple[list[Waiver], frozenset[str]]:
        """Read the files of waivers and the baseline. Raises pytest.UsageError."""
        waivers, baseline = map(
            self.config.getoption, ("graphdriver_waivers", "graphdriver_baseline")
        )
        try:
            return (
                read_waivers(Path(waivers)) if waivers else [],
                read_baseline(Path(baseline)) if baseline else frozenset(),
            )
        except BadWaivers as error:
            raise pytest.UsageError(str(error)) from None

    def _introduced(self, source: DriverSource) -> DriverInfo:
        """Create the driver once, in a process of its own, to get its name and claims.

        Raises pytest.UsageError if SPEC names no driver. A driver that refuses this environment, or
        fails, is described by `init_error`.
        """
        unknown = DriverInfo(source.spec, source.spec, self.options)
        home = self.homes.new()
        child = Child(
            lambda pipe: pipe.send(self._introduction(source, home)), self.watch, self.homes.base
        )
        try:
            kind, data = child.receive(self.deadline(source.spec))
        except ChildDied as error:
            calls = self.watch.calls()
            during = f" in {calls[-1].call}" if calls else " while it was imported"
            text = "\n".join([f"the process {error.how}{during}", *error.output])
            kind, data = "error", InitError("", text, Reason.PROCESS_DIED.value).to_data()
        except ChildHung as error:
            kind, data = "error", InitError("", str(error), Reason.DEADLINE.value).to_data()
        else:
            if call := self.watch.copied():
                text = f"{call} returned in two processes: it forked"
                kind, data = "error", InitError("", text, Reason.RAISED.value).to_data()
        finally:
            child.kill()
            self.homes.discard(home)
        if kind == "usage":
            raise pytest.UsageError(data)
        if kind == "error":
            failure = InitError.from_data(data)
            return DriverInfo(source.spec, source.spec, self.options, init_error=failure)
        return DriverInfo.from_data({**unknown.to_data(), **data})

    def _introduction(self, source: DriverSource, home: Path) -> tuple[str, Any]:
        """Return a kind of answer with its content, which the child of `_introduced` sends."""
        try:
            source.load()
        except BadSpec as error:
            return "usage", str(error)
        try:
            driver = made_at_boundary(source.factory, self.watch, home, self.options, (), ())
        except BadSpec as error:
            return "usage", str(error)
        except Exception as error:
            if not source.in_process and getattr(error, "errno", 0) in _NOBODY_THERE:
                return "usage", f"{source.spec}: {error}"
            return "error", _init_error(error).to_data()
        try:
            check_verbs(source.spec, driver.inside)
            _check_attributes(source, driver.inside)
            claims = _declared(source, driver.inside)
        except BadSpec as error:
            return "usage", str(error)
        except Exception as error:
            kind = type(error).__name__
            text = f"an attribute of the driver cannot be read: {kind}"
            return "error", InitError(kind, text, Reason.RAISED.value).to_data()
        no_rows: list[list[str]] = []
        answer = {
            "name": printable(_answered(lambda: str(driver), source.spec)),
            "status": _answered(
                lambda: [[printable(one) for one in row] for row in driver.status()], no_rows
            ),
            "capabilities": claims,
        }
        _answered(driver.cleanup, None)
        source.processes.release(driver.inside)
        source.processes.close()
        return "driver", answer


def _init_error(error: Exception) -> InitError:
    if isinstance(error, NoAnswer):
        reasons = {Cause.DIED: Reason.PROCESS_DIED.value, Cause.HUNG: Reason.DEADLINE.value}
        reason = reasons.get(error.cause, "refused")
    elif isinstance(error, (DriverError, OSError)):
        reason = "refused"
    elif isinstance(error, DriverExited):
        reason = Reason.PROCESS_DIED.value
    else:
        reason = Reason.RAISED.value
    return InitError(type(error).__name__, printable(str(error)), reason)


def _answered(ask: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
    """Return the driver's answer; tests check a driver that cannot answer."""
    try:
        return ask()
    except Exception:
        return otherwise


def _check_attributes(source: DriverSource, driver: Driver) -> None:
    """Check what a driver may declare beside its capabilities. Raises BadSpec."""
    for name, wanted in _DECLARED.items():
        value = getattr(driver, name, wanted())
        if not isinstance(value, wanted) or isinstance(value, bool):
            kind = type(value).__name__
            raise BadSpec(f"{source.spec}: {name} is a {kind}; it must be a {wanted.__name__}")


def _declared(source: DriverSource, driver: Driver) -> list[str] | None:
    """Return the capabilities that a driver declares, None for all. Raises BadSpec."""
    declared = getattr(driver, "capabilities", None)
    if declared is None:
        return None
    if isinstance(declared, str) or not isinstance(declared, Collection):
        kind = type(declared).__name__
        raise BadSpec(f"{source.spec}: capabilities is a {kind}; it must be a set of names")
    names = sorted(map(str, declared))
    if unknown := next((one for one in names if one not in set(Capability)), None):
        # Otherwise a misspelt capability would be neither claimed nor tested.
        near = get_close_matches(unknown, list(Capability), 1)
        remedy = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(Capability)}"
        raise BadSpec(f"{source.spec}: unknown capability {unknown!r}; {remedy}")
    return names


def verified(item: pytest.Item) -> str:
    """Return the id of the requirement that a test verifies, "" for other tests."""
    marker = item.get_closest_marker("graphdriver_verifies")
    return str(marker.args[0]) if marker else ""
