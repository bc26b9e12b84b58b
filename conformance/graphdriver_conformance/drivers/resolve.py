"""Resolution of a SPEC to a driver factory, with one sentence for each possible error."""

import importlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from graphdriver.contract import Driver, DriverFactory
from graphdriver_conformance.drivers import SCHEMES

__all__ = [
    "IN_PROCESS",
    "OFFERS",
    "BadSpec",
    "DriverProcesses",
    "DriverSource",
    "Enter",
    "OwnProcess",
    "check_verbs",
    "resolve",
]

IN_PROCESS = "in_process"
OFFERS = {
    IN_PROCESS: "the driver is a process of its own, or another program",
    "plugin": "the driver is not behind a plugin socket; with plugin+exec:COMMAND it would be",
}
"""Needs of requirements that depend on the transport, and the message if it lacks them."""

_VERBS = {
    "create": 4,
    "create_read_write": 4,
    "remove": 1,
    "get": 2,
    "put": 1,
    "exists": 1,
    "status": 0,
    "get_metadata": 1,
    "cleanup": 0,
    "diff": 2,
    "changes": 2,
    "apply_diff": 3,
    "diff_size": 2,
}


class BadSpec(Exception):
    """The SPEC does not name a driver; the message is one sentence with the remedy."""


class DriverProcesses:
    """Starts and ends the processes of drivers. In-process drivers have none."""

    def release(self, driver: Driver) -> None:
        """Take back a driver after cleanup, which is no longer used."""

    def end(self, driver: Driver, *, killed: bool) -> None:
        """End the process of a driver that is no longer used, by request or by killing it."""

    def process_of(self, driver: Driver) -> int:
        """Return the id of the process that a driver runs in, 0 if it is not visible."""
        return os.getpid()

    def last_output(self, driver: Driver) -> list[str]:
        """Return the last lines that the driver's process printed, if it has its own."""
        return []

    def keep_output(self, driver: Driver, directory: Path) -> None:
        """Copy the output of the driver's process to `directory`, if it has its own."""

    def close(self) -> None:
        """End all processes at the end of the run."""


class Enter(Protocol):
    """Called by a new process before it creates a thread or executes a program."""

    def __call__(self, *, only_if_watched: bool = False) -> None:
        """Become supervised; a process of a single verb does so only if the verb is watched."""


class OwnProcess(Protocol):
    """A process that has one driver, or starts one for each verb; it can be killed."""

    def init(self, home: Path, options: tuple[str, ...]) -> Driver:
        """Create the driver. Raises its exceptions, and NoAnswer if the process has died."""

    def processes(self) -> list[int]:
        """Return its id; None if each verb is a process."""

    def end(self) -> None:
        """Kill it, with its child processes."""


@dataclass(frozen=True, slots=True)
class DriverSource:
    """A driver that can be created, with its SPEC on the command line.

    `offers` lists needs of requirements that the transport provides, not the driver. A driver
    without `mount_here` mounts in the namespace of the process that started it; the run then has to
    stay in that mount namespace. A driver that is `one_at_a_time` serves a single home, so that
    processes of a run cannot share it. `processes` ends what `factory` starts. `start` starts a
    separate process for a driver that is another program, if the suite can do that.
    """

    spec: str
    factory: DriverFactory
    in_process: bool = True
    offers: frozenset[str] = frozenset({IN_PROCESS})
    mount_here: bool = True
    one_at_a_time: bool = False
    processes: DriverProcesses = field(default_factory=DriverProcesses)
    start: Callable[[Enter | None], OwnProcess] | None = None

    def load(self) -> None:
        """Import a Python driver. Raises BadSpec."""
        if isinstance(self.factory, _Imported):
            self.factory.load()

    def make(self, home: Path, options: tuple[str, ...]) -> Driver:
        """Create the driver and check that it has the verbs. Raises BadSpec, and its exceptions."""
        driver = self.factory(home, options, (), ())
        check_verbs(self.spec, driver)
        return driver


class _Imported:
    """A factory that is imported at its first call, which may crash, or take long."""

    def __init__(self, find: Callable[[], DriverFactory]) -> None:
        self._find = find
        self._found: DriverFactory | None = None

    def load(self) -> DriverFactory:
        """Import it. Raises BadSpec."""
        if self._found is None:
            self._found = self._find()
        return self._found

    def __call__(self, *arguments: Any, **named: Any) -> Driver:
        return self.load()(*arguments, **named)


def resolve(spec: str) -> DriverSource:
    """Return the source of the driver that SPEC names; a Python driver is imported later.

    Raises BadSpec.
    """
    scheme = spec.partition(":")[0]
    if scheme in SCHEMES and ":" in spec:
        source: DriverSource = importlib.import_module(SCHEMES[scheme]).source(spec)
        return source
    is_address = spec.partition(":")[2].startswith("/")
    if "+" in scheme or is_address or scheme in ("plugin", "containers-storage", "containerd"):
        raise BadSpec(
            f"{spec}: no such kind of driver; there are names, module:attribute and "
            + ", ".join(f"{known}:..." for known in SCHEMES)
        )
    if ":" in spec:
        return DriverSource(spec, _Imported(lambda: _from_module(spec)))
    points = importlib.metadata.entry_points(group="graphdriver.drivers")
    if spec not in points.names:
        raise BadSpec(f"{spec}: no such driver; there are {', '.join(sorted(points.names))}")
    return DriverSource(spec, _Imported(lambda: _from_entry_point(spec)))


def _from_entry_point(name: str) -> DriverFactory:
    points = importlib.metadata.entry_points(group="graphdriver.drivers")
    try:
        factory: DriverFactory = points[name].load()
    except (Exception, SystemExit) as error:
        raise BadSpec(f"{name}: loading it raised {type(error).__name__}: {error}") from error
    return factory


def _from_module(spec: str) -> DriverFactory:
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise BadSpec(f"{spec}: importing {module_name} raised {kind}: {error}") from error
    found: object = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        kind = "does not exist" if found is None else f"is a {type(found).__name__}"
        raise BadSpec(f"{spec}: {attribute} {kind}; it must be a factory init(home, options, ...)")
    return found


def check_verbs(spec: str, driver: object) -> None:
    """Check that a driver has the verbs of the contract. Raises BadSpec."""
    missing = [verb for verb in _VERBS if not callable(getattr(driver, verb, None))]
    if missing:
        raise BadSpec(f"{spec}: the driver lacks {', '.join(missing)}; see graphdriver.Driver")
    for verb, count in _VERBS.items():
        try:
            inspect.signature(getattr(driver, verb)).bind(*("",) * count)
        except TypeError as error:
            raise BadSpec(
                f"{spec}: {verb} cannot be called with {count} arguments ({error}); "
                "see graphdriver.Driver"
            ) from None
        except ValueError:
            continue  # a C callable without a signature
