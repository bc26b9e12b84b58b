"""The wheel, installed into an empty environment and run from an empty directory."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDINARY = 65534
_RECENT = "import sys, venv, ensurepip; assert sys.version_info >= (3, 11)"

pytestmark = pytest.mark.xdist_group("installed-wheel")


# Not below the temporary directory of pytest, which the ordinary user cannot enter.
def _open_to_all(mode: int) -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="graphdriver-wheel-"))
    base.chmod(mode)
    yield base
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def here() -> Iterator[Path]:
    """Yield a directory that every user may enter."""
    yield from _open_to_all(0o755)


@pytest.fixture
def empty() -> Iterator[Path]:
    """Yield an empty directory that every user may enter and write."""
    yield from _open_to_all(0o777)


@pytest.fixture(scope="module")
def installed(here: Path) -> Path:
    """Return the bin directory of a virtual environment that contains only the wheel."""
    built = here / "dist"
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", str(built), str(ROOT))
    (wheel,) = built.glob("*.whl")
    environment = here / "venv"
    _run(_interpreter(), "-m", "venv", str(environment))
    _run(str(environment / "bin/pip"), "install", "-q", str(wheel))
    return environment / "bin"


def _interpreter() -> str:
    """Return a Python that an ordinary user can also run: one in root's home is not accessible."""
    system = "/usr/bin/python3"
    above = Path(os.path.realpath(sys.executable)).parents
    if all(directory.stat().st_mode & 0o001 for directory in above):
        return sys.executable
    done = subprocess.run([system, "-c", _RECENT], check=False, capture_output=True)
    return sys.executable if done.returncode else system


def _run(*command: str, cwd: Path | None = None) -> str:
    # PYTHONPATH and the variables of tox would make the checkout importable in the environment.
    keep = {"PATH", "HOME", "TMPDIR", "LANG", "PIP_INDEX_URL", "PIP_CONFIG_FILE"}
    environment = {key: value for key, value in os.environ.items() if key in keep}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    )
    return done.stdout


def test_wheel_holds_the_packages_and_none_of_the_tests(here: Path, installed: Path) -> None:
    (wheel,) = (here / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    packages = {"graphdriver", "graphdriver_conformance", "graphdriver_vms"}
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == packages
    assert [name for name in names if "mutants" in name or "/tests/" in name] == []
    assert "graphdriver_conformance/results/result.schema.json" in names


def test_source_distribution_holds_what_its_list_names(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "build", "--sdist", "--outdir", str(tmp_path), str(ROOT))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}

    files = {"tox.ini", "toxfile.py", "mkdocs.yml", "REUSE.toml", "Vagrantfile", ".ci/run"}
    assert files | {"LICENSE", "README.md", "SECURITY.md", "docs/tutorial.md"} <= names
    assert "tests/graphdriver_mutants/__init__.py" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops & {".tox", ".venv", ".vagrant", "results", ".git", "build", "dist"} == set()


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_wheel_alone_judges_the_embedded_drivers(installed: Path, empty: Path, driver: str) -> None:
    report = empty / "report.json"

    _run(
        str(installed / "pytest"),
        f"--driver={driver}",
        "--graphdriver-profile=quick",
        f"--graphdriver-report={report}",
        cwd=empty,
    )

    result = json.loads(report.read_text())
    assert result["verdict"] == "conformant", result["counts"]
    left = {path.name for path in empty.iterdir()} - {".pytest_cache", report.name}
    assert left == set(), "the run left something in the user's directory"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become an ordinary user")
@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_ordinary_user_gets_a_verdict(installed: Path, empty: Path, driver: str) -> None:
    become = shutil.which("setpriv")
    assert become, "setpriv is part of util-linux"
    report = empty / "report.json"

    _run(
        become,
        f"--reuid={ORDINARY}",
        f"--regid={ORDINARY}",
        "--clear-groups",
        str(installed / "graphdriver"),
        "check",
        driver,
        "--graphdriver-profile=quick",
        f"--graphdriver-report={report}",
        cwd=empty,
    )

    result = json.loads(report.read_text())
    assert result["counts"]["violated"] + result["counts"]["error"] == 0
    assert result["counts"]["met"] > 50
    assert result["environment"]["uid"] == ORDINARY
    assert all(
        entry["detail"] for entry in result["requirements"] if entry["outcome"] == "not-provable"
    ), "what is not provable says why"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become an ordinary user")
def test_doctor_names_remedies(installed: Path, empty: Path) -> None:
    """An ordinary user without subordinate ids, as in most containers."""
    command = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    command += [str(installed / "graphdriver"), "doctor"]
    environment = {"TMPDIR": "/tmp", "PATH": "/usr/bin:/bin"}

    done = subprocess.run(
        command, cwd=empty, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "more: needs root: run as root" in done.stdout


def test_commands_that_read_the_packages_own_files(installed: Path, empty: Path) -> None:
    graphdriver = str(installed / "graphdriver")
    report = ["--driver=vfs", "--requirement=LIF-001", "--graphdriver-report=result.json"]

    _run(graphdriver, "new", "mydriver", cwd=empty)
    explained = _run(graphdriver, "explain", "DIF-002", cwd=empty)
    listed = _run(graphdriver, "list", "--json", cwd=empty)
    _run(str(installed / "pytest"), *report, cwd=empty)
    shown = _run(graphdriver, "report", "result.json", cwd=empty)
    _run(graphdriver, "report", "result.json", "-o", "page.html", cwd=empty)
    kernels = _run(graphdriver, "matrix", "list", cwd=empty)

    assert (empty / "mydriver/.github/workflows/conformance.yml").exists()
    assert "test_apply.py::" in explained
    assert len(json.loads(listed)) > 200
    assert "vfs: CONFORMANT" in shown
    assert "<style" in (empty / "page.html").read_text()
    assert "redirect_dir" in kernels


def test_matrix_doctor_names_what_is_missing(installed: Path, empty: Path) -> None:
    """The environment lacks python-vagrant, which the extra [vms] installs."""
    done = subprocess.run(
        [str(installed / "graphdriver"), "matrix", "doctor"],
        cwd=empty,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "vagrant" in (done.stdout + done.stderr).lower()
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 3, "something is missing"


@pytest.mark.skipif(os.getuid() != 0, reason="a plugin mounts")
def test_plugin_is_served_and_judged(installed: Path, empty: Path) -> None:
    served = "plugin+exec:graphdriver serve vfs"

    out = _run(str(installed / "graphdriver"), "check", served, "--requirement=WIR-001", cwd=empty)

    assert "CONFORMANT" in out


def test_module_attribute_in_the_current_directory_is_a_driver(
    installed: Path, empty: Path
) -> None:
    (empty / "mine.py").write_text("from graphdriver.vfs import Driver as Mine\n")

    out = _run(str(installed / "pytest"), "--driver=mine:Mine", "--requirement=LIF-001", cwd=empty)

    assert "mine:Mine" in out


def test_selenium_keeps_its_driver_option(installed: Path, empty: Path) -> None:
    """pytest-selenium registers --driver with browsers as choices. This must be the last test."""
    _run(str(installed / "pip"), "install", "-q", "pytest-selenium")
    (empty / "test_theirs.py").write_text(
        "def test_x(request): print('browser', request.config.getoption('driver'))\n"
    )

    ours = _run(str(installed / "pytest"), "--driver=vfs", "--requirement=LIF-001", cwd=empty)
    theirs = _run(str(installed / "pytest"), "--driver=Firefox", "-s", "test_theirs.py", cwd=empty)

    assert "verdict on vfs" in ours
    assert "browser Firefox" in theirs
