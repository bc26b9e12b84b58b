"""The size limit of a layer, enforced by project quota of a real xfs and ext4.

Skipped if the kernel is built without it (CONFIG_XFS_QUOTA, CONFIG_QFMT_V2).
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver import Capability
from graphdriver.linux import quota
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
def quota_filesystem(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
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
        # Skip only if the kernel has no quota: a read-only mount without quota must succeed.
        subprocess.run(["mount", "-o", "loop,ro", image, mounted], check=True)
        subprocess.run(["umount", mounted], check=True)
        pytest.skip(f"this kernel mounts no {request.param} with project quota")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def _fill(file: Path, mebibytes: int) -> int:
    """Write until the limit is reached; return the errno, 0 if all data was written."""
    try:
        with file.open("wb", buffering=0) as opened:
            for _ in range(mebibytes):
                opened.write(bytes(1 << 20))
    except OSError as error:
        return error.errno or -1
    return 0


def test_size_holds_for_its_layer_only(quota_filesystem: Path) -> None:
    driver = Driver(quota_filesystem / "home")
    driver.create("base")
    driver.create_read_write("small", "base", "", {"size": "8M"})
    driver.create_read_write("free", "base")

    try:
        small = _fill(driver.get("small") / "f", 20)
        free = _fill(driver.get("free") / "f", 20)
    finally:
        driver.cleanup()

    assert small in (errno.ENOSPC, errno.EDQUOT)
    assert free == 0


def test_default_size_and_a_driver_opened_again(quota_filesystem: Path) -> None:
    first = Driver(quota_filesystem / "home", ["overlay2.size=8M"])
    first.create("base")
    first.create_read_write("one", "base")
    second = Driver(quota_filesystem / "home", ["overlay2.size=8M"])
    second.create_read_write("two", "base")

    try:
        outcomes = [_fill(second.get(id) / "f", 6) for id in ("one", "two")]
        full = _fill(second.get("two") / "g", 6)
    finally:
        second.cleanup()

    assert outcomes == [0, 0], "two layers share one project, and so one size"
    assert full in (errno.ENOSPC, errno.EDQUOT)


def test_two_homes_on_one_file_system_do_not_share_a_size(quota_filesystem: Path) -> None:
    """Nor does a query of one home's capabilities change the limits of the other home."""
    first, second = Driver(quota_filesystem / "first"), Driver(quota_filesystem / "second")
    for driver in (first, second):
        driver.create("base")
        driver.create_read_write("layer", "base", "", {"size": "8M"})
        assert Capability.QUOTA in Driver(quota_filesystem / "third").capabilities

    try:
        outcomes = [_fill(driver.get("layer") / "f", 6) for driver in (first, second)]
        full = [_fill(driver.get("layer") / "g", 6) for driver in (first, second)]
    finally:
        first.cleanup()
        second.cleanup()

    assert outcomes == [0, 0]
    assert 0 not in full


def test_quota_is_claimed_where_it_is_kept(quota_filesystem: Path) -> None:
    assert Capability.QUOTA in Driver(quota_filesystem / "home").capabilities


class _Kernel:
    """A fake of the kernel's project quota, at the boundary of the system calls."""

    def __init__(self, *, enforced: bool = True, allowed: bool = True) -> None:
        self.limits: dict[int, int] = {}
        self.enforced, self.allowed = enforced, allowed

    def quotactl(self, command: int, _path: object, project: int, data: bytes) -> bytes:
        if command == quota._GET_STATE:
            return quota._STATE.pack(1, quota._PROJECTS_ENFORCED if self.enforced else 1 << 4)
        if not self.allowed:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if command == quota._SET_LIMIT:
            fields = quota._DISK_QUOTA.unpack(data)
            self.limits[fields[3]] = fields[4]
            return data
        assert command == quota._GET_QUOTA
        if project not in self.limits:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        limits = (self.limits[project], 0, 0, 0, 0, 0)
        return quota._DISK_QUOTA.pack(1, 2, 0, project, *limits, *(0,) * 14, b"")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> _Kernel:
    made = _Kernel()
    monkeypatch.setattr(quota, "_quotactl", made.quotactl)
    monkeypatch.setattr("graphdriver.overlay2.quota.fssetxattr", lambda *_: None)
    monkeypatch.setattr("graphdriver.overlay2.quota.fsgetxattr", lambda _: quota.Fsxattr(0, 0))
    return made


def test_project_in_use_anywhere_on_the_file_system_is_not_taken(
    kernel: _Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two homes on one disk: the second must not change the size of a layer of the first."""
    monkeypatch.setattr("graphdriver.overlay2.quota._IDS", range(1_000_000, 1_000_003))
    for name in ("a", "b", "c"):
        driver = Driver(tmp_path / name)
        assert Capability.QUOTA in driver.capabilities
        driver.create_read_write("layer", "", "", {"size": f"{ord(name)}k"})

    assert [2 * ord(name) for name in "abc"] == sorted(kernel.limits.values())


@pytest.mark.parametrize(
    ("size", "blocks"), [("1", 1), ("511", 1), ("512", 1), ("513", 2), ("8191p", 8191 << 41)]
)
def test_limit_is_the_next_whole_block(
    kernel: _Kernel, tmp_path: Path, size: str, blocks: int
) -> None:
    Driver(tmp_path / "home").create_read_write("layer", "", "", {"size": size})

    assert [blocks] == list(kernel.limits.values())


def test_asking_for_capabilities_changes_nothing(kernel: _Kernel, tmp_path: Path) -> None:
    driver = Driver(tmp_path / "home")
    before = (tmp_path / "home").stat().st_mtime_ns

    assert Capability.QUOTA in driver.capabilities

    assert kernel.limits == {}
    assert before == (tmp_path / "home").stat().st_mtime_ns


def test_quota_that_only_counts_is_not_claimed(kernel: _Kernel, tmp_path: Path) -> None:
    kernel.enforced = False

    assert Capability.QUOTA not in Driver(tmp_path / "home").capabilities


def test_quota_that_may_not_be_set_is_not_claimed(kernel: _Kernel, tmp_path: Path) -> None:
    kernel.allowed = False

    assert Capability.QUOTA not in Driver(tmp_path / "home").capabilities


def test_quota_is_not_claimed_on_tmpfs(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        assert Capability.QUOTA not in Driver(tmp_path / "home").capabilities
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
