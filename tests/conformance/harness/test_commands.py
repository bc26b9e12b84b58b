"""The commands list, explain, waive, doctor, new and completion, and errors for wrong ones."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.capabilities import document
from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.cli import COMMANDS, PASSED_ON
from graphdriver_conformance.cli.explain import links_of, verifiers_of
from graphdriver_conformance.plugin import OPTIONS
from graphdriver_conformance.results.waivers import read_waivers

ROOT = Path(__file__).parents[3]


def _graphdriver(
    *arguments: str, cwd: Path | None = None, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphdriver_conformance", *arguments]
    env = None if path is None else {**os.environ, "PATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)


def test_help_names_every_command_and_nonsense_is_refused() -> None:
    shown = _graphdriver("--help")

    assert shown.returncode == 0
    assert [one for one in (*COMMANDS, *PASSED_ON) if f"\n    {one}" not in shown.stdout] == []
    refused = _graphdriver("nonsense")
    assert refused.returncode == 2
    assert refused.stderr.endswith("there is no command nonsense\n")
    assert "did you mean check?" in _graphdriver("chek").stderr
    assert _graphdriver().returncode == 2


def test_version_is_that_of_the_package() -> None:
    version = importlib.metadata.version("graphdriver-conformance")

    assert _graphdriver("--version").stdout == f"graphdriver {version}\n"


@pytest.mark.parametrize("name", [*COMMANDS, *PASSED_ON])
def test_every_command_has_a_help(name: str) -> None:
    shown = _graphdriver(name, "--help")

    assert shown.returncode == 0
    assert f"usage: graphdriver {name}" in shown.stdout


def test_help_of_check_has_the_suites_options_and_points_to_pytests() -> None:
    shown = _graphdriver("check", "--help").stdout

    assert [name for name in OPTIONS if f"  {name}" not in shown] == []
    assert "pytest --help" in " ".join(shown.split())


def test_list_is_ordered_and_filters() -> None:
    ids = [line.split()[0] for line in _graphdriver("list").stdout.splitlines()]
    chosen = _graphdriver("list", "dif", "--level", "must", "--capability", "exact_diffs", "--json")

    assert ids == sorted(catalogue())
    rows = json.loads(chosen.stdout)
    assert rows
    assert {(row["id"][:3], row["level"]) for row in rows} == {("DIF", "MUST")}
    assert [row["id"] for row in rows if "exact_diffs" not in row["needs"]] == []
    assert _graphdriver("list", "XYZ").returncode == 4
    assert _graphdriver("list", "--level", "perhaps").returncode == 2


def test_list_of_capabilities_counts_what_a_claim_is_asked() -> None:
    rows = json.loads(_graphdriver("list", "--capabilities", "--json").stdout)
    shown = _graphdriver("list", "--capabilities").stdout

    assert [row["capability"] for row in rows] == [one.value for one in Capability]
    assert [row["capability"] for row in rows if not row["meaning"]] == []
    layout = next(row for row in rows if row["capability"] == "overlay2_layout")
    assert set(layout["requirements"]) == {
        id for id, one in catalogue().items() if "overlay2_layout" in one.needs
    }
    assert len(shown.splitlines()) == 1 + len(rows)


def test_page_of_capabilities_matches_the_code() -> None:
    assert (ROOT / "docs" / "capabilities.md").read_text("utf-8") == document(), (
        "python -m graphdriver_conformance.catalogue.capabilities > docs/capabilities.md"
    )


def test_explain_of_a_family_has_the_rule_and_the_reason_of_each() -> None:
    shown = _graphdriver("explain", "idm").stdout
    rows = json.loads(_graphdriver("explain", "IDM", "--json").stdout)

    family = {id: one for id, one in catalogue().items() if one.family == "IDM"}
    assert [
        id for id, one in family.items() if one.title not in shown or one.why not in shown
    ] == []
    assert [row["id"] for row in rows] == sorted(family)


def test_explain_as_data() -> None:
    found = json.loads(_graphdriver("explain", "lif-012", "--json").stdout)

    assert ("LIF-012", [*catalogue()["LIF-012"].rests_on]) == (found["id"], found["rests_on"])
    assert "https://github.com/moby/moby/issues/36161" in found["links"]
    assert "EmptyIdWipesHome" in [one["name"] for one in found["catches"]]
    assert found["tests"][0]["test"].endswith("test_lifecycle.py::test_empty_id_is_refused")


def test_explain_shows_source_and_broken_drivers() -> None:
    done = _graphdriver("explain", "lif-012")

    assert "https://github.com/moby/moby/issues/36161" in done.stdout
    assert "catches:   EmptyIdWipesHome" in done.stdout
    assert "test_lifecycle.py::test_empty_id_is_refused" in done.stdout
    assert "rests on:  LIF-001  A created layer exists" in done.stdout


def test_waive_drafts_a_file_that_can_be_used(violated: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.toml"

    shown = _graphdriver("waive", str(violated), "--until", "2999-01-31")
    written = _graphdriver("waive", str(violated), "-o", str(path))

    assert (shown.returncode, written.returncode) == (0, 0)
    assert [one.name for one in read_waivers(path)] == ["DIF-002"]
    assert shown.stdout.count('until = "2999-01-31"') == 1
    again = _graphdriver("waive", str(violated), "-o", str(path))
    assert (again.returncode, again.stderr) == (4, f"graphdriver waive: {path}: File exists\n")
    assert _graphdriver("waive", str(violated.with_name("vfs.json"))).returncode == 1
    path.write_text("{}")
    assert _graphdriver("waive", str(path)).returncode == 4


def test_completion_knows_commands_options_and_ids() -> None:
    def completed(*words: str) -> set[str]:
        script = f"""
        eval "$({sys.executable} -m graphdriver_conformance completion)"
        COMP_WORDS=(graphdriver {" ".join(words)}); COMP_CWORD={len(words)}
        _graphdriver; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert completed("re") == {"report"}
    assert completed("''") == {*COMMANDS, *PASSED_ON, "--help", "--version"}
    assert completed("check", "--graphdriver-h") == {"--graphdriver-home", "--graphdriver-html"}
    assert {"IDM", "IDM-001"} <= completed("explain", "IDM")


def test_explain_suggests_similar_ids() -> None:
    done = _graphdriver("explain", "DIFF-001")

    assert done.returncode == 4
    assert "did you mean DIF-001?" in done.stderr


def test_every_requirement_has_tests_to_name() -> None:
    assert [id for id in catalogue() if not list(verifiers_of(id))] == []


def test_sources_have_links() -> None:
    assert links_of("moby #36161") == ["https://github.com/moby/moby/issues/36161"]
    assert links_of("CVE-2021-41091, containerd #2, containerd #2") == [
        "https://github.com/containerd/containerd/issues/2",
        "https://nvd.nist.gov/vuln/detail/CVE-2021-41091",
    ]


@pytest.mark.parametrize("arguments", [["list"], ["matrix", "list"]])
def test_closed_pipe_causes_no_traceback(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "graphdriver_conformance", *arguments]

    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)

    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("arguments", [["list"], ["matrix", "list"]])
def test_full_disk_is_one_sentence(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "graphdriver_conformance", *arguments]

    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode in (2, 4)
    assert done.stderr == f"graphdriver {arguments[0]}: standard output: No space left on device\n"


def test_doctor_counts_what_can_be_shown(tmp_path: Path) -> None:
    done = _graphdriver("doctor", "--graphdriver-home", str(tmp_path))

    assert done.returncode in (0, 1)
    must = sum(one.level == "MUST" for one in catalogue().values())
    assert f" of {must} requirements can be tested here" in done.stdout
    assert list(tmp_path.iterdir()) == []
    found = json.loads(_graphdriver("doctor", "--graphdriver-home", str(tmp_path), "--json").stdout)
    assert found["requirements"]["MUST"]["all"] == must
    assert bool(found["lacking"]) == done.returncode
    assert found["environment"]["uid"] == os.getuid()


def test_doctor_without_a_usable_home_is_one_sentence() -> None:
    done = _graphdriver("doctor", "--graphdriver-home", "/no/such/place")

    assert done.returncode == 4
    assert done.stderr.count("\n") == 1


def test_skeleton_runs_and_meets_no_requirement(tmp_path: Path) -> None:
    assert _graphdriver("new", "mydriver", cwd=tmp_path).returncode == 0
    root = tmp_path / "mydriver"
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-q"]

    ours = subprocess.run(
        [*pytest_, "--requirement=LIF-001"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    own = subprocess.run(
        [*pytest_, "-o", "addopts=--driver=vfs", "tests"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ours.returncode == 1
    assert "exists is not implemented; write it in mydriver/driver.py" in ours.stdout
    assert own.returncode == 0, own.stdout
    assert "1 passed" in own.stdout
    assert "verdict" not in own.stdout
    assert "$" not in (root / "pyproject.toml").read_text() + (root / "README.md").read_text()
    workflow = (root / ".github" / "workflows" / "conformance.yml").read_text()
    assert 'SUITE: "git+https://<where this repository is hosted>"' in workflow
    assert '>> "$GITHUB_STEP_SUMMARY"' in workflow


@pytest.mark.parametrize(
    "name", ["my-driver", "class", "../escape", "there", "os", "pytest", "tests"]
)
def test_new_refuses_bad_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()

    done = _graphdriver("new", name, cwd=tmp_path)

    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
