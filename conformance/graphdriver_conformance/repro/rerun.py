"""A call of the suite's check from a script, for violations that verbs alone do not reproduce.

A list of verbs does not include threads, processes or files beside the home, so the script calls
the check itself, without pytest: there is one process, output is not captured, and breakpoints
work.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import core

from graphdriver_conformance.catalogue.requirement import Requirement, catalogue
from graphdriver_conformance.drivers.resolve import BadSpec, DriverSource, resolve
from graphdriver_conformance.faults.findings import Where
from graphdriver_conformance.fixture.homes import Homes
from graphdriver_conformance.fixture.needs import asked
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host import namespaces
from graphdriver_conformance.host.environment import Environment, probe
from graphdriver_conformance.results.model import Outcome, RequirementResult
from graphdriver_conformance.results.text import finding
from graphdriver_conformance.session.classify import classify
from graphdriver_conformance.suite.support.effort import PROFILE_VARIABLE

__all__ = ["main"]


def main(
    spec: str,
    id: str,
    check: str,
    arguments: Mapping[str, int],
    *,
    options: tuple[str, ...] = (),
    profile: str = "default",
    seed: int = 0,
    fault: tuple[str, str, int, bool] | None = None,
) -> int:
    """Call the function `check` (MODULE:NAME); 1 if it is violated, 0 if not, 2 without driver.

    `arguments` are the indices of the check's arguments in its parametrization; of several faults
    that the check would test, only `fault` is tested (`faults.findings.Where`).
    """
    spec = sys.argv[1] if len(sys.argv) > 1 else spec
    # Read when the suite's modules are imported.
    os.environ[PROFILE_VARIABLE] = profile
    core.global_force_seed = seed  # type: ignore[assignment]  # as Hypothesis's own plugin does
    module, _, name = check.partition(":")
    test = getattr(importlib.import_module(module), name)
    try:
        source = resolve(spec)
        only = Where(*fault) if fault else None
        result = _tried(test, arguments, catalogue()[id], source, options, only)
    except (BadSpec, pytest.UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    reproduced = result.outcome is Outcome.VIOLATED
    outcome = "reproduced" if reproduced else f"not reproduced: {id} is {result.outcome}"
    print(f"{spec}: {outcome}")
    print("".join(f"  {line}\n" for line in finding(result)), end="")
    return int(reproduced)


def _tried(
    test: Callable[..., None],
    arguments: Mapping[str, int],
    requirement: Requirement,
    source: DriverSource,
    options: tuple[str, ...],
    only: Where | None,
) -> RequirementResult:
    subject: Subject | None = None
    failure: BaseException | None = None
    with _prepared_host(source) as (homes, environment):
        try:
            subject = Subject(source, homes.new(), options, environment)
            subject.only_fault = only
            declared = getattr(subject.driver, "capabilities", None)
            claims = None if declared is None else frozenset(map(str, declared))
            subject.asked = asked(requirement, source, environment, lambda: claims)
            test(graphdriver=subject, **_chosen(test, arguments))
            subject.close()
        except (Exception, pytest.skip.Exception) as error:
            failure = error
        return classify(requirement, failure, subject)


@contextmanager
def _prepared_host(source: DriverSource) -> Iterator[tuple[Homes, Environment]]:
    """Yield homes, in the namespaces of a run, and the needs that are met there."""
    privileges = namespaces.enter() if source.mount_here else namespaces.stay()
    homes = Homes.make(None, not privileges.limitation)
    try:
        yield homes, probe(homes.base, privileges)
    finally:
        source.processes.close()
        homes.discard_all()


def _chosen(test: Callable[..., None], places: Mapping[str, int]) -> dict[str, Any]:
    """Return the arguments that `places` select in the test's marks."""
    chosen: dict[str, Any] = {}
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            names, rows = mark.args[:2]
            names = [names] if isinstance(names, str) else names
            row = list(rows)[places[names[0]]]
            chosen |= zip(names, row if len(names) > 1 else [row], strict=True)
    return chosen
