"""create is durable when it returns: after a power cut the layer is complete."""

import errno
import io
import os
from contextlib import suppress
from pathlib import Path

import pytest

from graphdriver.vfs import Driver
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from powercut import CUTS, cut_power

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: a loop mount")

ARCHIVE = build_archive([entry_of(f"d/f{n}", file(b"content %d" % n)) for n in range(20)])


@pytest.mark.parametrize("flag", CUTS)
def test_power_cut_after_create(disk: Path, flag: int) -> None:
    """Including a child, whose content is a copy that must be synced."""
    driver = Driver(disk / "home")
    driver.create("base")
    driver.apply_diff("base", "", io.BytesIO(ARCHIVE))
    driver.create("child", "base")
    driver.create("empty")
    del driver
    cut_power(disk, flag)

    driver = Driver(disk / "home")
    files = {path.name: path.read_bytes() for path in driver.get("child").glob("d/*")}
    assert {f"f{n}": b"content %d" % n for n in range(20)} == files
    assert os.listdir(driver.get("empty")) == []
    assert driver.changes("child", "base") == []
    driver.create("grandchild", "child")


@pytest.mark.parametrize("call", ["fsync", "syncfs"])
def test_layer_that_cannot_be_made_durable_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """For a disk error in each of the calls; the same create succeeds afterwards."""
    driver = Driver(tmp_path / "home")
    driver.create("base")
    before = sorted(tmp_path.rglob("*"))
    name = "os.fsync" if call == "fsync" else "graphdriver.vfs.driver.syncfs"
    calls, failing_at = 0, 1

    def failing(_descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    while not driver.exists("child"):
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(name, failing)
            with suppress(OSError):
                driver.create("child", "base")
        assert driver.exists("child") is (calls < failing_at)
        if not driver.exists("child"):
            assert before == sorted(tmp_path.rglob("*"))
        failing_at += 1

    assert calls > 0
