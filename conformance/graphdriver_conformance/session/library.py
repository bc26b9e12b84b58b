"""The suite as a function: what `graphdriver_conformance.check` does."""

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from graphdriver_conformance.results.runs import Run

__all__ = ["CheckFailed", "run_suite", "spec_of"]


class CheckFailed(Exception):
    """The suite could not run; the message says why and what to do."""


def run_suite(
    driver: str | Callable[..., object],
    requirements: Sequence[str],
    options: Sequence[str],
    profile: str,
    seed: int,
    home: str | None,
    workers: int,
) -> Run:
    """Run pytest on the driver and read the result file back. Raises CheckFailed."""
    with tempfile.TemporaryDirectory(prefix="graphdriver-check-") as scratch:
        report = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "pytest", f"--graphdriver={spec_of(driver)}", "-q"]
        command += ["--tb=no", "-p", "no:cacheprovider", f"--graphdriver-report={report}"]
        command += [f"--graphdriver-profile={profile}", f"--graphdriver-seed={seed}"]
        command += [f"--requirement={one}" for one in requirements]
        command += [f"--graphdriver-option={one}" for one in options]
        command += [f"--graphdriver-home={home}"] * bool(home) + [f"-n{workers}"] * bool(workers)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.exists():
            said = (done.stderr or done.stdout).strip().splitlines()
            raise CheckFailed(said[-1].removeprefix("ERROR: ") if said else "pytest said nothing")
        return Run.of(json.loads(report.read_text("utf-8")))


def spec_of(driver: str | Callable[..., object]) -> str:
    """Return the SPEC of a factory: module:attribute. Raises CheckFailed for one of nowhere."""
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
        raise CheckFailed(f"{module}:{name} is something else than {driver!r}; name it as a SPEC")
    return f"{module}:{name}"
