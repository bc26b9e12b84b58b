"""The file system of a cell, on the kernel of this host: loop devices, mounts."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from graphdriver_vms.cells import load_cells
from graphdriver_vms.guest.filesystem import CannotPrepare, mounted_filesystem

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts")

EXT4 = ["mkfs.ext4", "-q"]


def _cell(make: list[str], older: list[str]) -> dict[str, Any]:
    return {"make": make, "make_older": older, "mount": "", "user": "root"}


def _type(filesystem: Path) -> str:
    command = ["stat", "-f", "-c", "%T", str(filesystem)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_older_kernels_get_file_systems_with_older_features() -> None:
    # `true` creates no file system: no kernel can mount the image.
    with mounted_filesystem(_cell(["true"], EXT4)) as filesystem:
        assert _type(filesystem) == "ext2/ext3"
    assert not filesystem.exists()


def test_without_an_older_mkfs_there_is_no_file_system() -> None:
    before = Path("/proc/self/mountinfo").read_text()

    with (
        pytest.raises(CannotPrepare, match="mount -o loop failed"),
        mounted_filesystem(_cell(["true"], [])),
    ):
        pass

    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("name", [one.name for one in load_cells().values() if one.make_older])
def test_older_mkfs_commands_work(name: str) -> None:
    cell = load_cells()[name]

    try:
        with mounted_filesystem(_cell(cell.make_older, [])) as filesystem:
            assert _type(filesystem) == cell.make[0].removeprefix("mkfs.")
    except CannotPrepare as error:
        if cell.make[0] in str(error) and "failed" in str(error):
            raise  # options that are invalid for mkfs
        pytest.skip(f"shown only where there is such a file system: {error}")
