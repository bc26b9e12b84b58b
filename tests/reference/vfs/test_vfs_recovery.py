"""Kills, errors and other drivers on a vfs home."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graphdriver import errors
from graphdriver.tree.copy import copy_tree
from graphdriver.vfs import Driver
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from otherprocess import OtherProcess

OLD = build_archive([entry_of("old", file(b"old"))])
NEW = build_archive([entry_of("new", file(b"new")), entry_of("last", file(b"x" * 70_000))])

KILLED_IN_PLACE = """
import io, os, signal, sys
from graphdriver.vfs import Driver
class Dying(io.BytesIO):
    def read(self, size=-1):
        return super().read(size) or os.kill(os.getpid(), signal.SIGKILL)
driver = Driver(sys.argv[1])
driver.get("a")
driver.apply_diff("a", "", Dying(open(sys.argv[2], "rb").read()[:-1024]))
"""


def _listing(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def _kill(damage: str, home: Path) -> None:
    """Create the remnants of a kill between two calls of create or remove."""
    if damage == "name without layer":
        (home / "parents" / "child").write_text("base")
    elif damage == "empty name without layer":
        (home / "parents" / "child").touch()
    else:
        remnant = {"stage": ".staging-x/tree", "removed layer": ".removed-x/undo/base"}[damage]
        (home / remnant).mkdir(parents=True)
        (home / "parents" / "child").write_text("base")


@pytest.mark.parametrize(
    "damage", ["name without layer", "empty name without layer", "stage", "removed layer"]
)
@pytest.mark.parametrize("restart", [True, False])
def test_remnant_does_not_block_removal_of_the_parent(
    tmp_path: Path, damage: str, restart: bool
) -> None:
    home = tmp_path / "home"
    driver = Driver(home)
    driver.create("base")
    before = _listing(home)
    _kill(damage, home)
    if restart:
        del driver
        driver = Driver(home)
        assert before == _listing(home)

    driver.create("child", "base")
    driver.remove("child")
    driver.remove("base")

    assert not driver.exists("base")


def test_second_driver_leaves_the_stages_of_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(tmp_path / "home")
    driver.create("base")

    def starting(source: Path, target: Path) -> None:
        with OtherProcess("vfs", tmp_path / "home") as other:
            assert other.call("get", "base") == "ok"
        copy_tree(source, target)

    monkeypatch.setattr("graphdriver.vfs.driver.copy_tree", starting)

    driver.create("child", "base")

    assert driver.exists("child")


def test_killed_while_an_archive_is_applied_in_place(tmp_path: Path) -> None:
    home, archive = tmp_path / "home", tmp_path / "archive"
    archive.write_bytes(NEW)
    driver = Driver(home)
    driver.create("a")
    driver.apply_diff("a", "", io.BytesIO(OLD))
    before = _listing(home)
    del driver
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IN_PLACE, home, archive], check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (home / "dir" / "a" / "new").exists()

    driver = Driver(home)

    assert before == _listing(home)
    driver.apply_diff("a", "", io.BytesIO(NEW))
    assert sorted(os.listdir(driver.get("a"))) == ["last", "new", "old"]


def test_removed_layer_is_no_failure_when_its_remnant_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(tmp_path / "home")
    driver.create("a")

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("graphdriver.vfs.driver.remove_unmounted", refuse)
        driver.remove("a")

    assert not driver.exists("a")
    driver.create("a")
    del driver
    assert sorted(_listing(tmp_path / "home")) != []
    Driver(tmp_path / "home")
    assert _listing(tmp_path / "home") == ["dir", "dir/a", "parents", "parents/a"]


@pytest.mark.parametrize(
    "verb",
    [
        lambda driver: driver.remove("a"),
        lambda driver: driver.get("a"),
        lambda driver: driver.create("b", "a"),
    ],
)
def test_error_of_the_disk_is_no_missing_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[[Driver], object]
) -> None:
    driver = Driver(tmp_path / "home")
    driver.create("a")
    real = Path.stat

    def failing(path: Path, *arguments: object, **options: object) -> os.stat_result:
        if path.name == "a":
            raise OSError(5, "Input/output error")
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", failing)
        with pytest.raises(OSError, match="Input/output error"):
            verb(driver)

    assert driver.exists("a")
    assert not driver.exists("b")


def test_children_made_by_another_driver_count(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "home")
    driver.create("base")
    Driver(tmp_path / "home").create("child", "base")

    with pytest.raises(errors.LayerInUse, match="has children"):
        driver.remove("base")
