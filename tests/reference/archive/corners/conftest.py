"""Each corner case is tested twice: with plain mounts, and with redirect_dir and metacopy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver.linux.mounts import mountinfo
from graphdriver.tree.removal import remove_file_tree
from reference.archive.corners.layers import Layers

_MOUNTS = {"plain": [], "redirecting": ["redirect_dir=on,metacopy=on,index=on,xino=on"]}


@pytest.fixture(params=list(_MOUNTS))
def layers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Layers]:
    """A home with these mount options."""
    if os.getuid():
        pytest.skip("needs root: mounts without a namespace")
    options = [f"overlay2.mountopt={one}" for one in _MOUNTS[request.param]]
    made = Layers(tmp_path / "home", options)
    yield made
    made.driver.cleanup()
    left = mountinfo(tmp_path)
    assert not left, f"mounts are left: {left}"
    # Some trees are deeper than pytest's cleanup supports.
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    remove_file_tree(directory, b"home")
    os.close(directory)
