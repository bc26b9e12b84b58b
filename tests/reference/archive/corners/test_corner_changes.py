"""C-37 to C-45: modifications that count as changes, and others that do not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from graphdriver_conformance.oracle.tree import EPOCH, Tree, directory, file, symlink
from reference.archive.corners.layers import Layers

IMAGE = Tree.of({"d/a": b"a", "d/sub/b": b"b", "s": symlink("top"), "top": b"top"})


def _edited(layers: Layers, edit: Callable[[Path], object]) -> tuple[list[str], str, str]:
    """Edit a layer's view; return the changes, and the layer with its parent."""
    base = layers.built(IMAGE)
    layer = layers.new(base)
    with layers.view(layer) as root:
        edit(root)
    return layers.shown(layer, base), layer, base


def _keep_time(path: Path, nanoseconds: int = EPOCH * 1_000_000_000) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


def test_c37_same_size_and_time_but_other_content(layers: Layers) -> None:
    def edit(root: Path) -> None:
        (root / "top").write_bytes(b"pot")
        _keep_time(root / "top")

    changes, layer, base = _edited(layers, edit)

    assert changes == ["C /top"]
    assert next(e for e in layers.entries(layer, base) if e.name == b"top").node.content == b"pot"
    layers.assert_travels(layer, base)
    assert layers.driver.diff_size(layer, base) == 3


@pytest.mark.parametrize("nanoseconds", [0, 1, 500_000_000, 999_999_998, 999_999_999])
def test_c38_edits_within_one_second(layers: Layers, nanoseconds: int) -> None:
    def edit(root: Path) -> None:
        (root / "top").write_bytes(b"pot")
        _keep_time(root / "top", EPOCH * 1_000_000_000 + nanoseconds)

    changes, layer, base = _edited(layers, edit)

    assert changes == ["C /top"]
    layers.assert_travels(layer, base)


def test_c39_symlink_with_a_new_target(layers: Layers) -> None:
    def edit(root: Path) -> None:
        (root / "s").unlink()
        (root / "s").symlink_to("pot")
        _keep_time(root / "s")

    changes, layer, base = _edited(layers, edit)

    assert changes == ["C /s"]
    layers.assert_travels(layer, base)


def test_c40_mode_or_owner_alone(layers: Layers) -> None:
    def edit(root: Path) -> None:
        (root / "top").chmod(0o4711)
        os.chown(root / "d/a", 7, 8)
        (root / "d/sub").chmod(0o2700)
        os.chown(root / "s", 9, 9, follow_symlinks=False)

    changes, layer, base = _edited(layers, edit)

    assert changes == ["C /d", "C /d/a", "C /d/sub", "C /s", "C /top"]
    assert layers.names(layer, base) == [b"d", b"d/a", b"d/sub", b"s", b"top"]
    layers.assert_travels(layer, base)


def test_c41_time_of_a_directory_alone_is_no_change(layers: Layers) -> None:
    changes, layer, base = _edited(layers, lambda root: _keep_time(root / "d", 1_000_000_000))

    assert changes == []
    assert layers.names(layer, base) == []


def test_c42_opening_for_writing_is_no_change(layers: Layers) -> None:
    def edit(root: Path) -> None:
        with (root / "top").open("r+b"), (root / "d/sub/b").open("ab"):
            pass

    changes, layer, base = _edited(layers, edit)

    assert changes == []
    assert layers.names(layer, base) == []
    assert layers.driver.diff_size(layer, base) == 0
    assert (layers.upper(layer) / "top").exists(), "it was copied up"


def test_c43_moving_away_and_back_is_no_change(layers: Layers) -> None:
    def edit(root: Path) -> None:
        for name in ("top", "d/a"):
            (root / name).rename(root / "elsewhere")
            (root / "elsewhere").rename(root / name)

    changes, layer, base = _edited(layers, edit)

    assert changes == []
    assert layers.names(layer, base) == []


def test_c44_renamed_directories_are_complete(layers: Layers) -> None:
    """If the kernel renames them, it sets a redirect; otherwise mv(1) copies."""

    def edit(root: Path) -> None:
        shutil.move(root / "d/sub", root / "moved")
        (root / "new").mkdir()
        shutil.move(root / "d", root / "new/d")
        (root / "new/d/more").write_bytes(b"more")

    changes, layer, base = _edited(layers, edit)

    wanted = ["D /d", "A /moved", "A /moved/b", "A /new", "A /new/d", "A /new/d/a", "A /new/d/more"]
    assert changes == wanted
    assert {b"moved/b", b"new/d/a", b"new/d/more", b".wh.d"} <= set(layers.names(layer, base))
    layers.assert_travels(layer, base)
    child = layers.new(layer)
    layers.fill(child, layers.tree(child).without(b"new/d/a"))
    layers.assert_travels(child, layer)
    assert layers.shown(child, layer) == ["C /new", "C /new/d", "D /new/d/a"]


def test_c45_data_of_a_file_whose_metadata_alone_was_copied_up(layers: Layers) -> None:
    content = bytes(range(256)) * 1000
    base = layers.built(Tree.of({"tool": file(content), "d": directory()}))
    layer = layers.new(base)
    with layers.view(layer) as root:
        (root / "tool").chmod(0o755)
    above = layers.new(layer)
    with layers.view(above) as root:
        os.chown(root / "tool", 5, 5)

    for id, parent in ((layer, base), (above, layer), (above, base)):
        entry = next(e for e in layers.entries(id, parent) if e.name == b"tool")
        assert entry.node.content == content
    layers.assert_travels(layer, base)
    layers.assert_travels(above, layer)
