"""User namespace maps apply to created, applied and exported layers, on a real home."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver import IDMap, errors
from graphdriver.overlay2 import Driver

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: owners and mounts")

# Ids 0..999 inside are 100000..100999 outside, as with dockerd's userns-remap.
UIDS = [IDMap(0, 100_000, 1000)]
GIDS = [IDMap(0, 200_000, 1000)]


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path / "home", (), UIDS, GIDS)
    yield made
    made.cleanup()


def _archive(uid: int, gid: int) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("implied/f")
        info.uid, info.gid = uid, gid
        archive.addfile(info)
    buffer.seek(0)
    return buffer


def _owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def test_new_layers_belong_to_the_mapped_root(driver: Driver) -> None:
    driver.create("base")
    driver.create_read_write("child", "base")
    view = driver.get("child")

    assert _owner(driver.get("base")) == (100_000, 200_000)
    assert _owner(view) == (100_000, 200_000)


def test_archives_contain_ids_inside_the_namespace(driver: Driver) -> None:
    driver.create("base")
    driver.create("child", "base")

    driver.apply_diff("child", "base", _archive(7, 8))

    assert _owner(driver.get("child") / "implied/f") == (100_007, 200_008)
    assert _owner(driver.get("child") / "implied") == (100_000, 200_000)
    with driver.diff("child", "base") as stream, tarfile.open(fileobj=stream, mode="r|") as read:
        found = {info.name: (info.uid, info.gid) for info in read}
    assert found == {"implied": (0, 0), "implied/f": (7, 8)}


def test_unmapped_id_in_an_archive_leaves_the_layer_as_it_was(driver: Driver) -> None:
    driver.create("a")

    with pytest.raises(errors.UnmappedId, match="1000"):
        driver.apply_diff("a", "", _archive(1000, 0))

    assert os.listdir(driver.get("a")) == []


def test_unmapped_owner_on_disk_ends_the_diff(driver: Driver) -> None:
    """Docker omits such a file from the archive without an error (C#58)."""
    driver.create("a")
    (driver.get("a") / "strange").touch()

    with driver.diff("a") as stream, pytest.raises(errors.UnmappedId):
        stream.read()
