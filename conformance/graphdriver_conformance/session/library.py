"""The suite as a function: the implementation of `graphdriver_conformance.check`."""

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphdriver_conformance.results.model import RequirementResult, RunResult, Verdict
from graphdriver_conformance.results.result_file import read_results
from graphdriver_conformance.results.text import headline

__all__ = ["CheckFailed", "CheckResult", "Violations", "run_suite", "spec_of"]


class CheckFailed(Exception):
    """The suite could not run; the message states the reason and the remedy."""


class Violations(AssertionError):
    """The driver violates requirements, which are in `violations`."""

    def __init__(self, spec: str, violations: Sequence[RequirementResult]) -> None:
        rows = [f"{one.id} ({one.level}) {one.title}: {headline(one)}" for one in violations]
        super().__init__("\n  ".join([f"{spec} violates {len(rows)} requirements", *rows]))
        self.violations = list(violations)


@dataclass(frozen=True, slots=True, repr=False)
class CheckResult:
    """The result of `check`: `ok` is true if the run passed, at the requested level."""

    result: RunResult
    ok: bool

    @property
    def verdict(self) -> Verdict:
        """The verdict on the driver."""
        return self.result.verdict

    @property
    def requirements(self) -> Mapping[str, RequirementResult]:
        """The result of every requirement, by id."""
        return self.result.requirements

    @property
    def violations(self) -> list[RequirementResult]:
        """The violated requirements; those that are blocked or waived are not among them."""
        return self.result.violations

    def raise_for_violations(self) -> None:
        """Raise Violations, an AssertionError, unless the run passed."""
        if not self.ok:
            raise Violations(self.result.driver.spec, self.violations)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {outcome}" for outcome, n in self.result.counts().items() if n)
        return f"<CheckResult {self.result.driver.spec}: {self.verdict.value}, {counts}>"


def run_suite(
    driver: str | Callable[..., object], settings: Mapping[str, object], workers: int
) -> CheckResult:
    """Run pytest on the driver and read the result file. Raises CheckFailed.

    `settings` are options of the plugin without their prefix; None and empty ones are omitted.
    """
    with tempfile.TemporaryDirectory(prefix="graphdriver-check-") as scratch:
        report = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "pytest", f"--graphdriver={spec_of(driver)}", "-q"]
        command += ["--tb=no", "-p", "no:cacheprovider", f"--graphdriver-report={report}"]
        for name, value in settings.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            flag = "--requirement" if name == "requirement" else f"--graphdriver-{name}"
            command += [f"{flag}={one}" for one in values if one not in (None, "")]
        command += [f"-n{workers}"] * bool(workers)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        journal = report.with_suffix(".journal.jsonl")
        written = [path for path in (report, journal) if path.exists()]
        if not written:
            printed = (done.stderr or done.stdout).strip().splitlines()
            last = printed[-1].removeprefix("ERROR: ") if printed else ""
            raise CheckFailed(last or f"pytest printed nothing and ended with {done.returncode}")
        (result,) = read_results(written[:1])
        return CheckResult(result, done.returncode == 0)


def spec_of(driver: str | Callable[..., object]) -> str:
    """Return the SPEC of a factory: module:attribute. Raises CheckFailed if it cannot be
    imported.
    """
    if isinstance(driver, str):
        return driver
    module = getattr(driver, "__module__", "")
    name = getattr(driver, "__qualname__", "")
    if module in ("", "__main__") or "<" in name or not name:
        raise CheckFailed(
            f"{driver!r} cannot be imported by another process; put it into a module of its own"
        )
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not driver:
        raise CheckFailed(f"{module}:{name} is not {driver!r}; name it as a SPEC")
    return f"{module}:{name}"
