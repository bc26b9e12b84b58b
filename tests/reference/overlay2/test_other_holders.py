"""Layers that another process holds, and get of a layer above one that is written in place."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from graphdriver import holding
from graphdriver.errors import BadArchive, LayerInUse
from graphdriver.holding import Use, Uses
from graphdriver.overlay2 import Driver
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from otherprocess import OtherProcess

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

ARCHIVE = build_archive([entry_of(f"file-{number}", file(b"new")) for number in range(9)])
FILES = {f"file-{number}" for number in range(9)}
DEADLINE = 120.0

# Holds a layer, and forks a child process that is idle.
_FORKS = """
import os, signal, sys
from graphdriver.overlay2 import Driver
driver = Driver(sys.argv[1])
driver.get("base")
if not os.fork():  # the child, after the functions of register_at_fork
    print(os.getpid(), flush=True)
signal.pause()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_base_layer_that_another_process_holds_is_in_use(home: Path) -> None:
    driver = Driver(home)
    driver.create("base")
    with OtherProcess("overlay2", home) as other:
        assert other.call("get", "base") == "ok"
        assert other.call("get", "base") == "ok"
        assert other.call("put", "base") == "ok"

        with pytest.raises(LayerInUse, match="another process"):
            driver.remove("base")

        assert other.call("put", "base") == "ok"
        driver.remove("base")
    assert not driver.exists("base")


def test_child_that_another_process_holds_is_not_unmounted(home: Path) -> None:
    driver = Driver(home)
    driver.create("base")
    driver.create_read_write("child", "base")
    with OtherProcess("overlay2", home) as other:
        assert other.call("get", "child") == "ok"

        with pytest.raises(LayerInUse, match="another process"):
            driver.remove("child")

        assert os.path.ismount(home / "child/merged")
        assert other.call("put", "child") == "ok"


@pytest.mark.parametrize("id", ["base", "child"])
def test_hold_ends_with_its_process(home: Path, id: str) -> None:
    driver = Driver(home)
    driver.create("base")
    driver.create_read_write("child", "base")
    with OtherProcess("overlay2", home) as other:
        assert other.call("get", id) == "ok"
        other.kill()
    driver.remove("child")
    driver.remove("base")

    assert [driver.exists(one) for one in ("base", "child")] == [False, False]


def test_hold_ends_although_the_process_has_a_child(home: Path) -> None:
    driver = Driver(home)
    driver.create("base")
    with subprocess.Popen(
        [sys.executable, "-c", _FORKS, home], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(LayerInUse):
                driver.remove("base")
            holder.kill()
            holder.wait(DEADLINE)

            driver.remove("base")
        finally:
            os.kill(child, signal.SIGKILL)
    assert not driver.exists("base")


def test_cleanup_ends_holds_for_other_processes(home: Path) -> None:
    driver = Driver(home)
    driver.create("base")
    with OtherProcess("overlay2", home) as other:
        assert other.call("get", "base") == "ok"
        assert other.call("cleanup") == "ok"

        driver.remove("base")
    assert not driver.exists("base")


def test_archive_is_applied_in_place_below_another_process(home: Path) -> None:
    driver = Driver(home)
    driver.create("base")
    inode = (home / "base/diff").stat().st_ino
    with OtherProcess("overlay2", home) as other:
        assert other.call("get", "base") == "ok"
        driver.apply_diff("base", "", io.BytesIO(ARCHIVE))
        assert inode == (home / "base/diff").stat().st_ino
        assert set(os.listdir(home / "base/diff")) == FILES
        assert other.call("put", "base") == "ok"

    driver.apply_diff("base", "", io.BytesIO(ARCHIVE))
    assert (home / "base/diff").stat().st_ino != inode


def test_disk_error_of_the_link_file_leaves_no_view_mounted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the thorough profile: CRS-045, EIO of openat in the put of a diff."""
    driver = Driver(home)
    driver.create("base")
    driver.create_read_write("child", "base")
    view = driver.get("child")

    def failing(path: str, operation: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with monkeypatch.context() as patch:
        patch.setattr(holding, "lock_file", failing)
        driver.put("child")

    assert not os.path.ismount(view)
    driver.remove("child")


def test_a_thousand_layers_are_held_with_one_descriptor(tmp_path: Path) -> None:
    one, other = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    uses = Uses(one)
    opened = len(os.listdir("/proc/self/fd"))

    for number in range(1000):
        uses.set(Use.HOLDS, f"layer-{number}")

    assert opened == len(os.listdir("/proc/self/fd"))
    same = Uses(other)
    assert same.is_set(Use.HOLDS, "layer-999")
    assert not same.is_set_elsewhere(Use.HOLDS, "layer-999"), "the process is the same"
    del same
    for number in range(1000):
        uses.clear(Use.HOLDS, f"layer-{number}")
    assert not uses.is_any_set(Use.HOLDS)
    os.close(one)
    os.close(other)


def test_driver_that_is_dropped_ends_its_own_holds_only(home: Path) -> None:
    first, second = Driver(home), Driver(home)
    first.create("base")
    first.get("base")
    second.get("base")
    del first
    with OtherProcess("overlay2", home) as other:
        assert other.call("remove", "base") == "LayerInUse"
        second.put("base")
        assert other.call("remove", "base") == "ok"


class _Halves(io.RawIOBase):
    """An archive whose second half is read after `between` has returned."""

    def __init__(self, between: Callable[[], object]) -> None:
        self._data = io.BytesIO(ARCHIVE)
        self._between: Callable[[], object] | None = between

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if self._data.tell() >= len(ARCHIVE) // 2 and self._between:
            between, self._between = self._between, None
            between()
        return self._data.readinto(view[:512])


def _is_awaited(directory: Path) -> bool:
    """Return whether a process waits for the lock on a directory."""
    inode = f":{directory.stat().st_ino} "
    locks = Path("/proc/locks").read_text().splitlines()
    return any(" -> " in line and inode in line for line in locks)


@pytest.mark.parametrize("where", ["thread", "process"])
@pytest.mark.parametrize("middle", [False, True], ids=["child", "grandchild"])
def test_get_above_waits_for_an_archive_that_is_applied_in_place(
    home: Path, where: str, middle: bool
) -> None:
    driver = Driver(home)
    driver.create("base")
    above = "child"
    driver.create_read_write("child", "base")
    if middle:
        driver.create_read_write("grandchild", "child")
        above = "grandchild"
    driver.get("base")
    got: list[Future[set[str]]] = []
    with OtherProcess("overlay2", home) as other, ThreadPoolExecutor() as pool:

        def get() -> set[str]:
            if where == "process":
                assert other.call("get", above) == "ok"
            else:
                driver.get(above)
            return set(os.listdir(home / above / "merged"))

        def begin() -> None:
            got.append(pool.submit(get))
            tick = threading.Event()
            while not got[0].done() and not _is_awaited(home / "base"):
                tick.wait(0.01)

        driver.apply_diff("base", "", _Halves(begin))  # type: ignore[arg-type]

        assert got[0].result(DEADLINE) == FILES
        if where == "process":
            assert other.call("put", above) == "ok"
    driver.cleanup()


@pytest.mark.parametrize("verb", ["get", "diff", "changes"])
def test_archive_that_reads_a_layer_above_is_refused(home: Path, verb: str) -> None:
    driver = Driver(home)
    driver.create("base")
    driver.create_read_write("child", "base")
    driver.get("base")
    stream = _Halves(lambda: getattr(driver, verb)("child"))

    with pytest.raises(LayerInUse, match="layer base is in use"):
        driver.apply_diff("base", "", stream)  # type: ignore[arg-type]

    driver.get("child")
    driver.cleanup()


@pytest.mark.parametrize("factory", [Driver, Vfs])
def test_error_in_a_layer_in_use_says_that_a_part_may_be_in_it(
    home: Path, factory: type[Driver] | type[Vfs]
) -> None:
    driver = factory(home)
    driver.create("base")
    view = driver.get("base")

    with pytest.raises(BadArchive) as caught:
        driver.apply_diff("base", "", io.BytesIO(ARCHIVE[: len(ARCHIVE) // 2]))

    assert "a part of the archive may be in it" in "".join(caught.value.__notes__)
    driver.apply_diff("base", "", io.BytesIO(ARCHIVE))
    assert set(os.listdir(view)) == FILES
    driver.put("base")
    again = factory(home).get("base")
    assert set(os.listdir(again)) == FILES, "no start undoes what has been applied"
