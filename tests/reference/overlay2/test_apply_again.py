"""A second archive for a layer: files that it does not contain are neither read nor copied."""

import errno
import io
import os
import stat
from pathlib import Path

import pytest

from graphdriver.errors import BadArchive
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import LayerEntry, build_archive, entry_of, whiteout
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

FIRST = [
    entry_of("kept", file(b"kept", 0o640)),
    entry_of("linked", file(b"linked")),
    entry_of("also-linked", file(), b"linked"),
    entry_of("replaced", file(b"old")),
    entry_of("becomes", file(b"a file")),
    entry_of("d", directory(0o700)),
    entry_of("d/kept", symlink("../kept")),
    entry_of("d/gone", file(b"gone")),
]
SECOND = [
    entry_of("replaced", file(b"new", 0o600)),
    entry_of("becomes", directory(0o750)),
    entry_of("becomes/inner", file(b"inner")),
    entry_of("third-name", file(), b"linked"),
    whiteout("d/gone"),
]


@pytest.fixture(params=[Overlay2, Vfs])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Overlay2 | Vfs:
    made: Overlay2 | Vfs = request.param(tmp_path / "home")
    made.create("layer")
    _apply(made, FIRST)
    return made


def _apply(driver: Overlay2 | Vfs, entries: list[LayerEntry]) -> None:
    driver.apply_diff("layer", "", io.BytesIO(build_archive(entries)))


def _root(driver: Overlay2 | Vfs) -> Path:
    root = driver.get("layer")
    driver.put("layer")
    return root


def _links(root: Path) -> dict[str, int]:
    files = (path for path in root.rglob("*") if not stat.S_ISDIR(path.lstat().st_mode))
    return {str(path.relative_to(root)): path.lstat().st_nlink for path in files}


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("the content of a file is copied")


def test_files_that_are_left_alone_keep_their_inodes(
    driver: Overlay2 | Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (_root(driver) / "kept").stat()
    with monkeypatch.context() as patch:
        patch.setattr("graphdriver.tree.copy.copy_data", _refuse)
        _apply(driver, SECOND)

    root = _root(driver)
    assert (
        (root / "kept").stat().st_ino,
        (root / "kept").stat().st_mtime_ns,
        (root / "kept").stat().st_nlink,
    ) == (before.st_ino, before.st_mtime_ns, 1)
    assert _links(root) == {
        "kept": 1,
        "linked": 3,
        "also-linked": 3,
        "third-name": 3,
        "replaced": 1,
        "becomes/inner": 1,
        "d/kept": 1,
    }
    assert (root / "replaced").read_bytes() == b"new"
    assert stat.S_IMODE((root / "becomes").stat().st_mode) == 0o750


def test_archive_that_fails_leaves_every_file_as_it_was(driver: Overlay2 | Vfs) -> None:
    tree, links = observe(_root(driver)), _links(_root(driver))
    cut = build_archive([*SECOND, entry_of("last", file(b"x" * 70_000))])[:-60_000]

    with pytest.raises(BadArchive):
        driver.apply_diff("layer", "", io.BytesIO(cut))

    assert_same_tree(tree, observe(_root(driver)))
    assert _links(_root(driver)) == links


def test_file_that_cannot_have_another_name_is_copied(
    driver: Overlay2 | Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An immutable file, or one with the maximum number of links of the file system."""
    real = os.link

    def refuse_first(source: bytes, target: bytes, **named: int) -> None:
        if source == target:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(source, target, **named)  # type: ignore[arg-type]

    expected = Tree.of({"kept": file(b"kept", 0o640), "linked": b"linked"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse_first)
        _apply(driver, SECOND)

    tree = observe(_root(driver))
    for name, node in expected.items():
        if name:
            assert (tree[name].content, tree[name].mode) == (node.content, node.mode)
    assert _links(_root(driver))["linked"] == 3
