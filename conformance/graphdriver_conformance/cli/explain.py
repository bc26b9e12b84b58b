"""Explain a requirement, or each of a family: rule, reason, source, tests and broken drivers."""

import argparse
import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from graphdriver_conformance.catalogue.requirement import Requirement, catalogue
from graphdriver_conformance.cli.unknown import report_unknown_id

__all__ = ["add_arguments", "links_of", "run", "verifiers_of"]

# Addresses of the sources that the catalogue refers to by number.
_PLACES = (
    (r"\bmoby #(\d+)", "https://github.com/moby/moby/issues/{}"),
    (r"\bcontainerd #(\d+)", "https://github.com/containerd/containerd/issues/{}"),
    (r"\bcontainers/storage #(\d+)", "https://github.com/containers/storage/issues/{}"),
    (r"\bbuildkit #(\d+)", "https://github.com/moby/buildkit/issues/{}"),
    (r"\b(CVE-\d+-\d+)", "https://nvd.nist.gov/vuln/detail/{}"),
    (r"\bimage-spec\b()", "https://github.com/opencontainers/image-spec/blob/main/layer.md{}"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("id", metavar="ID|FAMILY", help="as `graphdriver list` shows it, or DIF")
    parser.add_argument(
        "--json", action="store_true", help="as JSON: an object, a list of a family"
    )


def run(options: argparse.Namespace) -> int:
    """Print the explanation; 4 if there is no such requirement or family."""
    id = options.id.upper()
    family = sorted((one for one in catalogue().values() if one.family == id), key=lambda o: o.id)
    if family:
        if options.json:
            print(json.dumps([_data(one) for one in family], indent=1, ensure_ascii=False))
        else:
            print("\n".join(_family(family)))
        return 0
    one = catalogue().get(id)
    if one is None:
        return report_unknown_id(options.id)
    if options.json:
        print(json.dumps(_data(one), indent=1, ensure_ascii=False))
    else:
        print("\n".join(_explained(one)))
    return 0


def links_of(source: str) -> list[str]:
    """Return the addresses of the issues and documents in a source."""
    return [
        place.format(number)
        for pattern, place in _PLACES
        for number in dict.fromkeys(re.findall(pattern, source))
    ]


def verifiers_of(id: str) -> list[tuple[str, str]]:
    """Return FILE::FUNCTION of each test that verifies the requirement, and its docstring."""
    return _verifiers().get(id, [])


@cache
def _verifiers() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(Path(str(files("graphdriver_conformance.suite"))).glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in map(ast.unparse, node.decorator_list):
                if verified := re.fullmatch(r"verifies\('(.*)'\)", mark):
                    test = (f"{path}::{node.name}", ast.get_docstring(node) or "")
                    found.setdefault(verified[1], []).append(test)
    return found


def broken_drivers() -> dict[str, list[dict[str, str]]]:
    """Return the broken drivers that each requirement detects: `name`, `does` and `bug`.

    The file is generated from the project's own tests, which contain these drivers.
    """
    table = files("graphdriver_conformance.catalogue") / "broken_drivers.json"
    found: dict[str, list[dict[str, str]]] = json.loads(table.read_text("utf-8"))
    return found


def _family(family: list[Requirement]) -> Iterator[str]:
    for one in family:
        yield f"{one.id}  {one.level:<6}  {one.title}"
        yield f"         {one.why}"


def _data(one: Requirement) -> dict[str, Any]:
    return {
        "id": one.id,
        "level": one.level.value,
        "title": one.title,
        "why": one.why,
        "source": one.source,
        "links": links_of(one.source),
        "since": one.since,
        "needs": list(one.needs),
        "rests_on": list(one.rests_on),
        "under_it": _resting_on(one.id),
        "catches": broken_drivers().get(one.id, []),
        "tests": [{"test": test, "why": why} for test, why in verifiers_of(one.id)],
    }


def _explained(one: Requirement) -> Iterator[str]:
    yield f"{one.id}  {one.level}  (since {one.since})"
    yield f"\n{one.title}\n"
    yield f"why:       {one.why}"
    yield f"source:    {one.source}"
    yield from (f"           {link}" for link in links_of(one.source))
    if one.needs:
        yield f"needs:     {', '.join(one.needs)}"
    for label, ids in (("rests on:", one.rests_on), ("under it:", _resting_on(one.id))):
        for id in ids:
            yield f"{label}  {id}  {catalogue()[id].title}"
            label = " " * len(label)
    for mutant in broken_drivers().get(one.id, ()):
        yield f"catches:   {mutant['name']}: {mutant['does']}  ({mutant['bug']})"
    for test, why in verifiers_of(one.id):
        yield f"test:      {test}"
        yield f"           {why.partition(chr(10))[0]}"
    yield f"run it:    pytest --driver=SPEC --requirement={one.id}"


def _resting_on(id: str) -> list[str]:
    return [other.id for other in catalogue().values() if id in other.rests_on]
