"""Setup for all tests of the project."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# An example has no deadline: a shared machine may be slow.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes that tests start import the broken drivers, as the tests themselves do."""
    here = str(Path(__file__).parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, paths)])
