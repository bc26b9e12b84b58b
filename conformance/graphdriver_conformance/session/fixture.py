"""The fixture `graphdriver`: the driver under test, where the test may ask for it."""

from collections.abc import Iterator

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.drivers.resolve import DriverSource
from graphdriver_conformance.fixture.needs import unclaimed
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.repro.recorder import Recorder
from graphdriver_conformance.session.run import SUBJECT, Run, verified

__all__ = ["Fixture"]


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
        id = verified(request.node)
        unsure = (
            unclaimed(catalogue()[id], source, run.environment, lambda: self._capabilities(source))
            if id
            else ""
        )
        home = run.homes.new()
        try:
            recorder = Recorder(home.parent) if run.config.getoption("graphdriver_repro") else None
            subject = Subject(source, home, run.options, run.environment, recorder)
            subject.unclaimed = unsure
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
