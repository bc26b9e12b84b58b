"""apply_diff reads every archive of diff, also of files that exceed the limits of headers."""

import os
from pathlib import Path

import pytest

from graphdriver.archive import header, sparse
from graphdriver.archive.sparse import bounded
from graphdriver.errors import DriverError
from graphdriver.tree.data import Segment
from graphdriver.vfs import Driver

MIB = 1 << 20


def test_smallest_holes_become_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_LARGEST_MAP", 3)
    segments = [Segment(0, 1), Segment(2, 1), Segment(9, 1), Segment(11, 4), Segment(100, 1)]

    assert [Segment(0, 3), Segment(9, 6), Segment(100, 1)] == bounded(segments)
    assert segments[:3] == bounded(segments[:3])


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: files of other users")
def test_file_of_more_segments_than_a_map_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diff wrote a map of any length; apply_diff then refused the layer."""
    monkeypatch.setattr(sparse, "_LARGEST_MAP", 3)
    driver = Driver(tmp_path / "home")
    driver.create("a")
    driver.create("b")
    with (driver.get("a") / "f").open("wb") as made:
        for index in range(6):
            made.seek(index * 4 * MIB + index * MIB // 2)
            made.write(b"%d" % index)
        made.truncate(32 * MIB)
    with driver.diff("a") as stream:
        driver.apply_diff("b", "", stream)

    assert (driver.get("a") / "f").read_bytes() == (driver.get("b") / "f").read_bytes()
    assert (driver.get("b") / "f").stat().st_blocks * 512 < 24 * MIB


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: files of other users")
def test_attributes_that_no_header_holds_are_refused_by_diff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """xfs and btrfs store megabytes of them; every reader refused the archive."""
    monkeypatch.setattr(header, "LARGEST_HEADER", 1000)
    driver = Driver(tmp_path / "home")
    driver.create("a")
    path = driver.get("a") / "f"
    path.touch()
    os.setxattr(path, "user.big", bytes(1500))

    with driver.diff("a") as stream, pytest.raises(DriverError, match=r"b'f' take 15\d\d bytes"):
        stream.read()
