"""What a run knows: the drivers it judges, where, and on what machine."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import pytest

from graphdriver.contract import Capability, Driver
from graphdriver_conformance.drivers.resolve import BadSpec, DriverSource
from graphdriver_conformance.fixture.homes import Homes
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.environment import probe
from graphdriver_conformance.host.namespaces import Privileges
from graphdriver_conformance.results.waivers import BadWaivers, Waiver, read_baseline, read_waivers

__all__ = ["SUBJECT", "Run", "verified"]

_Answer = TypeVar("_Answer")
SUBJECT = pytest.StashKey[Subject]()
"""Where a test's item keeps the driver that it was given."""


class Run:
    """A run; the process that starts it introduces the drivers, xdist's workers do not."""

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
        self.is_worker = hasattr(config, "workerinput")
        self.environment = probe(homes.base, privileges)
        self.waivers, self.baseline = self._known_violations()
        self.trouble = privileges.trouble
        self.drivers = {} if self.is_worker else {s.spec: self._introduce(s) for s in sources}

    def _known_violations(self) -> tuple[list[Waiver], dict[str, str]]:
        """Read the files of waivers and the baseline. Raises pytest.UsageError."""
        waivers, baseline = map(
            self.config.getoption, ("graphdriver_waivers", "graphdriver_baseline")
        )
        try:
            return (
                read_waivers(Path(waivers)) if waivers else [],
                read_baseline(Path(baseline)) if baseline else {},
            )
        except BadWaivers as error:
            raise pytest.UsageError(str(error)) from None

    def _introduce(self, source: DriverSource) -> dict[str, Any]:
        """Make the driver once and ask who it is. Raises pytest.UsageError when that fails."""
        no_rows: list[list[str]] = []
        try:
            with self.made(source) as driver:
                return {
                    "spec": source.spec,
                    "name": _told(lambda: str(driver), source.spec),
                    "status": _told(lambda: [list(row) for row in driver.status()], no_rows),
                    "capabilities": _declared(source, driver),
                }
        except BadSpec as error:
            raise pytest.UsageError(str(error)) from None

    @contextmanager
    def made(self, source: DriverSource) -> Iterator[Driver]:
        """Make a driver on a home of its own, for as long as the block runs. Raises BadSpec."""
        home = self.homes.new()
        try:
            driver = source.make(home, self.options)
            yield driver
            source.keeper.release(driver)
        finally:
            self.homes.discard(home)


def _told(ask: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
    """Return what a driver says of itself; that it cannot is for the tests to judge."""
    try:
        return ask()
    except Exception:
        return otherwise


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
        # Otherwise a slip of the pen would be a capability that is not claimed, nor ever asked for.
        near = get_close_matches(unknown, list(Capability), 1)
        remedy = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(Capability)}"
        raise BadSpec(f"{source.spec}: there is no capability {unknown!r}; {remedy}")
    return names


def verified(item: pytest.Item) -> str:
    """Return the id of the requirement that a test verifies, "" for other tests."""
    marker = item.get_closest_marker("graphdriver_verifies")
    return str(marker.args[0]) if marker else ""
