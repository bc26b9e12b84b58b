"""`graphdriver doctor`: what this machine can show of the catalogue, and how to get the rest."""

import argparse
import importlib.util
import shutil
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.fixture.homes import Homes
from graphdriver_conformance.host import namespaces
from graphdriver_conformance.host.environment import Environment, probe

__all__ = ["run"]

# What makes more possible, by what is missing: a program, or a module of Python.
_PROGRAMS = {
    "newuidmap": "ordinary users get more than one id: apt-get install uidmap",
    "unshare": "scripts of violations need it: apt-get install util-linux",
}
_MODULES = {
    "xdist": "the suite uses all processors: pip install 'graphdriver-conformance[xdist]'",
    "grpc": "containerd's snapshotters: pip install 'graphdriver-conformance[containerd]'",
}


def run(arguments: list[str]) -> int:
    """Print it; 0 when the whole catalogue can be shown, 1 when not, 4 when nothing can run."""
    parser = argparse.ArgumentParser("graphdriver doctor", description=__doc__)
    parser.add_argument("--graphdriver-home", metavar="DIR", help="where the homes would go")
    asked = parser.parse_args(arguments).graphdriver_home
    privileges = namespaces.enter()
    try:
        homes = Homes.make(asked, not privileges.trouble)
    except pytest.UsageError as error:
        print(f"graphdriver doctor: {error}", file=sys.stderr)
        return 4
    try:
        environment = probe(homes.base, privileges)
    finally:
        homes.discard_all()
    for line in (homes.remark, privileges.trouble):
        if line:
            print(line)
    print("\n".join(_machine(environment)))
    lines, is_all = _provable(environment)
    print("\n".join([*lines, *_more()]))
    return 0 if is_all else 1


def _machine(environment: Environment) -> Iterator[str]:
    who = "root" if not environment.uid else f"uid {environment.uid}"
    inside = " in a user namespace" if environment.facts.get("userns") == "true" else ""
    yield f"kernel       {environment.kernel} ({environment.machine})"
    yield f"homes on     {environment.filesystem}"
    yield f"runs as      {who}{inside}"
    for need in sorted(Environment.needs()):
        yield f"{need:<12} {'no' if environment.lacks(need) else 'yes'}"
    for name, value in environment.facts.items():
        if name.startswith("overlay."):
            yield f"{name.removeprefix('overlay.'):<12} {value}"


def _provable(environment: Environment) -> tuple[list[str], bool]:
    """Return how many requirements can be shown, and for the rest what would help."""
    lacking: Counter[str] = Counter()
    levels: Counter[tuple[str, bool]] = Counter()
    for one in catalogue().values():
        lacks = [need for need in one.needs if need in Environment.needs()]
        lacks = [reason for need in lacks if (reason := environment.lacks(need))]
        lacking.update(lacks)
        levels[one.level.value, not lacks] += 1
    lines = [
        f"{level:<12} {levels[level, True]} of {levels[level, True] + levels[level, False]} "
        "requirements can be shown here"
        for level in dict.fromkeys(level for level, _ in levels)
    ]
    lines += [f"{count} more: {reason}" for reason, count in lacking.most_common()]
    return ["", *lines], not lacking


def _more() -> Iterator[str]:
    missing = [hint for name, hint in _PROGRAMS.items() if not shutil.which(name)]
    missing += [hint for name, hint in _MODULES.items() if not importlib.util.find_spec(name)]
    yield from (f"not here: {hint}" for hint in missing)
