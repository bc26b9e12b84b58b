"""The command `graphdriver`: the suite and its catalogue without pytest's vocabulary."""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence

from graphdriver_conformance.requirement import Requirement, catalogue

__all__ = ["main"]

_USAGE = """graphdriver check [SPEC ...] [pytest options]   judge drivers (default: overlay2)
       graphdriver list [PREFIX]                       the requirements
       graphdriver explain ID                          one of them
       graphdriver serve DRIVER --socket PATH          be a Docker graphdriver plugin"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # check and serve pass on what they do not know, which argparse's subparsers would refuse.
    if given[:1] == ["check"]:
        return check(given[1:])
    if given[:1] == ["serve"]:
        # The server is the reference's, which this package does not import.
        return subprocess.call([sys.executable, "-m", "graphdriver.plugin", *given[1:]])
    parser = argparse.ArgumentParser("graphdriver", usage=_USAGE)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the requirements, one a line")
    listing.add_argument("prefix", nargs="?", default="", help="only ids that begin so")
    explaining = commands.add_parser("explain", help="a requirement: rule, reason, source")
    explaining.add_argument("id")
    options = parser.parse_args(given)
    if options.command == "list":
        return _list(options.prefix)
    return _explain(options.id)


def check(arguments: list[str]) -> int:
    """Run the suite; on all processors where pytest-xdist is there and nobody said otherwise."""
    specs = []
    while arguments and not arguments[0].startswith("-"):
        specs.append(arguments.pop(0))
    command = [sys.executable, "-m", "pytest"]
    command += [f"--graphdriver={spec}" for spec in specs or ["overlay2"]]
    if importlib.util.find_spec("xdist") and not any(
        one.startswith(("-n", "--numprocesses")) for one in arguments
    ):
        command += ["-n", str(min(4, len(os.sched_getaffinity(0))))]
    # The suite ends with its own summary; pytest's would say the same in test names.
    command += ["--no-header", "--tb=no", "-rN", "-p", "no:cacheprovider", *arguments]
    return subprocess.call(command)


def _list(prefix: str) -> int:
    chosen = [one for one in catalogue().values() if one.id.startswith(prefix)]
    for one in chosen:
        print(f"{one.id}  {one.level:<6}  {one.title}")
    return 0 if chosen else _unknown(prefix)


def _explain(id: str) -> int:
    one = catalogue().get(id)
    if one is None:
        return _unknown(id)
    print(_explained(one))
    return 0


def _explained(one: Requirement) -> str:
    rows = [
        f"{one.id}  {one.level}  (since {one.since})",
        "",
        one.title,
        "",
        f"why:       {one.why}",
        f"source:    {one.source}",
    ]
    if one.needs:
        rows.append(f"needs:     {', '.join(one.needs)}")
    if one.rests_on:
        rows.append(f"rests on:  {', '.join(one.rests_on)}")
    rows.append(f"run it:    pytest --driver=SPEC --requirement={one.id}")
    return "\n".join(rows)


def _unknown(id: str) -> int:
    print(f"graphdriver: no requirement {id}; `graphdriver list` shows them", file=sys.stderr)
    return 4
