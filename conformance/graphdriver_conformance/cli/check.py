"""Judge drivers: the suite, on all processors.

All options of pytest can be given too, as -n PROCESSES, -x, --junitxml FILE: see pytest --help.
"""

import argparse
import importlib.util
import os
import subprocess
import sys

from graphdriver_conformance.plugin import OPTIONS

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments, for --help and completion: they are parsed by pytest."""
    parser.usage = "graphdriver check [SPEC ...] [options of the suite] [options of pytest]"
    parser.add_argument("SPEC", nargs="*", help="drivers to judge (default: overlay2)")
    for name, known in OPTIONS.items():
        parser.add_argument(name, **known)


def run(arguments: list[str]) -> int:
    """Run the suite; on all processors where pytest-xdist is there and nobody said otherwise.

    A plugin that listens already serves one home at a time: on one.
    """
    rest, specs = list(arguments), []
    while rest and not rest[0].startswith("-"):
        specs.append(rest.pop(0))
    command = [sys.executable, "-m", "pytest"]
    command += [f"--graphdriver={spec}" for spec in specs or ["overlay2"]]
    said = any(one.startswith(("-n", "--numprocesses")) for one in rest)
    alone = any(spec.startswith("plugin+unix:") for spec in specs)
    if importlib.util.find_spec("xdist") and not said and not alone:
        command += ["-n", str(min(4, len(os.sched_getaffinity(0))))]
    # The suite ends with its own summary; pytest's would say the same in test names.
    command += ["--no-header", "--tb=no", "-rN", "-p", "no:cacheprovider", *rest]
    return subprocess.call(command)
