"""Shards of a run: complete, disjoint, and merged by `graphdriver report`."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.model import Outcome, Reason, RunResult, Verdict
from graphdriver_conformance.results.result_file import read_results
from graphdriver_conformance.results.shards import joined
from graphdriver_conformance.shard import Shard

IDS = ("LIF-001", "LIF-002", "LIF-003", "LIF-014")
BROKEN = """
from graphdriver.vfs import Driver
class Mine(Driver):
    def exists(self, id): return False
"""


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_each_name_is_in_one_share_in_any_order(count: int) -> None:
    names = list(catalogue())

    shares = [Shard(index, count).of(names) for index in range(1, count + 1)]

    assert [Shard(index, count).of(reversed(names)) for index in range(1, count + 1)] == shares
    assert sorted(name for share in shares for name in share) == sorted(names)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_malformed_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"shards|I/N"):
        Shard.parse(text)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the result files of two shards of a driver with a broken exists()."""
    directory = tmp_path_factory.mktemp("shards")
    (directory / "mine.py").write_text(BROKEN)
    found = []
    for index in (1, 2):
        path = directory / f"{index}.json"
        command = [sys.executable, "-m", "pytest", "--driver=mine:Mine", "-q", "-p", "no:xdist"]
        command += [f"--requirement={id}" for id in IDS]
        command += [f"--shard={index}/2", f"--graphdriver-report={path}"]
        command += ["--graphdriver-profile=quick", "-p", "no:cacheprovider"]
        subprocess.run(command, cwd=directory, capture_output=True, check=False)
        found.append(path)
    return found


def _outcomes(run: RunResult) -> dict[str, Outcome]:
    return {id: one.outcome for id, one in run.requirements.items() if one.was_tested}


def test_shards_are_disjoint_and_joined_complete(files: list[Path]) -> None:
    first, second = read_results(files)

    (run,) = joined([first, second])

    assert not _outcomes(first).keys() & _outcomes(second).keys()
    assert set(_outcomes(run)) == set(IDS)
    assert Outcome.VIOLATED is run.requirements["LIF-001"].outcome
    # It depends on LIF-001, which may be in the other shard.
    assert run.requirements["LIF-014"].blocked_by == ("LIF-001",)
    assert (run.verdict, run.run.shard, run.run.complete) == (Verdict.NOT_CONFORMANT, None, True)


def test_missing_shard_is_no_success(files: list[Path]) -> None:
    (run,) = joined(read_results(files[:1]))

    lacking = set(IDS) - set(_outcomes(read_results(files[:1])[0]))
    assert {
        id for id, one in run.requirements.items() if one.reason is Reason.NOT_REPORTED
    } == lacking
    assert not run.run.complete


def test_runs_that_are_no_shards_of_one_run_stay_apart(files: list[Path]) -> None:
    first, second = read_results(files)
    other = dataclasses.replace(first, where=dataclasses.replace(first.where, kernel="9.9"))

    assert len(joined([second, other])) == 2
    assert len(joined([first, first])) == 2


def test_report_joins_them(files: list[Path]) -> None:
    command = [sys.executable, "-m", "graphdriver_conformance", "report", *map(str, files)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.count("NOT CONFORMANT")) == (0, 1), done.stdout
    assert json.loads(files[1].read_text())["run"]["shard"] == "2/2"
