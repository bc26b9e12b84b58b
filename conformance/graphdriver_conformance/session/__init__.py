"""A run of the suite inside pytest, loaded when a driver is named.

`Run` is the state of a run. The hooks are in one module for each part of it: `collection` selects
and orders the tests, `protocol` runs each in a supervised process, `fixture` provides the driver,
`reports` classifies the result, `ending` folds the results, writes them and prints the verdict.
"""

import os
import signal
from pathlib import Path

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from graphdriver_conformance.drivers.resolve import BadSpec, resolve
from graphdriver_conformance.fixture.homes import Homes
from graphdriver_conformance.host import namespaces
from graphdriver_conformance.session.collection import Collection
from graphdriver_conformance.session.ending import Ending, started_now
from graphdriver_conformance.session.fixture import Fixture
from graphdriver_conformance.session.machines import Sender, runs_on_each
from graphdriver_conformance.session.progress import Progress
from graphdriver_conformance.session.protocol import Protocol
from graphdriver_conformance.session.reports import Reports
from graphdriver_conformance.session.run import Run
from graphdriver_conformance.suite.support.effort import PROFILE_VARIABLE

__all__ = ["activate"]

_MOST_WORKERS = 300
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def activate(config: pytest.Config) -> None:
    """Prepare the run and register the rest of the plugin. Raises pytest.UsageError."""
    worker = getattr(config, "workerinput", None)
    is_each = runs_on_each(config)
    if not worker:
        _check_places(config)
    _end_by_sigterm_as_by_sigint()
    os.environ[PROFILE_VARIABLE] = config.getoption("graphdriver_profile")
    if seconds := config.getoption("graphdriver_deadline", None):
        os.environ["GRAPHDRIVER_DEADLINE"] = f"{seconds:g}"
    try:
        sources = [resolve(spec) for spec in dict.fromkeys(config.getoption("graphdriver"))]
    except BadSpec as error:
        raise pytest.UsageError(str(error)) from None
    if any(source.one_at_a_time for source in sources) and _is_distributed(config):
        raise pytest.UsageError(
            "a running plugin serves one home at a time: run without -n, or let each "
            "process start its own with plugin+exec:COMMAND"
        )
    here = all(source.mount_here for source in sources)
    privileges = namespaces.enter() if here else namespaces.stay()
    if worker and not is_each:
        homes = Homes(Path(worker["graphdriver_base"]) / worker["workerid"])
    else:
        hurried = here and config.getoption("graphdriver_profile") == "quick"
        can_mount = not privileges.limitation
        homes = Homes.make(config.getoption("graphdriver_home"), can_mount, hurried=hurried)
    if getattr(config.option, "maxworkerrestart", "") is None:
        # A driver may kill every worker; tests that depend on the verb are not run, so the run
        # ends.
        config.option.maxworkerrestart = str(_MOST_WORKERS)
    # A project may have configured other names of tests; these are the suite's.
    config.addinivalue_line("python_files", "test_*.py")
    config.addinivalue_line("python_functions", "test_*")
    # Otherwise Hypothesis creates .hypothesis/ in the current directory.
    set_hypothesis_home_dir(homes.base / "hypothesis")
    _draw_no_constants_of_the_suite()
    try:
        run = Run(config, sources, homes, privileges)
    except BaseException:
        homes.discard_all()
        raise
    reports = Reports(run)
    for name, part in (
        ("collection", Collection(run)),
        ("protocol", Protocol(run)),
        ("fixture", Fixture(run)),
        ("reports", reports),
        ("progress", Progress(run)),
        ("ending", Ending(run, reports)),
        *([("sender", Sender(run, started_now()))] if worker and is_each else []),
    ):
        config.pluginmanager.register(part, f"graphdriver-{name}")


def _draw_no_constants_of_the_suite() -> None:
    """Keep Hypothesis from reading the suite's own source for constants to draw.

    It reads modules outside of site-packages, so that a suite that runs from its checkout would
    draw other examples than an installed one, for half a second of each process. Hypothesis has no
    setting for that, and older versions do not do it. Constants of the driver are drawn.
    """
    try:
        from hypothesis.internal.conjecture import providers
    except ImportError:
        return

    is_local = getattr(providers, "is_local_module_file", None)
    if is_local is None or is_local.__module__ == __name__:
        return

    def is_local_to_others(path: str) -> bool:
        return not path.startswith(_PACKAGE) and bool(is_local(path))

    providers.is_local_module_file = is_local_to_others  # type: ignore[assignment, attr-defined]


def _end_by_sigterm_as_by_sigint() -> None:
    """Let SIGTERM end the run like Ctrl-C: with a verdict, a result file, and cleanup."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(f"signal {number}")

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)


def _check_places(config: pytest.Config) -> None:
    """Check now whether the files can be written at the end."""
    for option in ("report", "html", "journal"):
        path = config.getoption(f"graphdriver_{option}", None)
        if path and not Path(path).absolute().parent.is_dir():
            raise pytest.UsageError(
                f"--graphdriver-{option}={path}: there is no directory {Path(path).parent}; "
                "make it first"
            )
        if path and Path(path).is_dir():
            raise pytest.UsageError(f"--graphdriver-{option}={path} is a directory; name a file")
    for option in ("repro", "keep"):
        place = config.getoption(f"graphdriver_{option}", None)
        if place and Path(place).exists() and not Path(place).is_dir():
            raise pytest.UsageError(f"--graphdriver-{option}={place} is a file; name a directory")


def _is_distributed(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput") or bool(config.getoption("numprocesses", None))
