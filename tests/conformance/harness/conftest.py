"""One run of the suite with a violation, shared by the tests of its outputs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def violated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result file of a broken driver; that of a correct one is in the same directory."""
    directory = tmp_path_factory.mktemp("results")
    for name, spec in (("vfs", "vfs"), ("broken", "graphdriver_mutants:OpaqueDropped")):
        command = [sys.executable, "-m", "pytest", f"--driver={spec}", "-q", "-p", "no:xdist"]
        command += ["--requirement=DIF-002", "--requirement=LNK-001", "--requirement=LIF-001"]
        command += ["--graphdriver-profile=quick", "-p", "no:cacheprovider"]
        command.append(f"--graphdriver-report={directory / name}.json")
        subprocess.run(command, cwd=directory, capture_output=True, check=False)
    return directory / "broken.json"


@pytest.fixture
def result(violated: Path) -> dict[str, Any]:
    """Return the content of the result file."""
    data: dict[str, Any] = json.loads(violated.read_text())
    return data
