"""The rulings of docs/rulings.md that promise more than other drivers have to."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver import errors
from graphdriver.overlay2 import Driver
from graphdriver.overlay2.mounts import PAGE_SIZE, mount_data

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path / "home")
    yield made
    made.cleanup()


def _archive(*names: str, data: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_existing_id_is_layer_exists(driver: Driver) -> None:
    driver.create("a")

    with pytest.raises(errors.LayerExists, match="layer a exists already"):
        driver.create_read_write("a")


def test_unknown_parent_is_layer_not_found(driver: Driver) -> None:
    with pytest.raises(errors.LayerNotFound, match="layer nope does not exist"):
        driver.create("a", "nope")


@pytest.mark.parametrize(
    "call",
    [
        lambda d, id: d.create(id),
        lambda d, id: d.create_read_write(id),
        lambda d, id: d.create("child", id) if id else d.create(id),
        lambda d, id: d.remove(id),
        lambda d, id: d.get(id),
        lambda d, id: d.put(id),
        lambda d, id: d.get_metadata(id),
        lambda d, id: d.diff(id),
        lambda d, id: d.changes(id),
        lambda d, id: d.diff_size(id),
        lambda d, id: d.apply_diff(id, "", io.BytesIO()),
    ],
)
@pytest.mark.parametrize(
    "id", ["", ".", "..", "a/b", "/a", "l", "-a", "a\0", "a\n", "x" * 129, "é"]
)
def test_every_verb_refuses_invalid_ids(driver: Driver, call: object, id: str) -> None:
    before = sorted(driver._home.path.rglob("*"))

    with pytest.raises(errors.InvalidLayerId):
        call(driver, id)  # type: ignore[operator]

    assert not driver.exists(id)
    assert sorted(driver._home.path.rglob("*")) == before


def test_parent_and_held_layers_are_in_use(driver: Driver) -> None:
    driver.create("base")
    driver.create("child", "base")
    driver.get("child")

    with pytest.raises(errors.LayerInUse, match="has children"):
        driver.remove("base")
    with pytest.raises(errors.LayerInUse, match="held by 1"):
        driver.remove("child")
    driver.put("child")
    driver.remove("child")
    driver.remove("base")


def test_children_made_by_another_driver_count(driver: Driver, tmp_path: Path) -> None:
    driver.create("base")
    Driver(tmp_path / "home").create("child", "base")

    with pytest.raises(errors.LayerInUse, match="has children"):
        driver.remove("base")


def test_mounts_of_a_dead_process_are_taken_over(driver: Driver, tmp_path: Path) -> None:
    driver.create("base")
    driver.create_read_write("child", "base")
    view = driver.get("child")
    (view / "kept").touch()
    second = Driver(tmp_path / "home")

    adopted = second.get("child")
    mounted_once = Path("/proc/self/mountinfo").read_text().count(f"{view} ")
    second.put("child")

    assert adopted == view
    assert mounted_once == 1
    assert not os.path.ismount(view)


def test_stale_mounts_do_not_keep_a_layer_from_being_removed(
    driver: Driver, tmp_path: Path
) -> None:
    driver.create("base")
    driver.create_read_write("child", "base")
    driver.get("child")

    Driver(tmp_path / "home").remove("child")

    assert not (tmp_path / "home" / "child").exists()


def test_a_layer_with_children_is_shown_read_only(driver: Driver) -> None:
    driver.create("base")
    driver.create_read_write("middle", "base")
    driver.create_read_write("top", "middle")
    view = driver.get("middle")

    with pytest.raises(OSError, match="Read-only"):
        (view / "new").touch()
    driver.put("middle")


def test_128_lowers_are_the_limit(driver: Driver) -> None:
    driver.create("l0")
    for number in range(128):
        driver.create(f"l{number + 1}", f"l{number}")

    with pytest.raises(errors.MaxDepthExceeded, match="129 lower layers"):
        driver.create("too-deep", "l128")


def test_label_over_the_page_is_refused_before_mounting(driver: Driver) -> None:
    driver.create("base")
    driver.create("child", "base")

    with pytest.raises(errors.MountOptionsTooLong, match="layer child"):
        driver.get("child", "l" * PAGE_SIZE)


@pytest.mark.parametrize("spare", [0, 1])
def test_length_of_options_is_exact(spare: int) -> None:
    lowers = ["l/" + "A" * 26] * 128
    room = PAGE_SIZE - 1 - len(mount_data("id", lowers)) - len(',context=""')

    if spare:
        with pytest.raises(errors.MountOptionsTooLong):
            mount_data("id", lowers, "x" * (room + spare))
    else:
        assert len(mount_data("id", lowers, "x" * room)) == PAGE_SIZE - 1


def test_label_is_quoted() -> None:
    assert b',context="s0:c1,c2"' in mount_data("id", ["l/A"], "s0:c1,c2")
    assert b',context="\xff"' in mount_data("id", ["l/A"], os.fsdecode(b"\xff"))
    with pytest.raises(errors.PrerequisitesNotMet):
        mount_data("id", ["l/A"], 's0"')


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"\x1f\x8b" + bytes(600), "compressed with gzip"),
        (b"(\xb5/\xfd" + bytes(600), "compressed with zstd"),
        (b"x" * 600, "checksum"),
        (_archive("a")[:700], "too early"),
        (_archive("../x"), "leaves the layer"),
        (_archive(".wh."), "whiteout of nothing"),
    ],
)
def test_bad_archives_leave_the_layer_as_it_was(driver: Driver, stream: bytes, words: str) -> None:
    driver.create("a")
    driver.apply_diff("a", "", io.BytesIO(_archive("kept")))

    with pytest.raises(errors.BadArchive, match=words):
        driver.apply_diff("a", "", io.BytesIO(stream))

    assert os.listdir(driver.get("a")) == ["kept"]
    assert set(os.listdir(driver.get("a").parent)) == {"diff", "link"}


def test_size_without_project_quota_is_quota_not_supported(driver: Driver) -> None:
    with pytest.raises(errors.QuotaNotSupported, match="pquota") as caught:
        driver.create_read_write("a", "", "", {"size": "10M"})

    assert "no project quota here" in str(caught.value)
    assert os.listdir(driver._home.path) == ["l"]


def test_metadata_and_status(driver: Driver) -> None:
    driver.create("base")
    driver.create("child", "base")

    assert set(driver.get_metadata("base")) == {"UpperDir", "WorkDir", "MergedDir"}
    assert driver.get_metadata("child")["LowerDir"] == driver.get_metadata("base")["UpperDir"]
    assert driver.status()[0][0] == "Backing Filesystem"


def test_crash_remnants_go_at_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Driver(home).create("whole")
    (home / ".creating-X" / "diff").mkdir(parents=True)
    (home / ".removed-X" / "diff").mkdir(parents=True)
    (home / "l" / "ORPHAN").symlink_to("../gone/diff")

    Driver(home)

    assert set(os.listdir(home)) == {"l", "whole"}
    assert len(os.listdir(home / "l")) == 1


def test_start_beside_a_living_driver_leaves_its_stages_alone(
    driver: Driver, tmp_path: Path
) -> None:
    """A second daemon, or fsck, that starts while the first is in the middle of a create."""
    stage = tmp_path / "home" / ".creating-X" / "diff"
    stage.mkdir(parents=True)

    Driver(tmp_path / "home")

    assert stage.is_dir()


def test_unreadable_file_ends_the_diff_with_an_error(driver: Driver) -> None:
    driver.create("a")
    (driver.get("a") / "big").write_bytes(b"x" * (1 << 20))
    stream = driver.diff("a")
    stream.read(10)
    (driver.get("a") / "big").write_bytes(b"shorter")

    with stream, pytest.raises(OSError, match="changed while the diff read it"):
        stream.read()


def test_lost_short_names_come_back_at_the_next_start(driver: Driver, tmp_path: Path) -> None:
    driver.create("base")
    driver.create("child", "base")
    links = tmp_path / "home" / "l"
    before = {link.name: os.readlink(link) for link in links.iterdir()}
    for link in links.iterdir():
        link.unlink()

    Driver(tmp_path / "home")

    assert {link.name: os.readlink(link) for link in links.iterdir()} == before


def test_empty_remnant_does_not_block_its_id(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "home" / "empty").mkdir()
    (tmp_path / "home" / "notes").mkdir()
    (tmp_path / "home" / "notes" / "mine").touch()

    driver.create("empty")

    assert driver.exists("empty")
    with pytest.raises(errors.LayerExists):
        driver.create("notes")
    assert (tmp_path / "home" / "notes" / "mine").exists()


def test_last_put_leaves_a_fresh_mount_point(driver: Driver, tmp_path: Path) -> None:
    """rmdir(2) of a mount point detaches its copies in other namespaces (moby #34948)."""
    driver.create("base")
    driver.create_read_write("child", "base")
    merged = tmp_path / "home" / "child" / "merged"
    before = merged.stat().st_ino
    held = os.open(merged, os.O_RDONLY)  # otherwise the new one could get the same number

    driver.get("child")
    driver.put("child")

    os.close(held)
    assert before != merged.stat().st_ino
    assert merged.stat().st_mode & 0o777 == 0o700
