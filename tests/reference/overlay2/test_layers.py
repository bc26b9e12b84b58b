"""Users of a layer: locks, holds and parentage, across threads and processes."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphdriver import errors
from graphdriver.overlay2 import Driver
from graphdriver.overlay2.mounts import Mounts
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from otherprocess import OtherProcess

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

DEADLINE = 120.0
OLD = build_archive([entry_of(f"old{n}", file(b"old")) for n in range(5)])
NEW = build_archive([entry_of(f"new{n}", file(b"new")) for n in range(5)])


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path / "home")
    yield made
    made.cleanup()


def _build(driver: Driver, id: str, parent: str = "") -> None:
    driver.create_read_write(id, parent)
    driver.apply_diff(id, parent, io.BytesIO(OLD))


def _apply(driver: Driver, id: str, parent: str = "") -> None:
    driver.apply_diff(id, parent, io.BytesIO(NEW))


def _in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_tree_below_a_held_layer_is_not_exchanged(driver: Driver) -> None:
    """moby #13261, with apply_diff; a grandchild counts like a child."""
    _build(driver, "a")
    _build(driver, "b", "a")
    driver.create_read_write("c", "b")
    view = driver.get("c")

    for id, parent in (("a", ""), ("b", "a")):
        with pytest.raises(errors.LayerInUse, match=f"layer {id} is below layer c"):
            _apply(driver, id, parent)
    seen = sorted(os.listdir(view))
    driver.put("c")
    _apply(driver, "a")

    assert [f"old{n}" for n in range(5)] == seen
    assert not (driver._home.path / "a" / ".applying").exists()


def test_tree_below_an_open_diff_is_not_exchanged(driver: Driver) -> None:
    """Files that a diff omits because a lower layer contains them would be lost."""
    _build(driver, "a")
    _build(driver, "b", "a")
    (driver.get("b") / "big").write_bytes(b"x" * (4 << 20))
    driver.put("b")
    with driver.diff("b", "a") as stream:
        stream.read(1)
        with pytest.raises(errors.LayerInUse, match="diffs of it"):
            _apply(driver, "a")

    _apply(driver, "a")


def test_tree_below_the_mount_of_another_process_is_not_exchanged(
    driver: Driver, tmp_path: Path
) -> None:
    _build(driver, "a")
    driver.create_read_write("b", "a")

    with OtherProcess("overlay2", tmp_path / "home") as other:
        assert other.call("get", "b") == "ok"
        with pytest.raises(errors.LayerInUse, match="layer a is below layer b"):
            _apply(driver, "a")
    driver.cleanup()

    _apply(driver, "a")


def test_archive_for_a_layer_that_another_process_has_mounted(
    driver: Driver, tmp_path: Path
) -> None:
    """The archive is applied through that mount, which is kept."""
    _build(driver, "a")
    driver.create_read_write("b", "a")
    view = tmp_path / "home" / "b" / "merged"

    with OtherProcess("overlay2", tmp_path / "home") as other:
        assert other.call("get", "b") == "ok"
        _apply(driver, "b", "a")
        assert os.path.ismount(view)
        assert len(os.listdir(view)) == 10


def test_layer_that_is_got_while_an_archive_is_unpacked_below_keeps_its_view(
    driver: Driver,
) -> None:
    """The layer above is mounted while the stream is read: the exchange is then refused."""
    _build(driver, "a")
    driver.create_read_write("b", "a")
    views: list[Path] = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if not views:
                views.append(driver.get("b"))
            return super().read(size)

    with pytest.raises(errors.LayerInUse, match="below layer b"):
        driver.apply_diff("a", "", Stream(NEW))

    assert [f"old{n}" for n in range(5)] == sorted(os.listdir(views[0]))
    driver.put("b")
    assert [f"old{n}" for n in range(5)] == sorted(os.listdir(driver.get("a")))


def test_parent_is_not_removed_while_a_child_is_made(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """buildkit #6977: the child would be a permanent orphan."""
    driver.create("base")
    building, proceed = threading.Event(), threading.Event()
    build = driver._home._build

    def slowly(*arguments: object) -> None:
        building.set()
        proceed.wait(DEADLINE)
        build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(driver._home, "_build", slowly)
    child = _in_thread(lambda: driver.create("child", "base"))
    assert building.wait(DEADLINE)
    outcome: list[str] = []

    def remove() -> None:
        try:
            driver.remove("base")
            outcome.append("removed")
        except errors.LayerInUse:
            outcome.append("in use")

    removal = _in_thread(remove)
    removal.join(0.2)
    proceed.set()
    child.join(DEADLINE)
    removal.join(DEADLINE)

    assert outcome == ["in use"]
    assert driver.exists("base")


def test_child_is_not_made_while_its_parent_is_removed(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host with many mounts, the removal needs time to read the mount table."""
    driver.create("base")
    removing, proceed = threading.Event(), threading.Event()

    def slowly(_mounts: Mounts, _id: str) -> None:
        removing.set()
        proceed.wait(DEADLINE)

    monkeypatch.setattr(Mounts, "release_stale", slowly)
    removal = _in_thread(lambda: driver.remove("base"))
    assert removing.wait(DEADLINE)
    outcome: list[str] = []

    def create() -> None:
        try:
            driver.create("child", "base")
            outcome.append("made")
        except errors.LayerNotFound:
            outcome.append("no parent")

    child = _in_thread(create)
    child.join(0.2)
    proceed.set()
    removal.join(DEADLINE)
    child.join(DEADLINE)

    assert outcome == ["no parent"]
    assert os.listdir(driver._home.path) == ["l"]


def test_parent_of_a_child_that_is_made_is_neither_removed_nor_changed_by_another_process(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child would be an orphan, or inherit root attributes of a removed tree."""
    _build(driver, "base")
    _build(driver, "parent", "base")
    build, outcomes = driver._home._build, []

    with OtherProcess("overlay2", tmp_path / "home") as other:

        def meanwhile(*arguments: object) -> None:
            build(*arguments)  # type: ignore[arg-type]
            outcomes.append(other.call("remove", "parent"))
            outcomes.append(other.call("apply_diff", "parent", "base", NEW))
            outcomes.append(other.call("apply_diff", "base", "", NEW))

        with monkeypatch.context() as patch:
            patch.setattr(driver._home, "_build", meanwhile)
            driver.create("child", "parent")
        assert outcomes == ["LayerInUse"] * 3
        assert other.call("apply_diff", "base", "", NEW) == "ok"


@pytest.mark.parametrize("parent", ["middle", "base", ""])
def test_layers_that_a_diff_reads_are_neither_removed_nor_changed_by_another_process(
    driver: Driver, tmp_path: Path, parent: str
) -> None:
    """Natively and over two views: a part of the archive would be from another tree."""
    _build(driver, "base")
    _build(driver, "middle", "base")
    _build(driver, "top", "middle")
    (driver.get("top") / "big").write_bytes(b"x" * (4 << 20))
    driver.put("top")

    with OtherProcess("overlay2", tmp_path / "home") as other:
        with driver.diff("top", parent) as stream:
            assert other.call("remove", "top") == "LayerInUse"
            assert other.call("apply_diff", "base", "", NEW) == "LayerInUse"
            assert other.call("apply_diff", "middle", "base", NEW) == "LayerInUse"
            stream.read(1)
            assert other.call("apply_diff", "base", "", NEW) == "LayerInUse"
        assert other.call("apply_diff", "base", "", NEW) == "ok"
        assert other.call("remove", "top") == "ok"


def test_base_layer_that_is_compared_is_neither_removed_nor_changed_by_another_process(
    driver: Driver, tmp_path: Path
) -> None:
    """The base layer is held without a mount."""
    _build(driver, "one")
    _build(driver, "two")

    with OtherProcess("overlay2", tmp_path / "home") as other:
        with driver.diff("one", "two"):
            for id in ("one", "two"):
                assert other.call("remove", id) == "LayerInUse"
                assert other.call("apply_diff", id, "", NEW) == "LayerInUse"
        for id in ("one", "two"):
            assert other.call("apply_diff", id, "", NEW) == "ok"
            assert other.call("remove", id) == "ok"


def test_layer_that_a_diff_reads_is_not_removed(driver: Driver) -> None:
    """Its archive would be truncated without an error."""
    _build(driver, "a")
    with driver.diff("a"):
        with pytest.raises(errors.LayerInUse, match="it is read"):
            driver.remove("a")
        with pytest.raises(errors.LayerInUse, match="it is read"):
            _apply(driver, "a")
    driver.remove("a")

    assert not driver.exists("a")


def test_killed_reader_blocks_no_other_process(driver: Driver, tmp_path: Path) -> None:
    _build(driver, "a")
    with OtherProcess("overlay2", tmp_path / "home") as other:
        assert other.call("diff", "a") == "ok"
        with pytest.raises(errors.LayerInUse):
            driver.remove("a")
        other.kill()
    driver.remove("a")

    assert not driver.exists("a")


@pytest.mark.parametrize("damage", ["", "x", None])
def test_damaged_link_does_not_make_a_parent_childless(
    driver: Driver, tmp_path: Path, damage: str | None
) -> None:
    """moby #42964: a power cut empties link files; the child would be lost with its parent."""
    driver.create("base")
    driver.create("child", "base")
    link = tmp_path / "home" / "base" / "link"
    if damage is None:
        link.unlink()
    else:
        link.write_text(damage)

    for made in (driver, Driver(tmp_path / "home")):
        with pytest.raises(errors.LayerInUse, match="has children"):
            made.remove("base")


def test_damaged_link_and_a_lost_short_name(driver: Driver, tmp_path: Path) -> None:
    """The parent of the layer is unknown, so it may be a child of the damaged layer."""
    driver.create("base")
    driver.create("child", "base")
    (tmp_path / "home" / "base" / "link").write_text("")
    for link in (tmp_path / "home" / "l").iterdir():
        if os.readlink(link) == "../base/diff":
            link.unlink()

    with pytest.raises(errors.LayerInUse):
        driver.remove("base")
    driver.remove("child")
    driver.remove("base")

    assert not driver.exists("base")


def test_child_made_by_another_process_within_one_tick_of_the_clock(
    driver: Driver, tmp_path: Path
) -> None:
    """Before Linux 6.13 timestamps change every 1 to 10 ms; the test freezes them for longer."""
    driver.create("base")
    links = tmp_path / "home" / "l"
    before = links.stat().st_mtime_ns
    second = Driver(tmp_path / "home")
    real = os.symlink

    def within_the_tick(source: str, target: str, *, dir_fd: int | None = None) -> None:
        real(source, target, dir_fd=dir_fd)
        os.utime(links, ns=(before, before))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "symlink", within_the_tick)
        second.create("child", "base")

    assert links.stat().st_mtime_ns > before
    with pytest.raises(errors.LayerInUse, match="has children"):
        driver.remove("base")


def test_cleanup_between_the_mount_and_the_hold(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder would get the mount point without the mount, and write to that directory."""
    driver.create("base")
    driver.create_read_write("child", "base")
    mounted, proceed = threading.Event(), threading.Event()
    mount = Mounts._mount

    def slowly(self: Mounts, *arguments: object, **options: object) -> None:
        mount(self, *arguments, **options)  # type: ignore[arg-type]
        mounted.set()
        proceed.wait(DEADLINE)

    monkeypatch.setattr(Mounts, "_mount", slowly)
    getting = _in_thread(lambda: driver.get("child"))
    assert mounted.wait(DEADLINE)
    cleaning = _in_thread(driver.cleanup)
    cleaning.join(0.2)
    still_mounted = os.path.ismount(driver._home.path / "child" / "merged")
    proceed.set()
    getting.join(DEADLINE)
    cleaning.join(DEADLINE)

    assert still_mounted, "cleanup did not wait for the get"
    assert not os.path.ismount(driver._home.path / "child" / "merged")
    driver.remove("child")


def test_hold_is_kept_when_the_view_cannot_be_unmounted(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.create("base")
    driver.create_read_write("child", "base")
    driver.get("child")

    def busy(_point: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("graphdriver.overlay2.mounts.detach", busy)
        with pytest.raises(OSError, match="Input/output"):
            driver.put("child")
    with pytest.raises(errors.LayerInUse):
        driver.remove("child")
    driver.put("child")

    driver.remove("child")
