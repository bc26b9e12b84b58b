"""overlay2.sync: a power cut after apply_diff has returned loses no content."""

import errno
import io
import os
from pathlib import Path

import pytest

from graphdriver.contract import Capability
from graphdriver.overlay2 import Driver
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from powercut import CUTS, cut_power

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: a loop mount")

SYNC = ["overlay2.sync=true"]
FILES = {f"d/f{n}": f"content {n}".encode() for n in range(20)}
ARCHIVE = build_archive([entry_of(name, file(data)) for name, data in FILES.items()])


def _content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("flag", CUTS)
@pytest.mark.parametrize("parent", ["", "base"])
def test_power_cut_after_apply_diff(disk: Path, flag: int, parent: str) -> None:
    driver = Driver(disk / "home", SYNC)
    driver.create("base")
    driver.create("layer", parent)

    driver.apply_diff("layer", parent, io.BytesIO(ARCHIVE))
    driver.cleanup()
    del driver
    cut_power(disk, flag)

    driver = Driver(disk / "home")
    assert _content(driver.get("layer")) == FILES
    driver.cleanup()


@pytest.mark.parametrize("flag", CUTS)
def test_power_cut_after_apply_diff_in_place(disk: Path, flag: int) -> None:
    driver = Driver(disk / "home", SYNC)
    driver.create("layer")
    driver.get("layer")

    driver.apply_diff("layer", "", io.BytesIO(ARCHIVE))
    del driver
    cut_power(disk, flag)

    assert _content(Driver(disk / "home").get("layer")) == FILES


@pytest.mark.parametrize("flag", CUTS)
def test_power_cut_after_create(disk: Path, flag: int) -> None:
    """create is durable without an option; its short name is recreated."""
    driver = Driver(disk / "home")
    driver.create("base")
    driver.create("child", "base")
    del driver
    cut_power(disk, flag)

    driver = Driver(disk / "home")
    assert os.listdir(driver.get("child")) == []
    driver.cleanup()


def test_durable_is_claimed_with_the_option_only(tmp_path: Path) -> None:
    assert Capability.DURABLE in Driver(tmp_path / "a", SYNC).capabilities
    assert Capability.DURABLE not in Driver(tmp_path / "b").capabilities
    assert Capability.DURABLE not in Driver(tmp_path / "c", ["overlay2.sync=false"]).capabilities


@pytest.mark.parametrize("place", ["syncfs", "_make_durable"])
def test_archive_that_cannot_be_made_durable_is_not_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    driver = Driver(tmp_path / "home", SYNC)
    driver.create("layer")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        owner = "graphdriver.overlay2.differs."
        patch.setattr(owner + (place if place == "syncfs" else f"Differ.{place}"), refuse)
        with pytest.raises(OSError, match="Input/output"):
            driver.apply_diff("layer", "", io.BytesIO(ARCHIVE))

    assert _content(driver.get("layer")) == {}
    driver.put("layer")
    driver.apply_diff("layer", "", io.BytesIO(ARCHIVE))
    assert _content(driver.get("layer")) == FILES
