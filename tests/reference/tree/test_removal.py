"""Trees of any depth are removed, on every file system."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from graphdriver.overlay2 import Driver
from graphdriver.tree import removal
from graphdriver.tree.removal import remove_file_tree, remove_unmounted
from graphdriver.tree.resolve import has_openat2

LEVELS = 1000


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: loop mounts")
def test_deep_trees_are_removed_on_btrfs(btrfs: Path) -> None:
    # Deep directories are moved up into an open directory, whose listing on btrfs omits them.
    parent = os.open(btrfs, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _make_deep(parent)

        remove_file_tree(parent, b"top")
    finally:
        os.close(parent)

    assert os.listdir(btrfs) == []


def _make_deep(parent: int) -> None:
    directory = os.dup(parent)
    for name in ("top", *["d"] * LEVELS):
        os.mkdir(name, dir_fd=directory)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts")
@pytest.mark.parametrize("has_call", [True, False])
@pytest.mark.parametrize("place", ["tree", "tree/a", "tree/a/b/c", "tree/file"])
def test_mounts_in_a_tree_are_unmounted_and_their_content_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, has_call: bool
) -> None:
    """A bind mount may have the device number of its parent, which then does not identify it."""
    monkeypatch.setattr(removal, "has_openat2", lambda: has_call)
    (tmp_path / "tree/a/b/c/d").mkdir(parents=True)
    (tmp_path / "tree/file").touch()
    (tmp_path / "others/inner").mkdir(parents=True)
    (tmp_path / "others/inner/file").write_text("kept")
    (tmp_path / "other").write_text("kept")
    source = tmp_path / ("other" if place == "tree/file" else "others")
    for _ in range(1 if place == "tree" else 2):
        subprocess.run(["mount", "--bind", source, tmp_path / place], check=True)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_unmounted(directory, "tree", tmp_path)
    finally:
        os.close(directory)

    assert sorted(os.listdir(tmp_path)) == ["other", "others"]
    assert (tmp_path / "others/inner/file").read_text() == "kept"
    assert (tmp_path / "other").read_text() == "kept"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts")
def test_cycle_of_a_layer_does_not_read_the_mount_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a line for each mount on the host: with a thousand, remove took 4 ms."""
    if not has_openat2():
        pytest.skip("needs openat2(2), Linux 5.6")
    driver = Driver(tmp_path / "home")
    driver.create("base")

    def refuse(*_: object) -> None:
        raise AssertionError("the mount table is read")

    for name in ("tree.removal", "overlay2.layers", "overlay2.mounts"):
        monkeypatch.setattr(f"graphdriver.{name}.mountinfo", refuse)
    for _ in range(2):
        driver.create_read_write("layer", "base")
        (driver.get("layer") / "d/e").mkdir(parents=True)
        driver.put("layer")
        driver.remove("layer")
    assert sorted(os.listdir(tmp_path / "home")) == ["base", "l"]


def test_each_directory_is_listed_once_and_empty_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing takes nine system calls; each directory was listed again for each subdirectory."""
    for name in "abc":
        (tmp_path / "tree" / name / "empty").mkdir(parents=True)
        (tmp_path / "tree" / name / "file").touch()
    listed: list[object] = []
    real = os.scandir

    def noting(descriptor: int) -> Any:
        listed.append(descriptor)
        return real(descriptor)

    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", noting)
            remove_file_tree(directory, b"tree")
    finally:
        os.close(directory)

    assert os.listdir(tmp_path) == []
    assert len(listed) == 4


def test_directory_that_grows_meanwhile_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "file").touch()
    real = os.unlink

    def growing(name: bytes, *, dir_fd: int) -> None:
        real(name, dir_fd=dir_fd)
        if name == b"file":
            (tmp_path / "tree" / "a" / "late").mkdir()
            (tmp_path / "tree" / "a" / "late" / "late").touch()

    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", growing)
            remove_file_tree(directory, b"tree")
    finally:
        os.close(directory)

    assert os.listdir(tmp_path) == []
