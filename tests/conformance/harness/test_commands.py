"""The commands beside check: explain, doctor, new, fsck."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.cli import COMMANDS, PASSED_ON
from graphdriver_conformance.cli.explain import links_of, verifiers_of


def _graphdriver(
    *arguments: str, cwd: Path | None = None, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphdriver_conformance", *arguments]
    env = None if path is None else {**os.environ, "PATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)


def test_help_names_every_command_and_nonsense_is_refused() -> None:
    shown = _graphdriver("--help")

    assert 0 == shown.returncode
    assert [] == [
        one for one in (*COMMANDS, *PASSED_ON) if f"graphdriver {one} " not in shown.stdout
    ]
    refused = _graphdriver("nonsense")
    assert 2 == refused.returncode
    assert "there is no command nonsense" in refused.stderr


@pytest.mark.parametrize("name", [*COMMANDS, "fsck"])
def test_every_command_has_a_help(name: str) -> None:
    if name != "check":  # whose options are pytest's
        assert f"graphdriver {name}" in _graphdriver(name, "--help").stdout


def test_explain_tells_where_it_comes_from_and_what_proves_it() -> None:
    done = _graphdriver("explain", "lif-012")

    assert "https://github.com/moby/moby/issues/36161" in done.stdout
    assert "catches:   EmptyIdWipesHome" in done.stdout
    assert "test_lifecycle.py::test_empty_id_is_refused" in done.stdout
    assert "rests on:  LIF-001  A created layer exists" in done.stdout


def test_explain_guesses_what_was_meant() -> None:
    done = _graphdriver("explain", "DIFF-001")

    assert 4 == done.returncode
    assert "did you mean DIF-001?" in done.stderr


def test_every_requirement_has_tests_to_name() -> None:
    assert [] == [id for id in catalogue() if not list(verifiers_of(id))]


def test_sources_lead_where_they_say() -> None:
    assert ["https://github.com/moby/moby/issues/36161"] == links_of("moby #36161")
    assert [
        "https://github.com/containerd/containerd/issues/2",
        "https://nvd.nist.gov/vuln/detail/CVE-2021-41091",
    ] == links_of("CVE-2021-41091, containerd #2, containerd #2")


def test_who_reads_no_further_sees_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "graphdriver_conformance", "list"]

    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)

    os.close(write)
    assert (128 + signal.SIGPIPE, "") == (done.returncode, done.stderr)


def test_doctor_counts_what_can_be_shown(tmp_path: Path) -> None:
    done = _graphdriver("doctor", "--graphdriver-home", str(tmp_path))

    assert done.returncode in (0, 1)
    must = sum(one.level == "MUST" for one in catalogue().values())
    assert f" of {must} requirements can be shown here" in done.stdout
    assert [] == list(tmp_path.iterdir())


def test_doctor_without_a_place_is_one_sentence() -> None:
    done = _graphdriver("doctor", "--graphdriver-home", "/no/such/place")

    assert 4 == done.returncode
    assert 1 == done.stderr.count("\n")


def test_new_driver_runs_and_conforms_in_nothing(tmp_path: Path) -> None:
    assert 0 == _graphdriver("new", "mydriver", cwd=tmp_path).returncode
    root = tmp_path / "mydriver"
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-q"]

    ours = subprocess.run(
        [*pytest_, "--driver=mydriver.driver:Driver", "--requirement=LIF-001"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    own = subprocess.run(
        [*pytest_, "--driver=vfs", "tests"], cwd=root, capture_output=True, text=True, check=False
    )

    assert 1 == ours.returncode
    assert "NotSupported: exists is not done yet" in ours.stdout
    assert 0 == own.returncode, own.stdout
    assert "1 passed" in own.stdout
    assert "verdict" not in own.stdout
    assert "$" not in (root / "pyproject.toml").read_text() + (root / "README.md").read_text()
    workflow = (root / ".github" / "workflows" / "conformance.yml").read_text()
    assert '>> "$GITHUB_STEP_SUMMARY"' in workflow


@pytest.mark.parametrize("name", ["my-driver", "class", "../escape", "there"])
def test_new_refuses_bad_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()

    done = _graphdriver("new", name, cwd=tmp_path)

    assert 4 == done.returncode
    assert 1 == done.stderr.count("\n")
    assert ["there"] == [path.name for path in tmp_path.iterdir()]
