"""A full disk: existing layers are kept, incomplete ones are removed."""

import errno
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver.contract import Driver as DriverProtocol
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import build_archive, entry_of, whiteout
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import file

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

PLAIN = build_archive([entry_of("d/kept", file(b"kept")), entry_of("top", file(b"top"))])
TOO_LARGE = build_archive(
    [whiteout("top"), entry_of("d/kept", file(b"new")), entry_of("big", file(b"x" * (4 << 20)))]
)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; a driver keeps its home open until it is garbage-collected."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-R", "-l", tmp_path], check=True)


@pytest.mark.parametrize("factory", [Overlay2, Vfs])
def test_apply_that_fills_the_disk_leaves_the_layer_as_it_was(
    small: Path, factory: type[Overlay2] | type[Vfs]
) -> None:
    driver: DriverProtocol = factory(small / "home")
    driver.create("base")
    driver.apply_diff("base", "", io.BytesIO(PLAIN))
    for id in ("layer", "empty"):
        driver.create(id, "base")
    driver.apply_diff("layer", "base", io.BytesIO(build_archive([entry_of("own", file(b"own"))])))
    before = {id: observe(driver.get(id)) for id in ("base", "layer", "empty")}
    driver.cleanup()
    files = sorted((small / "home").rglob("*"))

    for id in ("layer", "empty"):
        with pytest.raises(OSError, match="No space left") as caught:
            driver.apply_diff(id, "base", io.BytesIO(TOO_LARGE))
        assert caught.value.errno == errno.ENOSPC

    assert sorted((small / "home").rglob("*")) == files
    for id, tree in before.items():
        assert_same_tree(tree, observe(driver.get(id)), f"in {id}")
        driver.put(id)
    driver.cleanup()
    for id in ("layer", "empty", "base"):
        driver.remove(id)


def test_apply_to_a_held_layer_says_that_a_part_is_in_it(small: Path) -> None:
    driver = Overlay2(small / "home")
    driver.create("base")
    driver.create_read_write("layer", "base")
    driver.get("layer")

    with pytest.raises(OSError, match="No space left") as caught:
        driver.apply_diff("layer", "base", io.BytesIO(TOO_LARGE))

    assert "remove it" in " ".join(caught.value.__notes__)
    driver.put("layer")
    driver.remove("layer")


def test_create_on_a_full_disk_leaves_nothing(small: Path) -> None:
    driver = Overlay2(small / "home")
    driver.create("base")
    with (small / "filler").open("wb") as opened, pytest.raises(OSError, match="No space left"):
        opened.write(b"x" * (4 << 20))
    before = sorted((small / "home").rglob("*"))

    with pytest.raises(OSError, match="No space left"):
        driver.create("layer", "base")

    assert sorted((small / "home").rglob("*")) == before
    (small / "filler").unlink()
    driver.create("layer", "base")


@pytest.mark.parametrize("factory", [Overlay2, Vfs])
def test_remove_needs_no_inode(small: Path, factory: type[Overlay2] | type[Vfs]) -> None:
    driver: DriverProtocol = factory(small / "home")
    driver.create("base")
    driver.create("layer", "base")
    used = os.statvfs(small).f_files - os.statvfs(small).f_ffree
    remount = f"remount,nr_inodes={used}"
    subprocess.run(["mount", "-o", remount, small], check=True)

    driver.remove("layer")
    driver.remove("base")

    assert not driver.exists("layer")
    assert os.statvfs(small).f_ffree > 0
