"""Paths in a layer, resolved by openat2(2) or step by step: same results, never outside."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from graphdriver.apply.target import view_target
from graphdriver.errors import BadArchive
from graphdriver.linux.files import RENAME_EXCHANGE, has_openat2, renameat2
from graphdriver.tree import resolve
from graphdriver.tree.resolve import Make, Resolver


@pytest.fixture(params=["openat2", "steps"])
def resolver(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Resolver]:
    """A resolver of `tmp_path`/root, with openat2(2) or as on kernels before 5.6."""
    if request.param == "openat2":
        if not has_openat2():
            pytest.skip("this kernel has no openat2, it is older than 5.6")
    else:
        monkeypatch.setattr(resolve, "has_openat2", lambda: False)
    for name in ("root/usr/lib/deep", "root/d/e", "outside/e"):
        (tmp_path / name).mkdir(parents=True)
    for name, leads in (
        ("lib", "usr/lib"),
        ("usr/up", ".."),
        ("abs", "/usr/lib"),
        ("out", "../../../outside"),
        ("abs-out", str(tmp_path / "outside")),
        ("loop", "loop/x"),
        ("d/back", "../lib/deep"),
    ):
        (tmp_path / "root" / name).symlink_to(leads)
    (tmp_path / "root/file").touch()
    target = view_target(tmp_path / "root")
    yield target.resolver
    target.close()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"d/e", b"d/e"),
        (b"lib/deep", b"usr/lib/deep"),
        (b"abs/deep", b"usr/lib/deep"),
        (b"usr/up/d/e", b"d/e"),
        (b"d/back", b"usr/lib/deep"),
        (b"usr/up/usr/up/usr/lib", b"usr/lib"),
        (b"new/inside", b"new/inside"),
        (b"lib/new/er", b"usr/lib/new/er"),
        (b"out/e", b"outside/e"),
    ],
)
def test_paths_are_resolved(resolver: Resolver, tmp_path: Path, name: bytes, path: bytes) -> None:
    place = resolver.directory(name)

    assert place is not None
    assert place.path == path
    assert os.fstat(place.dir_fd).st_ino == (tmp_path / "root" / os.fsdecode(path)).stat().st_ino
    assert os.listdir(tmp_path / "outside") == ["e"]


def test_lookup_creates_nothing(resolver: Resolver, tmp_path: Path) -> None:
    assert resolver.directory(b"lib/no/where", Make.NOTHING) is None
    assert os.listdir(tmp_path / "root/usr/lib") == ["deep"]


def test_absolute_symlink_out_is_made_inside(resolver: Resolver, tmp_path: Path) -> None:
    place = resolver.directory(b"abs-out/e")

    assert place is not None
    assert place.path == os.fsencode(tmp_path)[1:] + b"/outside/e"


def test_loop_is_refused(resolver: Resolver) -> None:
    with pytest.raises(BadArchive, match="loop of symlinks"):
        resolver.directory(b"loop/y")


def test_swapped_in_symlink_is_not_followed(resolver: Resolver, tmp_path: Path) -> None:
    """A process in the layer replaces a directory by a symlink as fast as it can."""
    root = tmp_path / "root"
    (root / "swap").symlink_to(tmp_path / "outside")
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            renameat2(b"swap", b"d", RENAME_EXCHANGE, directory)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(2000):
            resolver.forget()
            with suppress(OSError):  # the race was detected
                place = resolver.directory(b"d/e", Make.NOTHING)
                if place is not None:
                    found = os.readlink(f"/proc/self/fd/{place.dir_fd}")
                    assert found.startswith(f"{root}/"), f"resolved to {found}"
    finally:
        done.set()
        thread.join()
        os.close(directory)
