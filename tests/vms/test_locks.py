"""A cache that several runs use at the same time."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from graphdriver_vms.cli import main
from graphdriver_vms.images import kernel_image, rootfs
from graphdriver_vms.images.apt import Package, Suite
from graphdriver_vms.images.kernel_image import KernelImage, build_kernel
from graphdriver_vms.images.rootfs import Box, build_box
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.locks import exclusive, is_in_use, shared

KERNEL = Kernel("6.1", "works", "why", suite="bookworm", package="linux-image-6.1*")


@contextmanager
def _other_run(cache: Path, name: str) -> Iterator[None]:
    """Hold a shared lock in another process."""
    reader, writer = os.pipe()
    ended, end = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        with shared(cache, name):
            os.write(writer, b"!")
            os.read(ended, 1)
            os._exit(0)
    os.close(ended)
    os.read(reader, 1)
    try:
        yield
    finally:
        for descriptor in (end, reader, writer):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_a_box_is_built_once_by_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    both = threading.Barrier(2)

    def build(cache: Path, box: Box, with_disk: bool) -> None:
        built.append(cache)
        box.directory.mkdir(parents=True)
        for file in (box.file, box.root):
            file.touch()

    def run() -> None:
        both.wait()
        assert build_box(tmp_path).file.is_file()

    monkeypatch.setattr(rootfs, "_build", build)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert built == [tmp_path]


def test_a_lock_excludes_other_threads_and_is_released(tmp_path: Path) -> None:
    with exclusive(tmp_path, "box"):
        assert is_in_use(tmp_path, "box")
        assert not is_in_use(tmp_path, "kernel")
    assert not is_in_use(tmp_path, "box")


def test_a_lock_of_a_removed_file_excludes_nobody(tmp_path: Path) -> None:
    """`matrix clean` removes the cache with its locks; a waiting process must lock the new file."""
    entered = threading.Event()

    def wait() -> None:
        with exclusive(tmp_path, "box"):
            assert (tmp_path / "locks/box").is_file()
            assert is_in_use(tmp_path, "box")
            entered.set()

    waiting = threading.Thread(target=wait)
    with exclusive(tmp_path, "box"):
        waiting.start()
        (tmp_path / "locks/box").unlink()
    waiting.join()

    assert entered.is_set()


def test_clean_refuses_while_a_run_uses_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with _other_run(cache, "run"):
        assert main(["clean", f"--cache={cache}"]) == 2
        assert cache.exists()
    assert f"a run uses {cache}" in capsys.readouterr().err

    assert main(["clean", f"--cache={cache}"]) == 0
    assert not cache.exists()


@pytest.mark.parametrize("is_used", [True, False])
def test_a_kernel_that_another_run_uses_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_used: bool
) -> None:
    old = KernelImage("6.1.0-1", "linux-image-6.1.0-1", "6.1.1", kernel_image._recipe())
    place = KernelImage.directory(tmp_path, KERNEL)
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(asdict(old)))
    package = Package("linux-image-6.1.0-2", "6.1.2")
    monkeypatch.setattr(Suite, "update", lambda _: None)
    monkeypatch.setattr(Suite, "newest", lambda *_: package)
    monkeypatch.setattr(Suite, "parts", lambda *_: [])
    monkeypatch.setattr(Suite, "download", lambda *_: [])
    monkeypatch.setattr(kernel_image, "_assemble", lambda _, __, target, ___: target.mkdir())

    with ExitStack() as stack:
        if is_used:
            stack.enter_context(_other_run(tmp_path, "use-kernel-6.1"))
        with ExitStack() as uses:
            image = build_kernel(tmp_path, KERNEL, Path(), uses)
            assert is_in_use(tmp_path, "use-kernel-6.1")

    assert image.release == ("6.1.0-1" if is_used else "6.1.0-2")
    assert json.loads((place / "kernel.json").read_text())["release"] == image.release
    assert not is_in_use(tmp_path, "use-kernel-6.1")
