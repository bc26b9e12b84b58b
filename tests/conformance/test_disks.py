"""Test disks that tests of the suite fill, or on which they simulate a power cut."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver_conformance.host.recorded_file import Flush, Write
from graphdriver_conformance.host.syscalls import fallocate
from graphdriver_conformance.suite.support.disks import CannotMake
from graphdriver_conformance.suite.support.images import ImageDisk, Survives, copied, digest
from graphdriver_conformance.suite.support.small_disks import Resource, small_disk

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

PUNCH_HOLE = 3  # and keep the size, linux/falloc.h
_LOST = {Survives.NOTHING: {"synced"}, Survives.NAMES: {"synced", "unsynced"}}


def _disk(format: str, point: Path) -> ImageDisk:
    try:
        return ImageDisk(format, point)
    except CannotMake as error:
        pytest.skip(str(error))


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageDisk]:
    disk = _disk(request.param, tmp_path)
    yield disk
    disk.close()


def _write_two(point: Path) -> None:
    with (point / "synced").open("wb") as opened:
        opened.write(b"s" * 5000)
        opened.flush()
        os.fsync(opened.fileno())
    (point / "unsynced").write_bytes(b"u" * 5000)


def _found(point: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in point.iterdir() if path.name.endswith("synced")
    }


@pytest.mark.parametrize("survives", Survives)
def test_power_cut_loses_unsynced_data(disk: ImageDisk, survives: Survives) -> None:
    _write_two(disk.point)

    disk.cut(survives)

    found = _found(disk.point)
    assert _LOST[survives] == found.keys()
    assert found.pop("synced") == b"s" * 5000
    assert all(not content for content in found.values())


@pytest.mark.parametrize("survives", Survives)
def test_image_that_is_kept_is_that_of_a_power_cut(disk: ImageDisk, survives: Survives) -> None:
    """Images that a sweep keeps of a disk in use must equal the result of FS_IOC_SHUTDOWN."""
    _write_two(disk.point)
    kept = disk.as_after_a_cut(survives)
    disk.cut(survives)
    cut = _found(disk.point)

    disk.restore(kept)
    os.close(kept)

    assert cut == _found(disk.point)


@pytest.mark.parametrize("format", ["ext4", "xfs", "btrfs"])
def test_recorded_writes_make_the_disk_of_any_flush(tmp_path: Path, format: str) -> None:
    point = tmp_path / "disk"
    point.mkdir()
    disk = _disk(format, point)
    image = copied(disk.image)
    try:
        file = disk.mount_recorded(tmp_path / "recorded", image)
    except CannotMake as error:
        disk.close()
        pytest.skip(str(error))
    start, before = file.position(), copied(image)
    _write_two(point)
    entries = file.entries(start, file.position())
    disk.unmount()
    file.close()
    os.close(image)

    assert Flush() in entries
    disk.restore(before)
    assert _found(point) == {}
    last = max(index for index, one in enumerate(entries) if one == Flush())
    for one in entries[:last]:
        if isinstance(one, Write):
            os.pwrite(before, one.data, one.offset)
    disk.restore(before)
    assert _found(point) == {"synced": b"s" * 5000}
    disk.close()
    os.close(before)


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    one, other = (os.memfd_create(name) for name in ("one", "other"))
    try:
        for image in (one, other):
            os.truncate(image, 1 << 20)
            os.pwrite(image, b"data", 1 << 16)
        assert digest(other) == digest(one)

        os.pwrite(other, b"Data", 1 << 16)

        assert digest(one) != digest(other)
    finally:
        os.close(one)
        os.close(other)


def test_copy_of_an_image_has_its_data_without_its_zeros() -> None:
    image = os.memfd_create("image")
    os.pwrite(image, bytes(16 << 20), 0)
    os.pwrite(image, b"data", (5 << 20) + 7)

    copy = copied(image)

    try:
        assert os.fstat(image).st_size == os.fstat(copy).st_size
        assert os.fstat(copy).st_blocks < os.fstat(image).st_blocks // 100
        assert os.pread(image, 16 << 20, 0) == os.pread(copy, 16 << 20, 0)
        assert digest(copied(copy)) == digest(copy)
    finally:
        os.close(image)
        os.close(copy)


@pytest.mark.parametrize("type", ["tmpfs", "ext4"])
@pytest.mark.parametrize("resource", Resource)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_small_disk_leaves_the_requested_space(
    tmp_path: Path, type: str, resource: Resource, count: int
) -> None:
    try:
        disk = small_disk(type, tmp_path)
    except CannotMake as error:
        pytest.skip(str(error))
    try:
        for number in range(10):
            (tmp_path / f"file-{number}").write_bytes(b"x" * 3000)
        before = disk.used()

        disk.leave(resource, count)

        found = os.statvfs(tmp_path)
        left = {Resource.BLOCKS: found.f_bavail, Resource.INODES: found.f_favail}
        assert count == left[resource]
        disk.free_space()
        assert before == disk.used()
        (tmp_path / "more").write_bytes(b"x" * 3000)
    finally:
        disk.close()


def test_disk_whose_free_blocks_are_scattered_is_filled(tmp_path: Path) -> None:
    """With some numbers of chunks, one block is too small for a chunk and its extent record."""
    try:
        disk = small_disk("ext4", tmp_path)
    except CannotMake as error:
        pytest.skip(str(error))
    try:
        for pieces in range(160, 250):
            with (tmp_path / "own").open("wb") as own:
                own.write(b"x" * 2 * pieces * 1024)
                own.flush()
                os.fsync(own.fileno())
                for number in range(0, 2 * pieces, 2):
                    fallocate(own.fileno(), PUNCH_HOLE, number * 1024, 1024)
                os.fsync(own.fileno())

            disk.leave(Resource.BLOCKS, 0)

            assert os.statvfs(tmp_path).f_bavail == 0
            disk.free_space()
            (tmp_path / "own").unlink()
    finally:
        disk.close()
