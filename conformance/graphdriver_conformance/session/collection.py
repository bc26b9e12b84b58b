"""Which tests run, and in what order."""

from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import Requirement, catalogue
from graphdriver_conformance.session.run import Run, verified

__all__ = ["Collection"]


class Collection:
    """The hooks that choose and order the tests."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test of the suite for each driver."""
        if "graphdriver" in metafunc.fixturenames:
            metafunc.parametrize("graphdriver", sorted(self._run.sources), indirect=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep what `--requirement` selects, in the order of what rests on what."""
        wanted = tuple(config.getoption("graphdriver_requirement"))
        known = catalogue()
        unknown = [one for one in wanted if not any(id.startswith(one) for id in known)]
        if unknown:
            raise pytest.UsageError(
                f"--requirement={unknown[0]}: no such requirement; `graphdriver list` shows them"
            )
        dropped = [
            item
            for item in items
            if wanted and verified(item) and not verified(item).startswith(wanted)
        ]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]
        ranks = {id: _depth(requirement, known) for id, requirement in known.items()}
        items.sort(key=lambda item: ranks.get(verified(item), 0))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where its homes go."""
        node.workerinput["graphdriver_base"] = str(self._run.homes.base)


def _depth(requirement: Requirement, known: dict[str, Requirement]) -> int:
    return 1 + max((_depth(known[id], known) for id in requirement.rests_on), default=0)
