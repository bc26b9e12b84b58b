"""Common setup of the project's tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Examples have no deadline: a shared machine may be slow.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Make the broken drivers importable in processes that tests start, as in the tests."""
    here = str(Path(__file__).parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, paths)])
