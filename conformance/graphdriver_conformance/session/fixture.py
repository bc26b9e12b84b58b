"""The fixture `graphdriver`: the driver under test, if the test may use it."""

import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.fixture.needs import Asked, asked
from graphdriver_conformance.fixture.subject import Subject, inner
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.repro.recorder import Recorder
from graphdriver_conformance.results.model import Outcome, RequirementResult
from graphdriver_conformance.session.run import SUBJECT, Run, verified

__all__ = ["HOME", "RESULT", "Fixture", "keep_home"]

HOME = pytest.StashKey[Path]()
"""Key of the home of the driver in a test's item."""
RESULT = pytest.StashKey[RequirementResult]()
"""Key of the result of the call in a test's item."""


class Fixture:
    """The plugin that provides the fixture."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @pytest.fixture
    def graphdriver(self, request: pytest.FixtureRequest) -> Iterator[Subject]:
        """The driver under test, in a home of its own; see `Subject`."""
        run = self._run
        source = run.sources[request.param]
        id = verified(request.node)
        by_claim = Asked()
        if id:
            claims = run.drivers[source.spec].capabilities
            declared = None if claims is None else frozenset(claims)
            by_claim = asked(catalogue()[id], source, run.environment, lambda: declared)
        home = run.homes.new()
        request.node.stash[HOME] = home
        run.report_home(home)
        try:
            recorder = Recorder(home.parent) if run.config.getoption("graphdriver_repro") else None
            subject = Subject(
                source, home, run.options, run.environment, recorder, run.watch, run.shared
            )
            subject.asked = by_claim
            request.node.stash[SUBJECT] = subject
            _assert_claimed(subject, run.drivers[source.spec].capabilities)
            yield subject
            result = request.node.stash.get(RESULT, None)
            place = run.config.getoption("graphdriver_keep", None)
            if place and result and result.outcome is Outcome.VIOLATED and result.kept:
                source.processes.keep_output(inner(subject.driver), Path(result.kept))
                keep_home(subject.home, Path(result.kept))
            subject.close()
        finally:
            run.homes.discard(home)


def _assert_claimed(subject: Subject, claimed: Collection[str] | None) -> None:
    """Assert that the driver has the claims of the start of the run, which are in the result.

    A driver that claims less in a test would not be tested for the other capabilities.
    """
    names = list(Capability) if claimed is None else claimed
    lost = sorted(str(one) for one in names if not subject.claims(Capability(one)))
    assert lost == [], "claimed when the run began, and not by another driver on another home"


def keep_home(home: Path, place: Path) -> None:
    """Copy a home with owners, xattrs and sparse files, without the mounts in it."""
    umount_below(home.parent)
    place.mkdir(parents=True, exist_ok=True)
    if home.exists():
        subprocess.run(["cp", "-a", "--", home, place], check=False)
