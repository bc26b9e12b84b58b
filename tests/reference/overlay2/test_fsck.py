"""fsck reports the defects of a home without changing it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graphdriver.overlay2 import Driver
from graphdriver.overlay2.fsck import findings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a chain of three layers."""
    driver = Driver(tmp_path / "home")
    driver.create("base")
    driver.create("middle", "base")
    driver.create_read_write("top", "middle")
    driver.cleanup()
    return tmp_path / "home"


def _fsck(home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphdriver.overlay2.fsck", str(home)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _all(home: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in home.rglob("*")}


def test_undamaged_home_has_no_findings(home: Path) -> None:
    done = _fsck(home)

    assert (done.returncode, done.stdout) == (0, f"{home}: 3 layer(s), 0 finding(s)\n")


def test_advice_for_an_emptied_link_file_restores_the_layer(home: Path) -> None:
    """moby #42964: the name is lost in one file and still present in the other."""
    (home / "base/link").write_text("")

    (finding,) = findings(home)
    _, link, _, _ = finding.hint.split()
    (home / "base/link").write_text(link)

    assert findings(home) == []


def _link(home: Path, id: str) -> Path:
    return home / "l" / (home / id / "link").read_text()


def _dangle(home: Path) -> None:
    (home / "l" / ("A" * 26)).symlink_to("../gone/diff")


def _other_link(home: Path) -> None:
    (home / "l" / ("A" * 26)).symlink_to("../base/diff")


def _link_outside(home: Path) -> None:
    _link(home, "base").unlink()
    _link(home, "base").symlink_to("/etc")


def _directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _symlink_instead(path: Path) -> None:
    path.rmdir()
    path.symlink_to("/etc")


@pytest.mark.parametrize(
    ("damage", "name", "words"),
    [
        (lambda home: _directory_instead(home / "base/link"), "base/link", "damaged"),
        (lambda home: _directory_instead(home / "top/lower"), "top/lower", "damaged"),
        (lambda home: _symlink_instead(home / "top/diff"), "top/diff", "a symlink to /etc"),
        (lambda home: (home / "top/lower").unlink(), "top/lower", "missing"),
        (lambda home: (home / "base/link").write_text(""), "base/link", "damaged"),
        (lambda home: (home / "base/link").unlink(), "base/link", "missing"),
        (lambda home: _link(home, "top").unlink(), "top", "is missing"),
        (lambda home: (home / "top/lower").write_text(""), "top/lower", "damaged"),
        (lambda home: shutil.rmtree(home / "base"), "middle/lower", "does not exist"),
        (lambda home: shutil.rmtree(home / "top/work"), "top", "no work directory"),
        (lambda home: shutil.rmtree(home / "top/diff"), "top", "no diff directory"),
        (lambda home: (home / "top/.applying").mkdir(), "top", "interrupted"),
        (lambda home: (home / ".creating-X").mkdir(), ".creating-X", "remnant"),
        (lambda home: home.chmod(0o755), ".", "CVE-2021-41091"),
        (lambda home: (home / "l/file").touch(), "l/file", "not a symlink"),
        (_dangle, f"l/{'A' * 26}", "gone, which does not exist"),
        (_other_link, f"l/{'A' * 26}", "base has the link"),
        (
            lambda home: (home / "top/lower").write_text(f"l/{_link(home, 'middle').name}"),
            "top/lower",
            "the lowers of its parent middle",
        ),
    ],
)
def test_damage_is_found_and_left_alone(
    home: Path, damage: Callable[[Path], object], name: str, words: str
) -> None:
    damage(home)
    before = _all(home)

    done = _fsck(home)

    assert _all(home) == before
    assert done.returncode == 1
    assert any(
        line.startswith(f"{name}: ") and words in line for line in done.stdout.splitlines()
    ), done.stdout


def test_link_that_points_out_of_the_home(home: Path) -> None:
    name = _link(home, "base").name
    _link_outside(home)

    assert f"l/{name}" in [one.name for one in findings(home)]


def test_directory_that_is_not_a_home_is_one_sentence(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        done = _fsck(place)
        assert done.returncode == 4
        assert done.stderr.count("\n") == 1


def test_crash_of_a_driver_is_found_and_repaired_by_the_next(home: Path) -> None:
    os.rename(home / "top", home / ".removed-X")

    assert {".removed-X"} <= {one.name for one in findings(home)}
    Driver(home).cleanup()
    assert findings(home) == []
