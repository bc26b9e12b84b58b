"""Abandoned streams: the garbage collector releases their holds, at any point of any thread."""

import gc
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from graphdriver.overlay2 import Driver, layers
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

DEADLINE = 120.0
LAYERS = ("a", "b")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path / "home")
    made.create("base")
    made.create("other")
    made.apply_diff("base", "", io.BytesIO(build_archive([entry_of("f", file(b"f"))])))
    for id in LAYERS:
        made.create_read_write(id, "base")
    yield made
    made.cleanup()


def _holding(driver: Driver, id: str) -> BinaryIO:
    """Return a stream that holds a layer with a mount, because `other` is not its parent."""
    stream = driver.diff(id, "other")
    assert _is_mounted(driver, id)
    return stream


def _is_mounted(driver: Driver, id: str) -> bool:
    return os.path.ismount(driver.get_metadata(id)["MergedDir"])


def _at_once(*works: Callable[[], object]) -> None:
    """Run each function in a thread. The test fails if a thread does not end."""
    failures: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "a thread waits for ever"
    assert failures == []


def test_hold_ends_in_the_middle_of_get(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new holder would get the mount point without the mount."""
    streams = [_holding(driver, "a")]
    is_held = driver._layers.is_held

    def collecting(id: str) -> bool:
        held = is_held(id)
        streams.clear()
        return held

    with monkeypatch.context() as patch:
        patch.setattr(driver._layers, "is_held", collecting)
        driver.get("a")

    assert not streams
    assert _is_mounted(driver, "a")
    driver.put("a")
    assert not _is_mounted(driver, "a")
    driver.remove("a")


def test_put_by_a_finalizer_in_the_middle_of_get(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class View:
        """A reference to a view in a program."""

    driver.get("a")
    views, is_held = [View()], driver._layers.is_held
    weakref.finalize(views[0], driver.put, "a")

    def collecting(id: str) -> bool:
        held = is_held(id)
        views.clear()
        return held

    with monkeypatch.context() as patch:
        patch.setattr(driver._layers, "is_held", collecting)
        driver.get("a")

    assert _is_mounted(driver, "a")
    driver.put("a")
    assert not _is_mounted(driver, "a")


@pytest.mark.parametrize("by_verb", [False, True])
def test_two_threads_drop_streams_of_layers_that_the_other_has_locked(
    driver: Driver, by_verb: bool
) -> None:
    """Each would wait for the lock of the other thread."""
    if by_verb:
        for id in LAYERS:
            driver.get(id)
    streams = {id: [] if by_verb else [_holding(driver, id)] for id in LAYERS}
    both = threading.Barrier(2)

    def work(own: str, of_the_other: str) -> None:
        with driver._layers.locked(own):
            both.wait(DEADLINE)
            streams[of_the_other].clear()
            if by_verb:
                driver.put(of_the_other)

    _at_once(lambda: work("a", "b"), lambda: work("b", "a"))

    for id in LAYERS:
        assert not _is_mounted(driver, id)
        driver.remove(id)


def test_hold_ends_while_the_locks_are_looked_up(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of the layer would be deleted while another thread is about to acquire it."""
    streams = [_holding(driver, "a")]

    class Collecting(layers._LayerLock):
        def __init__(self) -> None:
            super().__init__()
            streams.clear()

    with monkeypatch.context() as patch:
        patch.setattr(layers, "_LayerLock", Collecting)
        driver.get("a")

    assert not streams
    assert _is_mounted(driver, "a")
    driver.put("a")
    assert not driver._layers._locks
    driver.remove("a")


def test_hold_that_another_thread_is_to_end_is_ended_before_the_next_verb(driver: Driver) -> None:
    """remove would be refused because of a hold that its own thread has released."""
    stream = _holding(driver, "a")
    owned, proceed = threading.Event(), threading.Event()

    def own() -> None:
        with driver._layers.locked("a"):
            owned.set()
            proceed.wait(DEADLINE)

    def give_up() -> None:
        assert owned.wait(DEADLINE)
        stream.close()
        assert _is_mounted(driver, "a"), "it was not for this thread to end it"
        proceed.set()
        driver.remove("a")

    _at_once(own, give_up)

    assert not driver.exists("a")


def test_many_streams_are_closed_by_garbage_collections_at_every_point(driver: Driver) -> None:
    def work() -> None:
        for number in range(40):
            id = LAYERS[number % 2]
            cycle: list[object] = [driver.diff(id, "other")]
            cycle.append(cycle)
            del cycle
            view = driver.get(id)
            assert os.listdir(view) == ["f"]
            driver.put(id)

    thresholds = gc.get_threshold()
    gc.set_threshold(3)
    try:
        _at_once(work, work, work)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()

    assert driver._layers.held() == []
    assert not driver._layers._locks
    for id in LAYERS:
        assert not _is_mounted(driver, id)
        driver.remove(id)
