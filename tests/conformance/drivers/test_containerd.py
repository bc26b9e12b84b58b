"""The containerd adapter: its messages, what is said when nobody answers, and a real containerd."""

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Capability, Driver
from graphdriver.errors import DriverError, LayerExists, LayerInUse, LayerNotFound
from graphdriver_conformance.drivers.containerd import messages as m
from graphdriver_conformance.drivers.resolve import BadSpec, DriverSource, resolve
from graphdriver_conformance.oracle.archive import build_archive, entry_of, read_archive
from graphdriver_conformance.oracle.tree import file

pytest.importorskip("grpc")

CONFIGURATION = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/containerd.sock"
[ttrpc]
  address = "{0}/ttrpc.sock"
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverSource]:
    """Start a containerd of our own."""
    if os.geteuid() or not shutil.which("containerd"):
        pytest.skip("needs root and containerd")
    place = tmp_path_factory.mktemp("containerd")
    (place / "config.toml").write_text(CONFIGURATION.format(place))
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen(
            ["containerd", "-c", place / "config.toml"], stdout=log, stderr=log
        ) as process,
    ):
        until = time.monotonic() + 30
        while not (place / "containerd.sock").exists() and time.monotonic() < until:
            process.poll()
            os.sched_yield()
        try:
            yield resolve(f"containerd+unix://{place}/containerd.sock?snapshotter=native")
        finally:
            process.terminate()


@pytest.fixture
def driver(source: DriverSource, tmp_path: Path) -> Iterator[Driver]:
    made = source.make(tmp_path / "home", ())
    yield made
    made.cleanup()
    source.keeper.release(made)


@given(
    type=st.text(max_size=200),
    options=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    size=st.integers(0, 2**63 - 1),
)
def test_messages_come_back(type: str, options: tuple[str, ...], size: int) -> None:
    mount = m.Mount(type, "source", "", options)
    message = m.Apply(m.Descriptor("media", "digest", size), (mount, m.Mount()))

    assert message == m.Apply.decode(message.encode())


def test_messages_are_those_of_the_format() -> None:
    # protoc --encode of containerd.types.Descriptor, by hand of the specification.
    wire = b"\x0a\x01m\x12\x02ab\x18\xac\x02"

    assert wire == m.Descriptor("m", "ab", 300).encode()
    assert m.Descriptor("m", "ab", 300) == m.Descriptor.decode(wire + b"\x2a\x01?\x35\0\0\0\0")


@pytest.mark.parametrize("wire", [b"\x0a\x05ab", b"\x18", b"\x0b"])
def test_cut_messages_are_errors(wire: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut short|wire type"):
        m.Descriptor.decode(wire)


@pytest.mark.parametrize(
    "spec", ["containerd+unix:///x.sock", "containerd+unix://x.sock?snapshotter=native"]
)
def test_incomplete_spec_is_refused(spec: str) -> None:
    with pytest.raises(BadSpec, match=r"containerd\+unix:///PATH\?snapshotter=NAME"):
        resolve(spec)


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    spec = f"containerd+unix://{tmp_path}/none.sock?snapshotter=overlayfs"
    command = [sys.executable, "-m", "graphdriver_conformance", "check", spec, "-n0"]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 4 == result.returncode
    assert "no containerd answers there" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr + result.stdout


def test_unknown_snapshotter_names_the_others(source: DriverSource, tmp_path: Path) -> None:
    other = resolve(source.spec.replace("=native", "=none"))

    with pytest.raises((DriverError, OSError), match=r"no snapshotter none; there are .*native"):
        other.make(tmp_path / "home", ())


def test_errors_have_their_classes(driver: Driver) -> None:
    driver.create("base")
    driver.create("layer", "base")

    with pytest.raises(LayerExists):
        driver.create("base")
    with pytest.raises(LayerNotFound):
        driver.get("unknown")
    with pytest.raises(LayerInUse):
        driver.remove("base")
    with pytest.raises(LayerInUse, match="committed"):
        driver.apply_diff("base", "", io.BytesIO(b""))


def test_archives_go_in_and_out(driver: Driver) -> None:
    archive = build_archive([entry_of("a", file(b"x" * (3 << 20)))])
    driver.create("layer")

    driver.apply_diff("layer", "", io.BytesIO(archive))

    with driver.diff("layer") as stream:
        assert [b"a"] == [entry.name for entry in read_archive(stream)]


@pytest.mark.parametrize(("snapshotter", "follows"), [("native", True), ("overlayfs", False)])
def test_symlinks_of_lower_layers_are_claimed_by_trying(
    source: DriverSource, tmp_path: Path, snapshotter: str, follows: bool
) -> None:
    other = resolve(source.spec.replace("=native", f"={snapshotter}"))
    made = other.make(tmp_path / "home", ())

    assert follows is (Capability.LOWER_SYMLINKS in getattr(made, "capabilities", ()))

    made.cleanup()
    other.keeper.release(made)


def test_released_home_leaves_nothing_in_containerd(source: DriverSource, tmp_path: Path) -> None:
    made = source.make(tmp_path / "home", ())
    made.create("base")
    made.create("layer", "base")
    made.get("layer")
    made.cleanup()
    source.keeper.release(made)

    again = source.make(tmp_path / "home", ())
    assert not again.exists("base")
    assert not again.exists("layer")
    source.keeper.release(again)
