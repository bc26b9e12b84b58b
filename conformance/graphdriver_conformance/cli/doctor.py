"""List the requirements that this machine can test, and what to install for the others."""

import argparse
import importlib.util
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import Level, catalogue
from graphdriver_conformance.fixture.homes import Homes
from graphdriver_conformance.host import namespaces
from graphdriver_conformance.host.environment import Environment, probe

__all__ = ["add_arguments", "run"]

# Missing programs and Python modules, and what they are needed for.
_PROGRAMS = {
    "newuidmap": "ordinary users get more than one id: apt-get install uidmap",
    "unshare": "scripts of violations need it: apt-get install util-linux",
}
_MODULES = {
    "xdist": "the suite uses all processors: pip install pytest-xdist",
    "grpc": "containerd's snapshotters: pip install grpcio protobuf",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--graphdriver-home", metavar="DIR", help="directory of the homes")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the report; 0 if every requirement can be tested, 1 if not, 4 if none can."""
    privileges = namespaces.enter()
    try:
        homes = Homes.make(options.graphdriver_home, not privileges.limitation)
    except pytest.UsageError as error:
        print(f"graphdriver doctor: {error}", file=sys.stderr)
        return 4
    try:
        environment = probe(homes.base, privileges)
    finally:
        homes.discard_all()
    remarks = [line for line in (homes.remark, privileges.limitation) if line]
    found = _findings(environment, remarks)
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print("\n".join(_lines(found)))
    return 1 if found["lacking"] else 0


def _findings(environment: Environment, remarks: list[str]) -> dict[str, Any]:
    lacking: Counter[str] = Counter()
    levels = {level.value: {"provable": 0, "all": 0} for level in Level}
    for one in catalogue().values():
        needs = [need for need in one.needs if need in Environment.needs()]
        lacks = [reason for need in needs if (reason := environment.lacks(need))]
        lacking.update(lacks)
        levels[one.level.value]["all"] += 1
        levels[one.level.value]["provable"] += not lacks
    return {
        "remarks": remarks,
        "environment": environment.as_data(),
        "can": {need: not environment.lacks(need) for need in sorted(Environment.needs())},
        "requirements": levels,
        "lacking": [
            {"requirements": count, "reason": reason} for reason, count in lacking.most_common()
        ],
        "missing": list(_missing()),
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield from found["remarks"]
    where = found["environment"]
    who = "root" if not where["uid"] else f"uid {where['uid']}"
    inside = " in a user namespace" if where["facts"].get("userns") == "true" else ""
    yield f"kernel       {where['kernel']} ({where['machine']})"
    yield f"homes on     {where['filesystem']}"
    yield f"runs as      {who}{inside}"
    for need, can in found["can"].items():
        yield f"{need:<12} {'yes' if can else 'no'}"
    for name, value in where["facts"].items():
        if name.startswith("overlay."):
            yield f"{name.removeprefix('overlay.'):<12} {value}"
    yield ""
    for level, counts in found["requirements"].items():
        yield f"{level:<12} {counts['provable']} of {counts['all']} requirements can be tested here"
    yield from (f"{one['requirements']} more: {one['reason']}" for one in found["lacking"])
    yield from (f"missing: {hint}" for hint in found["missing"])


def _missing() -> Iterator[str]:
    yield from (hint for name, hint in _PROGRAMS.items() if not shutil.which(name))
    yield from (hint for name, hint in _MODULES.items() if not importlib.util.find_spec(name))
