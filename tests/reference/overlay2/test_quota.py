"""A layer's size, held by the project quota of a real xfs and ext4.

Skipped where the kernel was built without (CONFIG_XFS_QUOTA, CONFIG_QFMT_V2).
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver import Capability
from graphdriver.overlay2 import Driver

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: a loop mount")


_MAKE = {
    "xfs": (["mkfs.xfs", "-q"], "loop,pquota"),
    "ext4": (
        ["mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota"],
        "loop,prjquota",
    ),
}


@pytest.fixture(params=list(_MAKE))
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    mkfs, options = _MAKE[request.param]
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as made:
        made.truncate(400 << 20)
    subprocess.run([*mkfs, image], check=True)
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-o", options, image, mounted], check=False, capture_output=True, text=True
    )
    if done.returncode:
        # Only a kernel without quota is a reason: read-only, where none is kept, it has to mount.
        subprocess.run(["mount", "-o", "loop,ro", image, mounted], check=True)
        subprocess.run(["umount", mounted], check=True)
        pytest.skip(f"this kernel mounts no {request.param} with project quota")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def _fill(file: Path, mebibytes: int) -> int:
    """Write until it is full; return the errno, 0 when all went in."""
    try:
        with file.open("wb", buffering=0) as opened:
            for _ in range(mebibytes):
                opened.write(bytes(1 << 20))
    except OSError as error:
        return error.errno or -1
    return 0


def test_size_holds_for_its_layer_only(ground: Path) -> None:
    driver = Driver(ground / "home")
    driver.create("base")
    driver.create_read_write("small", "base", "", {"size": "8M"})
    driver.create_read_write("free", "base")

    try:
        small = _fill(driver.get("small") / "f", 20)
        free = _fill(driver.get("free") / "f", 20)
    finally:
        driver.cleanup()

    assert small in (errno.ENOSPC, errno.EDQUOT)
    assert 0 == free


def test_default_size_and_a_driver_opened_again(ground: Path) -> None:
    first = Driver(ground / "home", ["overlay2.size=8M"])
    first.create("base")
    first.create_read_write("one", "base")
    second = Driver(ground / "home", ["overlay2.size=8M"])
    second.create_read_write("two", "base")

    try:
        outcomes = [_fill(second.get(id) / "f", 6) for id in ("one", "two")]
        full = _fill(second.get("two") / "g", 6)
    finally:
        second.cleanup()

    assert [0, 0] == outcomes, "two layers share one project, and so one size"
    assert full in (errno.ENOSPC, errno.EDQUOT)


def test_quota_is_claimed_where_it_is_kept(ground: Path) -> None:
    assert Capability.QUOTA in Driver(ground / "home").capabilities


def test_quota_is_not_claimed_on_tmpfs(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        assert Capability.QUOTA not in Driver(tmp_path / "home").capabilities
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
