"""The containers-storage adapter: the real program, and missing, hanging and crashing ones."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Capability, Change, ChangeKind
from graphdriver.errors import (
    BadArchive,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    PrerequisitesNotMet,
)
from graphdriver_conformance.drivers.containers_storage import ContainersStorageDriver
from graphdriver_conformance.drivers.containers_storage.command import ProgramHung
from graphdriver_conformance.drivers.containers_storage.gostring import unquoted
from graphdriver_conformance.drivers.resolve import BadSpec, resolve

installed = pytest.mark.skipif(
    not shutil.which("containers-storage"), reason="needs containers-storage"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[ContainersStorageDriver]:
    made = ContainersStorageDriver("vfs", tmp_path / "home")
    yield made
    made.cleanup()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that replaces the program by a shell script."""

    def put(script: str) -> None:
        place = tmp_path / "containers-storage"
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


def _check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphdriver_conformance", "check", *arguments, "-n0"]
    return subprocess.run(
        [*command, "--requirement=LIF-001"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@given(raw=st.binary(max_size=40))
def test_printed_paths_are_parsed(raw: bytes) -> None:
    # Bytes that Go's %q does not escape must also be accepted in escaped form.
    quoted = b'"' + b"".join(b"\\x%02x" % byte for byte in raw) + b'"'

    assert unquoted(quoted) == raw


@pytest.mark.parametrize(
    ("printed", "path"),
    [
        (rb'"/new\nline\""', b'/new\nline"'),
        ('"/é"'.encode(), "/é".encode()),
        (rb'"/\u200b\U0001f600"', "/\u200b\U0001f600".encode()),
        (rb'"/back\\x41"', rb"/back\x41"),
    ],
)
def test_printed_forms_as_go_makes_them(printed: bytes, path: bytes) -> None:
    assert unquoted(printed) == path


@installed
@as_root
class TestOnTheRealProgram:
    def test_names_are_preserved_exactly(self, driver: ContainersStorageDriver) -> None:
        names = [b"\xff\xfe", b'new\nline"', "é".encode(), b"back\\slash", b" "]
        driver.create("base")
        driver.create_read_write("layer", "base")
        root = os.fsencode(driver.get("layer"))
        for name in names:
            with open(root + b"/" + name, "xb"):
                pass
        driver.put("layer")

        added = {Change(b"/" + name, ChangeKind.ADD) for name in names}
        assert set(driver.changes("layer", "base")) == added

    def test_abbreviations_are_not_taken_for_ids(self, driver: ContainersStorageDriver) -> None:
        driver.create("layer-10")

        assert not driver.exists("layer-1")
        with pytest.raises(LayerNotFound):
            driver.remove("layer-1")
        driver.create("layer-1")
        driver.remove("layer-1")
        assert driver.exists("layer-10")

    def test_refusals_have_their_classes(self, driver: ContainersStorageDriver) -> None:
        driver.create("base")
        driver.create("layer", "base")

        with pytest.raises(LayerExists):
            driver.create("layer")
        with pytest.raises(LayerNotFound):
            driver.get("unknown")
        with pytest.raises(LayerInUse):
            driver.remove("base")
        with pytest.raises(InvalidLayerId):
            driver.create("")
        with pytest.raises(BadArchive):
            driver.apply_diff("layer", "base", io.BytesIO(b"no archive at all" * 100))
        with pytest.raises(PrerequisitesNotMet):
            ContainersStorageDriver("vfs", "/nonexistent", ["no.such=1"])

    def test_an_archive_that_cannot_be_read_ends_the_program(
        self, driver: ContainersStorageDriver
    ) -> None:
        class Unreadable(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: object) -> int:
                raise OSError(5, "the disk is gone")

        driver.create("layer")

        with pytest.raises(OSError, match="the disk is gone"):
            driver.apply_diff("layer", "", io.BufferedReader(Unreadable()))


@installed
@as_root
@pytest.mark.parametrize("name", ["vfs", "overlay"])
def test_handling_of_lower_symlinks_is_probed(tmp_path: Path, name: str) -> None:
    """The claim depends on the behaviour of the driver, not on its name."""
    factory = resolve(f"containers-storage:{name}").factory
    driver = factory(tmp_path / "home")
    try:
        claimed = Capability.LOWER_SYMLINKS in driver.capabilities  # type: ignore[attr-defined]
        assert claimed is (name == "vfs")
        assert os.listdir(tmp_path) == ["home"]
    finally:
        driver.cleanup()


def test_missing_program_is_one_sentence(tmp_path: Path) -> None:
    result = _check("containers-storage:overlay", PATH=str(tmp_path))

    assert result.returncode == 4
    assert "apt-get install containers-storage" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_program_that_hangs_is_one_sentence(program: Callable[[str], None]) -> None:
    program("sleep 60")

    result = _check("containers-storage:overlay", GRAPHDRIVER_DEADLINE="0.3")

    assert result.returncode == 1
    assert "init failed: ProgramHung: " in result.stdout
    assert "init: no end within 0.3 s" in result.stdout


def test_verb_that_dies_is_named(
    program: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program('[ "$1" = mount ] && kill -9 $$; echo "[]"')
    driver = ContainersStorageDriver("vfs", tmp_path / "home")

    with pytest.raises(ProgramHung, match="get: the program was killed by SIGKILL"):
        driver.get("layer")


def test_verb_that_hangs_reading_is_named(
    program: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHDRIVER_DEADLINE", "0.3")
    program('[ "$1" = applydiff ] && sleep 60; echo "[]"')
    driver = ContainersStorageDriver("vfs", tmp_path / "home")

    with pytest.raises(ProgramHung, match="apply_diff: no end within"):
        driver.apply_diff("layer", "", io.BytesIO(bytes(1 << 20)))


def test_unknown_driver_is_refused() -> None:
    with pytest.raises(BadSpec, match="overlay, vfs, btrfs"):
        resolve("containers-storage:zfs")
