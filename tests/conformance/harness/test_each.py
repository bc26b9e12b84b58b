"""`--dist each`: every machine runs the suite, with a verdict and a result file of its own.

The machines are local processes, which the drivers distinguish by an environment variable of xdist.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.results.grid import labels
from graphdriver_conformance.results.result_file import read_results

pytest.importorskip("xdist")
pytest_plugins = ("pytester",)

BROKEN_ON_ONE = """
import os
from graphdriver.vfs import Driver
class Mine(Driver):
    def exists(self, id):
        return os.environ.get("PYTEST_XDIST_WORKER") != "gw1" and super().exists(id)
"""
ABSENT_ON_ONE = """
import os
if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
    os._exit(3)
from graphdriver.vfs import Driver as Mine
"""
KILLS_ITS_WORKER_ON_ONE = """
import os, signal
from graphdriver.vfs import Driver
class Mine(Driver):
    def exists(self, id):
        if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
            os.kill(os.getppid(), signal.SIGKILL)
        return super().exists(id)
"""


def _run(pytester: pytest.Pytester, driver: str, *more: str) -> pytest.RunResult:
    pytester.makepyfile(mine=driver)
    return pytester.runpytest_subprocess(
        *("--driver=mine:Mine", "--dist=each", "--tx=2*popen", "--graphdriver-profile=quick"),
        *("--graphdriver-report=r.json", "-p", "no:cacheprovider", *more),
    )


def _outcomes(path: Path) -> dict[str, str]:
    data: dict[str, Any] = json.loads(path.read_text())
    return {
        one["id"]: one["outcome"]
        for one in data["requirements"]
        if one["outcome"] != "not-selected"
    }


def test_each_machine_has_a_verdict_and_a_file(pytester: pytest.Pytester) -> None:
    result = _run(pytester, BROKEN_ON_ONE, "--requirement=LIF-001", "--requirement=LIF-002")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*verdict on mine:Mine on gw0*", "*verdict on mine:Mine on gw1*"])
    correct, broken = (pytester.path / f"r-gw{number}.json" for number in (0, 1))
    assert set(_outcomes(correct).values()) == {"met"}
    assert _outcomes(broken)["LIF-001"] == "violated"
    assert _outcomes(broken).keys() == _outcomes(correct).keys()
    assert labels(read_results([correct, broken])) == ["mine:Mine · gw0", "mine:Mine · gw1"]


def test_machine_whose_worker_dies_has_the_violation(pytester: pytest.Pytester) -> None:
    result = _run(pytester, KILLS_ITS_WORKER_ON_ONE, "--requirement=LIF-001")

    assert result.ret == 1
    assert _outcomes(pytester.path / "r-gw0.json") == {"LIF-001": "met"}
    # It had not reported its collection, so its tests are unknown.
    result.stdout.fnmatch_lines(["FAILED*gw1: no test was reported*"])


def test_machine_without_the_driver_does_not_succeed(pytester: pytest.Pytester) -> None:
    result = _run(pytester, ABSENT_ON_ONE, "--requirement=LIF-001")

    assert result.ret == 1
    assert _outcomes(pytester.path / "r-gw0.json") == {"LIF-001": "met"}
    data = json.loads((pytester.path / "r-gw1.json").read_text())
    assert data["driver"]["init_error"]["reason"] == "process-died"
    assert data["verdict"] == "inconclusive" or data["verdict"] == "not-conformant"
