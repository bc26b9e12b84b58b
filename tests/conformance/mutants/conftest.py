"""`pytest tests/conformance/mutants --shard I/N` runs one share of the broken drivers."""

import pytest

from graphdriver_conformance.shard import Shard


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", type=Shard.parse, metavar="I/N", help="the Ith of N shares")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    shard = config.getoption("--shard", None)
    if shard:
        share = shard.of(item.nodeid for item in items)
        config.hook.pytest_deselected(items=[one for one in items if one.nodeid not in share])
        items[:] = [one for one in items if one.nodeid in share]
