"""Readers of a vfs layer, in this process or another one."""

import gc
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from graphdriver import errors
from graphdriver.vfs import Driver
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from otherprocess import OtherProcess

OLD = build_archive([entry_of("old", file(b"old"))])
NEW = build_archive([entry_of("new", file(b"new"))])


def _with_layers(home: Path) -> Driver:
    driver = Driver(home)
    for id in ("a", "b"):
        driver.create(id)
        driver.apply_diff(id, "", io.BytesIO(OLD))
    return driver


@pytest.mark.parametrize("id", ["a", "b"])
def test_layers_that_a_diff_compares_are_neither_removed_nor_changed_by_another_process(
    tmp_path: Path, id: str
) -> None:
    driver = _with_layers(tmp_path)
    with OtherProcess("vfs", tmp_path) as other:
        with driver.diff("a", "b"):
            assert other.call("remove", id) == "LayerInUse"
            assert other.call("apply_diff", id, "", NEW) == "LayerInUse"
            assert other.call("create", "child", id) == "ok"
        assert other.call("apply_diff", id, "", NEW) == "ok"
        assert other.call("remove", "child") == "ok"
        assert other.call("remove", id) == "ok"


def test_archive_is_not_applied_to_a_layer_that_a_diff_reads(tmp_path: Path) -> None:
    driver = _with_layers(tmp_path)
    with driver.diff("a"):
        for _ in range(2):
            with pytest.raises(errors.LayerInUse, match="it is read"):
                driver.apply_diff("a", "", io.BytesIO(NEW))
            driver.get("a")
    driver.apply_diff("a", "", io.BytesIO(NEW))

    assert sorted(os.listdir(driver.get("a"))) == ["new", "old"]


def test_hold_ends_in_the_middle_of_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector closes a stream while the holders of its layer are counted."""
    driver = _with_layers(tmp_path)
    streams = [driver.diff("a")]
    apply_deferred: Callable[[], None] = driver._apply_deferred

    def collecting() -> None:
        apply_deferred()
        streams.clear()

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_apply_deferred", collecting)
        driver.get("a")
    assert not streams
    with pytest.raises(errors.LayerInUse, match="held by 1"):
        driver.remove("a")
    driver.put("a")
    gc.collect()

    driver.remove("a")
    assert not driver.exists("a")
