"""`graphdriver explain`: one requirement, where it comes from, what proves it."""

import argparse
import ast
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from graphdriver_conformance.catalogue.requirement import Requirement, catalogue
from graphdriver_conformance.cli.unknown import say_unknown

__all__ = ["links_of", "run", "verifiers_of"]

# Where the sources that the catalogue names by number are to be read.
_PLACES = (
    (r"\bmoby #(\d+)", "https://github.com/moby/moby/issues/{}"),
    (r"\bcontainerd #(\d+)", "https://github.com/containerd/containerd/issues/{}"),
    (r"\bcontainers/storage #(\d+)", "https://github.com/containers/storage/issues/{}"),
    (r"\bbuildkit #(\d+)", "https://github.com/moby/buildkit/issues/{}"),
    (r"\b(CVE-\d+-\d+)", "https://nvd.nist.gov/vuln/detail/{}"),
    (r"\bimage-spec\b()", "https://github.com/opencontainers/image-spec/blob/main/layer.md{}"),
)


def run(arguments: list[str]) -> int:
    """Print what is known of the requirement; 4 when there is none of this id."""
    parser = argparse.ArgumentParser("graphdriver explain", description=__doc__)
    parser.add_argument("id", help="as `graphdriver list` shows it")
    id = parser.parse_args(arguments).id
    one = catalogue().get(id.upper())
    if one is None:
        return say_unknown(id)
    print("\n".join(_explained(one)))
    return 0


def links_of(source: str) -> list[str]:
    """Return where to read what a source names."""
    return [
        place.format(number)
        for pattern, place in _PLACES
        for number in dict.fromkeys(re.findall(pattern, source))
    ]


def verifiers_of(id: str) -> Iterator[tuple[str, str]]:
    """Yield FILE::FUNCTION of each test that verifies the requirement, and its docstring."""
    for path in sorted(Path(str(files("graphdriver_conformance.suite"))).glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            marks = [ast.unparse(one) for one in getattr(node, "decorator_list", ())]
            if isinstance(node, ast.FunctionDef) and f"verifies({id!r})" in marks:
                yield f"{path}::{node.name}", ast.get_docstring(node) or ""


def broken_drivers() -> dict[str, list[dict[str, str]]]:
    """Return, by requirement, the broken drivers that prove it: `name`, `does` and `bug` of each.

    The file is generated from the project's own tests, where these drivers are.
    """
    table = files("graphdriver_conformance.catalogue") / "broken_drivers.json"
    found: dict[str, list[dict[str, str]]] = json.loads(table.read_text("utf-8"))
    return found


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
