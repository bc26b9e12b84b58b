"""Holds as seen by other processes, and by processes that a holder has forked."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from otherprocess import OtherProcess

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

Driver = Overlay2 | Vfs
OLD, NEW = (build_archive([entry_of(name, file(b"x"))]) for name in ("old", "new"))


@pytest.fixture(params=[Overlay2, Vfs])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    made: Driver = request.param(tmp_path / "home")
    made.create("base")
    made.apply_diff("base", "", io.BytesIO(OLD))
    made.create_read_write("child", "base")
    yield made
    made.cleanup()


@pytest.fixture
def other(driver: Driver, tmp_path: Path) -> Iterator[OtherProcess]:
    with OtherProcess(str(driver), tmp_path / "home") as made:
        yield made


def _forked(work: Callable[[], object]) -> int:
    """Run `work` in a forked process, and return its exit status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


@pytest.mark.parametrize("id", ["base", "child"])
def test_view_stays_until_the_last_process_puts_it(
    driver: Driver, other: OtherProcess, id: str
) -> None:
    view = driver.get(id)

    assert other.call("get", id) == "ok"
    assert other.call("put", id) == "ok"
    assert os.listdir(view) == ["old"]
    assert other.call("get", id) == "ok"
    driver.put(id)
    assert os.listdir(view) == ["old"]
    assert other.call("put", id) == "ok"
    assert not os.path.ismount(view)


def test_layer_that_another_process_holds_is_not_removed(
    driver: Driver, other: OtherProcess
) -> None:
    """A mount alone does not distinguish a running container from the remnant of a dead daemon."""
    view = driver.get("child")

    assert other.call("remove", "child") == "LayerInUse"
    assert os.listdir(view) == ["old"]
    driver.put("child")
    assert other.call("remove", "child") == "ok"
    base = driver.get("base")
    assert other.call("remove", "base") == "LayerInUse"
    assert os.listdir(base) == ["old"]
    driver.put("base")
    assert other.call("remove", "base") == "ok"


def test_layer_that_a_killed_process_has_held_is_removed(
    driver: Driver, other: OtherProcess
) -> None:
    for id in ("base", "child"):
        assert other.call("get", id) == "ok"
    other.kill()

    driver.remove("child")
    driver.remove("base")

    assert not driver.exists("child")


def test_archive_for_a_base_layer_that_another_process_holds(
    driver: Driver, other: OtherProcess
) -> None:
    """It is applied to the directory of the holder, as for a holder in this process."""
    view = os.open(driver.get("base"), os.O_RDONLY)

    answer = other.call("apply_diff", "base", "", NEW)
    seen = sorted(os.listdir(view))
    os.close(view)
    driver.put("base")

    assert answer == "ok"
    assert seen == ["new", "old"]


def test_cleanup_leaves_the_views_of_other_processes(driver: Driver, other: OtherProcess) -> None:
    view = driver.get("child")

    assert other.call("cleanup") == "ok"

    assert os.listdir(view) == ["old"]


def test_forked_process_does_not_put_for_its_parent(driver: Driver) -> None:
    view = driver.get("child")

    status = _forked(lambda: driver.put("child"))

    assert status == 0
    assert os.listdir(view) == ["old"]
    assert _forked(lambda: (driver.get("child"), driver.put("child"))) == 0
    assert os.listdir(view) == ["old"]
    driver.put("child")
    assert not os.path.ismount(view)


@pytest.mark.parametrize("parent", ["", "unrelated"])
def test_forked_process_that_closes_a_diff_does_not_close_it_for_its_parent(
    driver: Driver, other: OtherProcess, parent: str
) -> None:
    driver.create("unrelated")
    stream = driver.diff("child", parent)
    begin = stream.read(512)

    status = _forked(stream.close)

    assert status == 0
    assert other.call("remove", "child") == "LayerInUse"
    assert (begin + stream.read()).endswith(bytes(1024))
    stream.close()
    assert other.call("remove", "child") == "ok"


def test_process_that_is_forked_in_the_middle_of_a_verb_can_use_the_driver(driver: Driver) -> None:
    """The thread that owns the locks does not exist in the forked process."""
    reading, proceed = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reading.set()
            proceed.wait(60)
            return super().read(size)

    applying = threading.Thread(target=lambda: driver.apply_diff("child", "base", Slow(NEW)))
    applying.start()
    assert reading.wait(60)

    def work() -> None:
        driver.create("own")
        driver.get("own")
        driver.put("own")
        driver.remove("own")

    status = _forked(work)
    proceed.set()
    applying.join(60)

    assert status == 0
    assert driver.exists("child")


def test_process_that_is_forked_in_the_middle_of_create_keeps_no_lock(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept the lock of all names during its lifetime, and every verb waited for the lock."""
    ended, told = os.pipe()
    forked: list[int] = []
    real = os.fsync

    def fork_once(descriptor: int) -> None:
        if not forked and os.readlink(f"/proc/self/fd/{descriptor}").endswith(("/home", "/dir")):
            forked.append(os.fork())
            if not forked[0]:
                os.close(told)
                os.read(ended, 1)
                os._exit(0)
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fork_once)
        driver.create("made", "base")
    removing = threading.Thread(target=lambda: driver.remove("made"), daemon=True)
    removing.start()
    removing.join(60)
    is_removed = not driver.exists("made")
    os.close(told)
    os.close(ended)
    os.waitpid(forked[0], 0)

    assert is_removed
