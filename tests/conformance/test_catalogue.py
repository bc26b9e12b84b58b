"""The catalogue and the tests match in both directions."""

import ast
from collections import Counter
from importlib.resources import files
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.drivers.resolve import OFFERS
from graphdriver_conformance.host.environment import Environment


def _tests() -> list[tuple[str, ast.FunctionDef]]:
    """Return every test of the suite with the id it verifies, "" for none."""
    found = []
    for path in sorted(Path(str(files("graphdriver_conformance.suite"))).glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                calls = [d for d in node.decorator_list if isinstance(d, ast.Call)]
                ids = [c.args[0] for c in calls if ast.unparse(c.func) == "verifies"]
                literal = [one.value for one in ids if isinstance(one, ast.Constant)]
                found.append((str(literal[0]) if len(literal) == 1 else "", node))
    return found


def test_every_test_verifies_one_known_requirement() -> None:
    assert [node.name for id, node in _tests() if id not in catalogue()] == []


def test_every_requirement_has_a_test() -> None:
    tested = Counter(id for id, _ in _tests())

    assert [id for id in catalogue() if not tested[id]] == []
    assert len(catalogue()) >= 60


def test_every_test_says_why_a_user_would_care() -> None:
    assert [node.name for _, node in _tests() if not ast.get_docstring(node)] == []


def test_needs_are_capabilities_or_facts_that_can_be_probed() -> None:
    known = {capability.value for capability in Capability} | Environment.needs() | set(OFFERS)

    assert {
        one.id: unknown for one in catalogue().values() if (unknown := set(one.needs) - known)
    } == {}


def test_no_requirement_depends_on_itself() -> None:
    def below(id: str) -> set[str]:
        direct = catalogue()[id].rests_on
        return set(direct).union(*(below(one) for one in direct))

    assert [id for id in catalogue() if id in below(id)] == []
