"""The reference tests mount in a private mount namespace."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver.linux.mounts import unshare
from powercut import mounted_disk

CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h


@pytest.fixture(scope="session", autouse=True)
def _mounts_of_our_own() -> None:
    """Prevent processes that copy the mount table from holding the mounts of tests.

    With index=on the kernel refuses an upper (EBUSY) while a copy of its last mount exists.
    """
    if os.getuid() == 0:
        unshare(CLONE_NEWNS)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A separate btrfs; requires root."""
    image, mounted = tmp_path / "image", tmp_path / "btrfs"
    with image.open("wb") as made:
        made.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    yield mounted
    subprocess.run(["umount", mounted], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 with simulated power cuts; requires root."""
    with mounted_disk(tmp_path) as mounted:
        yield mounted
