"""Reading the upper directory and comparing two views have the same result, on overlay mounts."""

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphdriver.archive.reader import Reader
from graphdriver.archive.stream import open_stream
from graphdriver.archive.writer import NotNative
from graphdriver.differ import naive
from graphdriver.differ.native import Upper
from graphdriver.idmapping import IDMapping
from graphdriver.overlay2 import Driver
from graphdriver.overlayfs.lowers import LowerTree
from graphdriver_conformance.oracle.archive import read_archive
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import rebuild
from graphdriver_conformance.oracle.strategies import successors, trees
from graphdriver_conformance.oracle.tree import Tree

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

real = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
numbers = itertools.count()
triples = trees().flatmap(
    lambda first: st.tuples(st.just(first), successors(first), successors(first))
)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path / "home")
    yield made
    made.cleanup()


def _fill(driver: Driver, id: str, parent: str, tree: Tree) -> None:
    driver.create_read_write(id, parent)
    view = driver.get(id)
    rebuild(observe(view), tree, view)
    driver.put(id)


@real
@given(triples)
def test_native_and_naive_agree(driver: Driver, three: tuple[Tree, Tree, Tree]) -> None:
    ids = [f"layer-{next(numbers)}" for _ in three]
    for id, parent, tree in zip(ids, ("", *ids), three, strict=False):
        _fill(driver, id, parent, tree)
    below, layer = ids[1:]
    metadata = driver.get_metadata(layer)
    lowers = LowerTree([Path(lower) for lower in metadata["LowerDir"].split(":")])
    upper = Upper(Path(metadata["UpperDir"]), lowers)
    new, old = driver.get(layer), driver.get(below)

    assert upper.changes() == naive.changes(new, old)
    assert upper.size() == naive.size(new, old)
    with (
        open_stream(upper.records()) as native,
        open_stream(naive.records(new, old, IDMapping())) as compared,
    ):
        for archive in (native.read(), compared.read()):
            assert_same_tree(three[2], apply_layer(three[1], read_archive(archive)), "applied")
    driver.put(layer)
    driver.put(below)


@pytest.fixture
def redirecting(tmp_path: Path) -> Iterator[Driver]:
    options = "redirect_dir=on,metacopy=on,index=on,xino=on"
    made = Driver(tmp_path / "home", [f"overlay2.mountopt={options}"])
    yield made
    made.cleanup()


def test_renamed_directory_is_whole_in_the_archive(redirecting: Driver, tmp_path: Path) -> None:
    driver = redirecting
    driver.create("base")
    tree = driver.get("base")
    (tree / "d/sub").mkdir(parents=True)
    (tree / "d/sub/f").write_bytes(b"content")
    driver.create_read_write("child", "base")
    view = driver.get("child")

    (view / "d").rename(view / "e")
    driver.put("child")
    upper = tmp_path / "home/child/diff"
    assert "trusted.overlay.redirect" in os.listxattr(upper / "e"), "the kernel redirected it"

    with pytest.raises(NotNative):
        Upper(upper, LowerTree([tree])).check()
    assert [os.fsdecode(change.path) for change in driver.changes("child", "base")] == [
        "/d",
        "/e",
        "/e/sub",
        "/e/sub/f",
    ]
    with driver.diff("child", "base") as archive:
        names = [member.entry.name for member in Reader(io.BytesIO(archive.read()))]
    assert names == [b".wh.d", b"e", b"e/sub", b"e/sub/f"]


def test_metadata_only_copy_up_keeps_its_data(redirecting: Driver, tmp_path: Path) -> None:
    driver = redirecting
    driver.create("base")
    (driver.get("base") / "f").write_bytes(b"content" * 1000)
    driver.create_read_write("child", "base")
    (driver.get("child") / "f").chmod(0o600)
    driver.put("child")
    upper = tmp_path / "home/child/diff/f"
    assert "trusted.overlay.metacopy" in os.listxattr(upper), "the kernel copied metadata only"

    with driver.diff("child", "base") as archive:
        reader = Reader(io.BytesIO(archive.read()))
        found = {member.entry.name: (member.entry.mode, reader.read()) for member in reader}

    assert found == {b"f": (0o600, b"content" * 1000)}


def test_layer_of_a_redirecting_mount_is_read_by_a_plain_driver(
    redirecting: Driver, tmp_path: Path
) -> None:
    redirecting.create("base")
    (redirecting.get("base") / "d").mkdir()
    (redirecting.get("base") / "d/f").write_bytes(b"content")
    redirecting.create_read_write("child", "base")
    view = redirecting.get("child")
    (view / "d").rename(view / "e")
    redirecting.cleanup()

    driver = Driver(tmp_path / "home")
    with driver.diff("child", "base") as archive:
        names = [member.entry.name for member in Reader(io.BytesIO(archive.read()))]

    assert names == [b".wh.d", b"e", b"e/f"]


def test_file_copied_up_without_a_change_is_no_change(driver: Driver) -> None:
    driver.create("base")
    (driver.get("base") / "f").write_bytes(b"content")
    driver.create_read_write("child", "base")
    with (driver.get("child") / "f").open("r+b"):
        pass
    assert (Path(driver.get_metadata("child")["UpperDir"]) / "f").exists(), "it was copied up"

    assert driver.changes("child", "base") == []
    assert driver.diff_size("child", "base") == 0
    with driver.diff("child", "base") as archive:
        assert archive.read() == bytes(1024)


def test_name_that_joins_a_group_of_links_brings_the_whole_group(tmp_path: Path) -> None:
    """The group has two names before and after: the link count does not show the change."""
    old, new = tmp_path / "old", tmp_path / "new"
    for root, second in ((old, "dir/x"), (new, "dir")):
        root.mkdir()
        (root / "a").write_bytes(b"same")
        (root / second).parent.mkdir(exist_ok=True)
        os.link(root / "a", root / second)
        os.utime(root / "a", (1, 1))

    with open_stream(naive.records(new, old, IDMapping())) as archive:
        entries = [member.entry for member in Reader(io.BytesIO(archive.read()))]

    assert [(one.name, one.linkname) for one in entries] == [(b"a", b""), (b"dir", b"a")]
