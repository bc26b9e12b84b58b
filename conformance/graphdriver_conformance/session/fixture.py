"""The fixture `graphdriver`: the driver under test, where the test may ask for it."""

from collections.abc import Iterator

import pytest

from graphdriver.contract import Capability
from graphdriver_conformance.drivers import OFFERS, DriverSource
from graphdriver_conformance.environment import Environment
from graphdriver_conformance.repro.recorder import Recorder
from graphdriver_conformance.requirement import Requirement, catalogue
from graphdriver_conformance.session.run import SUBJECT, Run, verified
from graphdriver_conformance.subject import NotClaimed, NotProvable, Subject

__all__ = ["PROBED", "Fixture"]

PROBED = frozenset(
    {
        Capability.ACLS,
        Capability.CONTENT_EXACT_CHANGES,
        Capability.EXACT_DIFFS,
        Capability.HARDLINK_IDENTITY,
        Capability.LOWER_SYMLINKS,
        Capability.RESTARTABLE,
        Capability.ROOT_METADATA,
        Capability.USER_XATTRS,
    }
)
"""Capabilities that are looked at although not claimed: one may work without its author knowing.

Only such as cost a few files. The others fill disks, make a hundred layers, or ask for verbs that
are not there.
"""


class Fixture:
    """The plugin that has the fixture."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._declared: dict[str, frozenset[str] | None] = {}

    @pytest.fixture
    def graphdriver(self, request: pytest.FixtureRequest) -> Iterator[Subject]:
        """The driver under test, in a home of its own; see `Subject`."""
        run = self._run
        source = run.sources[request.param]
        requirement = catalogue()[verified(request.node)] if verified(request.node) else None
        unclaimed = self._check_needs(requirement, source)
        home = run.homes.new()
        try:
            recorder = Recorder(home.parent) if run.config.getoption("graphdriver_repro") else None
            subject = Subject(source, home, run.options, run.environment, recorder)
            subject.unclaimed = unclaimed
            request.node.stash[SUBJECT] = subject
            yield subject
            subject.close()
        finally:
            run.homes.discard(home)

    def _capabilities(self, source: DriverSource) -> frozenset[str] | None:
        """Return what a driver declares; asked once, as some have to be started for it."""
        if source.spec not in self._declared:
            declared = getattr(source.factory, "capabilities", None)
            if not isinstance(declared, (set, frozenset, list, tuple)):
                with self._run.made(source) as driver:
                    declared = getattr(driver, "capabilities", None)
                    driver.cleanup()
            self._declared[source.spec] = (
                None if declared is None else frozenset(map(str, declared))
            )
        return self._declared[source.spec]

    def _check_needs(self, requirement: Requirement | None, source: DriverSource) -> str:
        """Return what the driver does not claim where the test may look all the same, or ""."""
        unclaimed: list[str] = []
        lacks: list[str] = []
        for need in requirement.needs if requirement else ():
            if need in Environment.needs():
                if lack := self._run.environment.lacks(need):
                    lacks.append(lack)
            elif need in OFFERS:
                if need not in source.offers:
                    raise NotClaimed(OFFERS[need])
            elif (declared := self._capabilities(source)) is not None and need not in declared:
                unclaimed.append(need)
        # What is not claimed need not be proven, here or anywhere.
        if unclaimed and (lacks or not set(unclaimed) <= PROBED):
            raise NotClaimed(f"the driver does not claim {', '.join(unclaimed)}")
        if lacks:
            raise NotProvable(lacks[0])
        return ", ".join(unclaimed)
