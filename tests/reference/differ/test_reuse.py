"""The naive differ on third-party get and put, as in docs/driver-authors.md."""

import io
import shutil
from pathlib import Path

import pytest

from graphdriver import Change, ChangeKind
from graphdriver.differ.naive import NaiveDiffer


class Directories:
    """The minimal driver for the differ: layers that can be mounted and released."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.held: list[str] = []
        differ = NaiveDiffer(self)
        self.diff, self.changes = differ.diff, differ.changes
        self.diff_size, self.apply_diff = differ.diff_size, differ.apply_diff

    def get(self, id: str, mount_label: str = "") -> Path:
        self.held.append(id)
        return self.home / id

    def put(self, id: str) -> None:
        self.held.remove(id)


@pytest.fixture
def driver(tmp_path: Path) -> Directories:
    made = Directories(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/kept").write_text("kept")
    (tmp_path / "base/gone").write_text("gone")
    for copy in ("layer", "sibling"):
        shutil.copytree(tmp_path / "base", tmp_path / copy)
    (tmp_path / "layer/gone").unlink()
    (tmp_path / "layer/new").write_text("added")
    return made


def test_four_verbs_need_get_and_put_only(driver: Directories) -> None:
    assert driver.changes("layer", "base") == [
        Change(b"/gone", ChangeKind.DELETE),
        Change(b"/new", ChangeKind.ADD),
    ]
    assert driver.diff_size("layer", "base") == len("added")
    with driver.diff("layer", "base") as archive:
        driver.apply_diff("sibling", "base", io.BytesIO(archive.read()))

    assert sorted(path.name for path in (driver.home / "sibling").iterdir()) == ["kept", "new"]
    assert driver.held == []


def test_a_layer_that_cannot_be_shown_holds_nothing(driver: Directories) -> None:
    with pytest.raises(FileNotFoundError):
        driver.changes("layer", "nope")

    assert driver.held == []
