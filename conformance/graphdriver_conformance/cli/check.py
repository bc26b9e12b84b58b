"""`graphdriver check`: the suite, on all processors."""

import importlib.util
import os
import subprocess
import sys

__all__ = ["run"]


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
