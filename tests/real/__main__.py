"""Run the suite on the drivers; see the documentation of the package."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphdriver_conformance.drivers.resolve import resolve
from graphdriver_conformance.suite.support.effort import SHRINK_VARIABLE

from .expectations import surprises
from .page import document
from .targets import TARGETS, Target, programs_missing, ready

_DOCS = Path(__file__).parents[2] / "docs"
_RESULTS = _DOCS.with_name("results")
_CALLS = 40


def main() -> int:
    """Run the suite on the named targets; return 1 if a result differs from the known one."""
    parser = argparse.ArgumentParser("python -m tests.real")
    parser.add_argument("target", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--check", action="store_true", help="compare only, write no page")
    parser.add_argument("--profile", default="quick", choices=("quick", "default", "thorough"))
    parser.add_argument("-n", type=int, default=2, dest="processes", help="default: 2")
    parser.add_argument("--page", action="store_true", help="write the page again, run nothing")
    options = parser.parse_args()
    if unknown := set(options.target) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    record, before = _recorded(), _recorded()
    if not options.page:
        asked = [TARGETS[name] for name in options.target or TARGETS]
        if missing := programs_missing(asked):
            parser.error(f"not installed: {', '.join(missing)}")
        for target in asked:
            judged = judge(target, options.profile, options.processes)
            _say(target.name, judged)
            record["targets"][target.name] = judged
            if not options.check:  # each result at once: a run of all targets takes hours
                _write({target.name: judged})
    if not options.check:
        _write({})
    failed = False
    for name in options.target or record["targets"]:
        outcomes = record["targets"][name]["outcomes"]
        # Violations of requirements that are newer than the record are not reviewed yet: no
        # failure.
        old = before["targets"].get(name, {}).get("outcomes", {}) if options.check else outcomes
        for id in sorted(outcomes.keys() - old.keys()):
            print(f"{name}: {id} is new to the record: {outcomes[id]}")
        lines = surprises(name, {id: outcomes[id] for id in outcomes.keys() & old.keys()})
        print("\n".join(lines) or f"{name}: everything is as known")
        failed = failed or bool(lines)
    return 1 if failed else 0


def judge(target: Target, profile: str, processes: int) -> dict[str, Any]:
    """Run the suite on one target and return the record of the run."""
    with tempfile.TemporaryDirectory(prefix="real-") as scratch:
        place = Path(scratch)
        report = _RESULTS / f"{target.name}.json"
        _RESULTS.mkdir(exist_ok=True)
        report.unlink(missing_ok=True)
        with ready(target, place) as found:
            command = [sys.executable, "-m", "graphdriver_conformance", "check", *found.arguments]
            command += [f"--graphdriver-profile={profile}", f"--graphdriver-report={report}"]
            command += ["-n", str(processes)]
            # Shrinking takes longer than all other phases if each verb is a process.
            environment = {**found.environment, SHRINK_VARIABLE: "no"}
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            if not report.exists():
                raise SystemExit(f"{target.name}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
            result = json.loads(report.read_text())
            if not result["counts"]["met"]:
                raise SystemExit(f"{target.name}: nothing could be judged: {result}"[:2000])
            with _path(found.environment["PATH"]):
                call = _call_ms(found.arguments, place / "homes" / "calls")
    return {
        "driver": target.driver,
        "title": target.title,
        "suite": target.suite,
        "release": target.release(),
        "version": target.version(),
        "spec": target.spec.format(socket="/SOCKET", gdserve="gdserve"),
        "options": [option.format(fuse="fuse-overlayfs") for option in target.options],
        "kernel": platform.release().split("-")[0],
        "profile": profile,
        "seconds": round(result["seconds"]),
        "call_ms": round(call, 2),
        "counts": result["counts"],
        "outcomes": {row["id"]: row["outcome"] for row in result["requirements"]},
    }


@contextmanager
def _path(path: str) -> Iterator[None]:
    """Use `path` as the search path of programs for the duration of the block."""
    before = os.environ["PATH"]
    os.environ["PATH"] = path
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _call_ms(arguments: list[str], home: Path) -> float:
    """Return the time of a call without work, in milliseconds."""
    source = resolve(arguments[0])
    flag = "--graphdriver-option="
    options = tuple(one.removeprefix(flag) for one in arguments if one.startswith(flag))
    driver = source.make(home, options)
    try:
        took = []
        for _ in range(_CALLS):
            begin = time.perf_counter()
            driver.exists("nobody")
            took.append(time.perf_counter() - begin)
        driver.cleanup()
    finally:
        source.processes.release(driver)
    return 1000 * statistics.median(took)


def _write(judged: dict[str, Any]) -> None:
    record = _recorded()  # another process may have added targets
    record["targets"] |= judged
    (_DOCS / "real-drivers.json").write_text(json.dumps(record, indent=1) + "\n")
    (_DOCS / "real-drivers.md").write_text(document(record))


def _recorded() -> dict[str, Any]:
    path = _DOCS / "real-drivers.json"
    recorded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"targets": {}}
    return recorded


def _say(name: str, one: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in one["counts"].items() if count)
    print(f"{name}: {counts}; {one['seconds']} s, {one['call_ms']} ms a call", flush=True)


if __name__ == "__main__":
    sys.exit(main())
