"""A run of the suite inside pytest: the fixture, outcomes, the verdict. Loaded when needed."""

import datetime
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from graphdriver.errors import DriverError
from graphdriver_conformance import namespaces, outcome, verdict
from graphdriver_conformance.drivers import BadSpec, DriverSource, resolve
from graphdriver_conformance.effort import PROFILE_VARIABLE
from graphdriver_conformance.environment import Environment, probe
from graphdriver_conformance.homes import Homes
from graphdriver_conformance.requirement import Requirement, catalogue
from graphdriver_conformance.result import Result, report_path, write_result
from graphdriver_conformance.subject import NotClaimed, NotProvable, Subject

__all__ = ["activate"]


def activate(config: pytest.Config) -> None:
    """Prepare the run and register the rest of the plugin. Raises pytest.UsageError."""
    os.environ[PROFILE_VARIABLE] = config.getoption("graphdriver_profile")
    try:
        sources = [resolve(spec) for spec in config.getoption("graphdriver")]
    except BadSpec as error:
        raise pytest.UsageError(str(error)) from None
    privileges = namespaces.enter()
    worker = getattr(config, "workerinput", None)
    if worker:
        homes = Homes(Path(worker["graphdriver_base"]) / worker["workerid"])
    else:
        homes = Homes.make(config.getoption("graphdriver_home"), bool(not privileges.trouble))
    # A project may have named its own tests otherwise; these are ours.
    config.addinivalue_line("python_files", "test_*.py")
    config.addinivalue_line("python_functions", "test_*")
    # Hypothesis would otherwise leave a directory of notes where the user stands.
    set_hypothesis_home_dir(homes.base / "hypothesis")
    config.pluginmanager.register(
        Session(config, sources, homes, privileges), "graphdriver-session"
    )


class Session:
    """The hooks and fixtures of a run."""

    def __init__(
        self,
        config: pytest.Config,
        sources: list[DriverSource],
        homes: Homes,
        privileges: namespaces.Privileges,
    ) -> None:
        self._config = config
        self._sources = {source.spec: source for source in sources}
        self._homes = homes
        self._options = tuple(config.getoption("graphdriver_option"))
        self._is_worker = hasattr(config, "workerinput")
        self._reports: dict[str, list[dict[str, Any]]] = {spec: [] for spec in self._sources}
        self._foreign_failures = 0
        self._results: list[Result] = []
        self._clock = time.monotonic()
        self._started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.environment = probe(homes.base, privileges)
        self._trouble = privileges.trouble
        self._drivers = {} if self._is_worker else {s.spec: self._introduce(s) for s in sources}

    # Collection.

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test of the suite for each driver."""
        if "graphdriver" in metafunc.fixturenames:
            metafunc.parametrize("graphdriver", sorted(self._sources), indirect=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep what `--requirement` selects, in the order of what rests on what."""
        wanted = tuple(config.getoption("requirement"))
        known = catalogue()
        unknown = [one for one in wanted if not any(id.startswith(one) for id in known)]
        if unknown:
            raise pytest.UsageError(
                f"--requirement={unknown[0]}: no such requirement; `graphdriver list` shows them"
            )
        dropped = [
            item
            for item in items
            if wanted and _verified(item) and not _verified(item).startswith(wanted)
        ]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]
        ranks = {id: _depth(requirement, known) for id, requirement in known.items()}
        items.sort(key=lambda item: ranks.get(_verified(item), 0))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where its homes go."""
        node.workerinput["graphdriver_base"] = str(self._homes.base)

    # The fixture.

    @pytest.fixture
    def graphdriver(self, request: pytest.FixtureRequest) -> Iterator[Subject]:
        """The driver under test, in a home of its own; see `Subject`."""
        source = self._sources[request.param]
        requirement = catalogue()[_verified(request.node)] if _verified(request.node) else None
        self._check_needs(requirement, self._capabilities(source))
        home = self._homes.new()
        try:
            subject = Subject(source, home, self._options, self.environment)
            request.node.stash[_SUBJECT] = subject
            yield subject
            subject.close()
        finally:
            self._homes.discard(home)

    def _capabilities(self, source: DriverSource) -> frozenset[str] | None:
        declared = getattr(source.factory, "capabilities", None)
        if declared is None or not isinstance(declared, (set, frozenset, list, tuple)):
            home = self._homes.new()
            try:
                driver = source.make(home, self._options)
                declared = getattr(driver, "capabilities", None)
                driver.cleanup()
            finally:
                self._homes.discard(home)
        return None if declared is None else frozenset(map(str, declared))

    def _check_needs(
        self, requirement: Requirement | None, declared: frozenset[str] | None
    ) -> None:
        for need in requirement.needs if requirement else ():
            if need in Environment.needs():
                if lack := self.environment.lacks(need):
                    raise NotProvable(lack)
            elif declared is not None and need not in declared:
                raise NotClaimed(f"the driver does not claim {need}")

    # Outcomes.

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, None]:
        """Add to each report what it says of its requirement."""
        report = (yield).get_result()
        id = _verified(item)
        if not id:
            return
        spec = item.callspec.params.get("graphdriver", "")  # type: ignore[attr-defined]
        subject = item.stash.get(_SUBJECT, None)
        level = catalogue()[id].level.value
        if call.when == "setup":
            # The item's, not the report's: JUnit's are written with the last report of a test.
            item.user_properties += [("requirement", id), ("level", level)]
        error = call.excinfo.value if call.excinfo else None
        if error is None and call.when != "call":
            return
        found, detail = _classify(error, subject)
        rerun = f"pytest --driver={spec} --requirement={id}"
        if found is outcome.Outcome.VIOLATED:
            report.longrepr = f"{id}: {catalogue()[id].title}\n{detail}\nreproduce: {rerun}"
        report.graphdriver = {
            "spec": spec,
            "requirement": id,
            "outcome": found.value,
            "detail": detail,
            "reproduce": rerun if error is not None else None,
            "seconds": call.duration,
            "examples": max(1, subject.examples) if subject else 0,
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a report says; with xdist this runs where all of them arrive."""
        said = getattr(report, "graphdriver", None)
        if said:
            self._reports[said["spec"]].append(said)
        elif report.failed:
            self._foreign_failures += 1

    # The end.

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge, write the result files, and set the exit code."""
        self._homes.discard_all()
        if self._is_worker or exitstatus not in (0, 1, 5):
            return
        seconds = time.monotonic() - self._clock
        for spec, driver in self._drivers.items():
            judged = outcome.fold(catalogue(), self._reports[spec])
            seed = self._config.getoption("graphdriver_seed")
            result = Result(driver, self.environment, self._started, seconds, seed, judged)
            self._results.append(result)
            if path := self._config.getoption("graphdriver_report"):
                write_result(report_path(path, spec, len(self._drivers) > 1), result)
        failed = self._foreign_failures or any(map(self._fails, self._results))
        session.exitstatus = 1 if failed else 0

    def pytest_report_header(self) -> list[str]:
        """Say what is judged, and where."""
        where = self.environment
        who = "root" if not where.uid else f"uid {where.uid}"
        lines = [
            f"graphdriver: {', '.join(self._sources)} on {where.filesystem}, "
            f"kernel {where.kernel}, "
            f"{who}, profile {self._config.getoption('graphdriver_profile')}, "
            f"seed {self._config.getoption('graphdriver_seed')}"
        ]
        return lines + [text for text in (self._homes.remark, self._trouble) if text]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdict."""
        for result in self._results:
            terminalreporter.section(f"verdict on {result.driver['spec']}")
            for line, colour in verdict.lines(result):
                terminalreporter.line(line, **({colour: True} if colour else {}))

    def _fails(self, result: Result) -> bool:
        level = self._config.getoption("graphdriver_level")
        strict = self._config.getoption("graphdriver_strict")
        bad = {outcome.Outcome.VIOLATED, outcome.Outcome.BLOCKED}
        judged = result.judged.values()
        return (
            any(one.outcome in bad and one.requirement.level.fails(level) for one in judged)
            or any(one.outcome is outcome.Outcome.ERROR for one in judged)
            or not any(one.outcome is outcome.Outcome.MET for one in judged)
            or (
                strict
                and any(
                    one.outcome is outcome.Outcome.NOT_PROVABLE and one.was_asked for one in judged
                )
            )
        )

    def _introduce(self, source: DriverSource) -> dict[str, Any]:
        """Make the driver once and ask who it is. Raises pytest.UsageError when that fails."""
        home = self._homes.new()
        try:
            driver = source.make(home, self._options)
            declared = getattr(driver, "capabilities", None)
            return {
                "spec": source.spec,
                "name": str(driver),
                "status": [list(row) for row in driver.status()],
                "capabilities": None if declared is None else sorted(map(str, declared)),
            }
        except BadSpec as error:
            raise pytest.UsageError(str(error)) from None
        finally:
            self._homes.discard(home)


_SUBJECT = pytest.StashKey[Subject]()


def _verified(item: pytest.Item) -> str:
    """Return the id of the requirement that a test verifies, "" for other tests."""
    marker = item.get_closest_marker("verifies")
    return str(marker.args[0]) if marker else ""


def _depth(requirement: Requirement, known: dict[str, Requirement]) -> int:
    return 1 + max((_depth(known[id], known) for id in requirement.rests_on), default=0)


def _classify(
    error: BaseException | None, subject: Subject | None
) -> tuple[outcome.Outcome, str | None]:
    if error is None:
        return outcome.Outcome.MET, None
    if isinstance(error, NotClaimed):
        return outcome.Outcome.NOT_CLAIMED, str(error)
    if isinstance(error, pytest.skip.Exception):
        return outcome.Outcome.NOT_PROVABLE, str(error) or "skipped without a reason"
    escaped = subject.escaped if subject else None
    if isinstance(error, AssertionError):
        return outcome.Outcome.VIOLATED, _explained(str(error), error, subject)
    if isinstance(error, (DriverError, OSError)) or error is escaped:
        text = f"expected no error, but {type(error).__name__}: {error}"
        return outcome.Outcome.VIOLATED, _explained(text, error, subject)
    return outcome.Outcome.ERROR, f"{type(error).__name__}: {error}"


def _explained(text: str, error: BaseException, subject: Subject | None) -> str:
    """Return the text with what led there: the example, the program, the mounts."""
    parts = [text]
    # Hypothesis tells the shrunk example in notes; how to make it draw that again is not for here.
    parts += [note for note in getattr(error, "__notes__", ()) if "reproduce_failure" not in note]
    if subject:
        parts += subject.notes
        parts += ["program:", *(f"  {line}" for line in subject.program)]
        if mounts := subject.mounts():
            parts += ["mounts below the home:", *(f"  {line[:300]}" for line in mounts[:5])]
    return "\n".join(parts)
