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
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphdriver_conformance.catalogue.requirement import catalogue
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
    parser.add_argument(
        "--missing", action="store_true",
        help="run the requirements that are newer than the record, and add their outcomes to it",
    )  # fmt: skip
    parser.add_argument("--page", action="store_true", help="write the page again, run nothing")
    options = parser.parse_args()
    if unknown := set(options.target) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    record = _recorded()
    names = options.target or list(TARGETS)
    if not options.page:
        if missing := programs_missing([TARGETS[name] for name in names]):
            parser.error(f"not installed: {', '.join(missing)}")
        for name in names:
            before = record["targets"].get(name, {})
            newer = catalogue().keys() - before.get("outcomes", {}) if options.missing else set()
            if options.missing and not newer:
                continue
            judged = judge(TARGETS[name], options.profile, options.processes, sorted(newer))
            _say(name, judged)
            if newer and before:
                judged = _added(before, judged["outcomes"])
            if options.check:
                old = before.get("outcomes", {})
                judged["outcomes"] = _reviewed(name, judged["outcomes"], old)
                _ask_again(TARGETS[name], judged["outcomes"], options)
            else:  # each result at once: a run of all targets takes hours
                _write({name: judged})
            record["targets"][name] = judged
    if not options.check:
        _write({})
    failed = False
    for name in names if not options.page else record["targets"]:
        lines = surprises(name, record["targets"][name]["outcomes"]).values()
        print("\n".join(lines) or f"{name}: everything is as known")
        failed = failed or bool(lines)
    return 1 if failed else 0


def _added(record: dict[str, Any], outcomes: dict[str, str]) -> dict[str, Any]:
    """Return the record of a target with the outcomes of a run that selected some requirements."""
    ran = {id: outcome for id, outcome in outcomes.items() if outcome != "not-selected"}
    both = record["outcomes"] | ran
    both = {id: both[id] for id in catalogue() if id in both}
    counted = Counter(both.values())
    counts = {outcome: counted[outcome] for outcome in record["counts"]}
    return {**record, "outcomes": both, "counts": counts}


def _reviewed(name: str, outcomes: dict[str, str], old: dict[str, str]) -> dict[str, str]:
    """Return the outcomes of requirements that are in the record, and name the others.

    Violations of requirements that are newer than the record have not been reviewed yet: they are
    no failures.
    """
    for id in sorted(outcomes.keys() - old.keys()):
        print(f"{name}: {id} is new to the record: {outcomes[id]}")
    return {id: outcome for id, outcome in outcomes.items() if id in old}


def _ask_again(target: Target, outcomes: dict[str, str], options: argparse.Namespace) -> None:
    """Print the surprises, and verify them with a second run; change `outcomes` accordingly.

    Other projects' drivers have races that show once in some hundred runs: CI does not fail for
    them, but prints them, so that they are added to the known violations as `sometimes`. Ours gets
    no second run.
    """
    lines = {id: line for id, line in surprises(target.name, outcomes).items() if id in outcomes}
    _print_findings(target, lines)
    if not lines or not target.packages:
        return
    again = judge(target, options.profile, options.processes, lines)["outcomes"]
    for id, line in lines.items():
        if not surprises(target.name, {id: again[id]}):
            print(f"{line}; in a second run it is {again[id]}")
            outcomes[id] = again[id]


def _print_findings(target: Target, ids: Iterable[str]) -> None:
    """Print expected, actual and the calls of each requirement of `ids` from the last run."""
    rows = json.loads(_report(target).read_text())["requirements"]
    for row in rows:
        if row["id"] in ids:
            print(f"{target.name}: {row['id']} {row['outcome']}: {row['detail'] or row['title']}")
            for word in ("expected", "actual"):
                print(f"    {word}:  {row[word]}")
            print("\n".join(f"    {line}" for line in row["program"]), flush=True)


def judge(target: Target, profile: str, processes: int, ids: Iterable[str] = ()) -> dict[str, Any]:
    """Run the suite, or the requirements `ids` of it, on a target; return the record of the run."""
    with tempfile.TemporaryDirectory(prefix="real-") as scratch:
        place = Path(scratch)
        report = _report(target)
        _RESULTS.mkdir(exist_ok=True)
        report.unlink(missing_ok=True)
        with ready(target, place) as found:
            command = [sys.executable, "-m", "graphdriver_conformance", "check", *found.arguments]
            command += [f"--graphdriver-profile={profile}", f"--graphdriver-report={report}"]
            command += ["-n", str(processes), *(f"--requirement={id}" for id in ids)]
            # Shrinking takes longer than all other phases if each verb is a process.
            environment = {**found.environment, SHRINK_VARIABLE: "no"}
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            if not report.exists():
                raise SystemExit(f"{target.name}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
            result = json.loads(report.read_text())
            if not ids and not result["counts"]["met"]:
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


def _report(target: Target) -> Path:
    """Return the result file of the last run on the target."""
    return _RESULTS / f"{target.name}.json"


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
