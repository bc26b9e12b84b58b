"""Run the suite on drivers, on all processors.

All options of pytest can be given too, such as -n PROCESSES, -x, --junitxml FILE: see pytest
--help.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphdriver_conformance.plugin import OPTIONS, SPELLINGS
from graphdriver_conformance.results import terminal
from graphdriver_conformance.results.journal import place_of, read_journal
from graphdriver_conformance.results.result_file import report_path, write_result

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for --help and completion; pytest parses them."""
    parser.usage = "graphdriver check [SPEC ...] [options of the suite] [options of pytest]"
    parser.add_argument("SPEC", nargs="*", help="drivers to test (default: overlay2)")
    for name, known in OPTIONS.items():
        parser.add_argument(name, **known)


def run(arguments: list[str]) -> int:
    """Run the suite; on all processors unless -n is given or pytest-xdist is missing.

    A running plugin serves one home at a time: in one process. If a driver kills the whole run, the
    verdict is derived from the journal.
    """
    rest, specs = _with_own_names(arguments), []
    while rest and not rest[0].startswith("-"):
        specs.append(rest.pop(0))
    command = [sys.executable, "-m", "pytest"]
    command += [f"--graphdriver={spec}" for spec in specs or ["overlay2"]]
    asked = any(one.startswith(("-n", "--numprocesses")) for one in rest)
    alone = any(spec.startswith("plugin+unix:") for spec in specs)
    if importlib.util.find_spec("xdist") and not asked and not alone:
        command += ["-n", str(min(4, len(os.sched_getaffinity(0))))]
    # The suite prints a summary of its own; pytest's repeats it with names of tests.
    command += ["--no-header", "--tb=no", "-rN", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory(prefix="graphdriver-run-") as scratch:
        journal = Path(_value("journal", rest) or Path(scratch) / "journal.jsonl")
        code = _call([*command, f"--graphdriver-journal={journal}", *rest])
        if code < 0 and journal.exists():
            return _after_crash(journal, code, _value("report", rest))
    return code


def _with_own_names(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the suite's options by the names that no conftest can own."""
    named = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        named.append(SPELLINGS.get(option, option) + equals + value)
    return named


def _call(command: Sequence[str]) -> int:
    """Run a command and return its exit status; SIGTERM is passed on, Ctrl-C reaches it anyway."""
    with subprocess.Popen(command) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    continue  # it ends by itself, with a verdict
        finally:
            signal.signal(signal.SIGTERM, before)


def _after_crash(journal: Path, code: int, report: str | None) -> int:
    """Report the results of a killed run up to that point, and remove its homes."""
    # Loaded here: the import of namespaces is not needed for a run that ended normally.
    from graphdriver_conformance.fixture.homes import Homes

    content = journal.read_bytes()
    results = read_journal(content)
    name = signal.Signals(-code).name
    print(f"\nthe process of the suite was killed by {name}; results up to then:", file=sys.stderr)
    for result in results:
        print("\n".join(line for line, _ in terminal.lines(result)))
        if report:
            write_result(report_path(report, result.driver.spec, len(results) > 1), result)
    if place := place_of(content):
        Homes(place).discard_all()
    return 1


def _value(option: str, arguments: Sequence[str]) -> str | None:
    """Return the value of an option of the suite among arguments for pytest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--graphdriver-{option}", dest="value")
    value: str | None = parser.parse_known_args(list(arguments))[0].value
    return value
