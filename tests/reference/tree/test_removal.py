"""Trees are removed whatever their depth, on every disk."""

import os
from pathlib import Path

import pytest

from graphdriver.tree.removal import remove_node

LEVELS = 1000


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: loop mounts")
def test_deep_trees_are_removed_on_btrfs(btrfs: Path) -> None:
    # Deep directories are moved up to the first while that is open: btrfs does not list them there.
    parent = os.open(btrfs, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _make_deep(parent)

        remove_node(parent, b"top")
    finally:
        os.close(parent)

    assert [] == os.listdir(btrfs)


def _make_deep(parent: int) -> None:
    directory = os.dup(parent)
    for name in ("top", *["d"] * LEVELS):
        os.mkdir(name, dir_fd=directory)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
