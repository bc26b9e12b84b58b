"""The containerd adapter: its messages, its mounts, and a run with a real containerd."""

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver.contract import Capability, Driver
from graphdriver.errors import (
    DriverError,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    NotSupported,
    PrerequisitesNotMet,
)
from graphdriver_conformance.drivers.resolve import BadSpec, DriverSource, resolve
from graphdriver_conformance.host.mountinfo import mounts_at
from graphdriver_conformance.oracle.archive import build_archive, entry_of, read_archive
from graphdriver_conformance.oracle.tree import file

pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
from graphdriver_conformance.drivers.containerd.api import content_pb2, diff_pb2, snapshots_pb2
from graphdriver_conformance.drivers.containerd.api.types_pb2 import Descriptor, Mount
from graphdriver_conformance.drivers.containerd.mounting import Sources, mount_all, unmount_all

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
    """Start a private containerd."""
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
    source.processes.release(made)


def test_messages_are_those_of_the_format() -> None:
    # A containerd.types.Descriptor, encoded by hand according to the protocol buffers encoding.
    wire = b"\x0a\x01m\x12\x02ab\x18\xac\x02"

    assert Descriptor(media_type="m", digest="ab", size=300).SerializeToString() == wire
    unknown_fields = b"\x2a\x01?\x35\0\0\0\0"
    assert Descriptor.FromString(wire + unknown_fields).size == 300


def test_names_are_those_of_containerd() -> None:
    methods = {
        f"{service.full_name}/{method.name}"
        for module in (content_pb2, diff_pb2, snapshots_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }

    assert {
        "containerd.services.snapshots.v1.Snapshots/Prepare",
        "containerd.services.diff.v1.Diff/Apply",
        "containerd.services.content.v1.Content/Write",
    } <= methods


@pytest.mark.parametrize(
    "spec", ["containerd+unix:///x.sock", "containerd+unix://x.sock?snapshotter=native"]
)
def test_incomplete_spec_is_refused(spec: str) -> None:
    with pytest.raises(BadSpec, match=r"containerd\+unix:///PATH\?snapshotter=NAME"):
        resolve(spec)


def test_missing_server_is_one_sentence(tmp_path: Path) -> None:
    spec = f"containerd+unix://{tmp_path}/none.sock?snapshotter=overlayfs"
    command = [sys.executable, "-m", "graphdriver_conformance", "check", spec, "-n0"]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 4
    assert "no containerd answers there" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr + result.stdout


def test_unknown_snapshotter_names_the_others(source: DriverSource, tmp_path: Path) -> None:
    other = resolve(source.spec.replace("=native", "=none"))

    with pytest.raises((DriverError, OSError), match=r"no snapshotter none; there are .*native"):
        other.make(tmp_path / "home", ())


def test_refusals_have_their_classes(driver: Driver) -> None:
    driver.create("base")
    driver.create("layer", "base")

    with pytest.raises(LayerExists):
        driver.create("base")
    with pytest.raises(LayerNotFound):
        driver.get("unknown")
    with pytest.raises(InvalidLayerId, match="not UTF-8"):
        driver.create("\udcff")
    with pytest.raises(LayerInUse):
        driver.remove("base")
    with pytest.raises(LayerInUse, match="committed"):
        driver.apply_diff("base", "", io.BytesIO(b""))


def test_archives_are_applied_and_exported(driver: Driver) -> None:
    archive = build_archive([entry_of("a", file(b"x" * (3 << 20)))])
    driver.create("layer")

    driver.apply_diff("layer", "", io.BytesIO(archive))

    with driver.diff("layer") as stream:
        assert [entry.name for entry in read_archive(stream)] == [b"a"]


@pytest.mark.parametrize(("snapshotter", "follows"), [("native", True), ("overlayfs", False)])
def test_lower_symlinks_are_claimed_after_a_probe(
    source: DriverSource, tmp_path: Path, snapshotter: str, follows: bool
) -> None:
    other = resolve(source.spec.replace("=native", f"={snapshotter}"))
    made = other.make(tmp_path / "home", ())

    assert follows is (Capability.LOWER_SYMLINKS in getattr(made, "capabilities", ()))

    made.cleanup()
    other.processes.release(made)


def test_released_home_leaves_nothing_in_containerd(source: DriverSource, tmp_path: Path) -> None:
    made = source.make(tmp_path / "home", ())
    made.create("base")
    made.create("layer", "base")
    made.get("layer")
    made.cleanup()
    source.processes.release(made)

    again = source.make(tmp_path / "home", ())
    assert not again.exists("base")
    assert not again.exists("layer")
    source.processes.release(again)


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """Return a directory to mount at; all mounts on it are unmounted at the end of the test."""
    if os.geteuid():
        pytest.skip("needs root")
    point = tmp_path / "point"
    point.mkdir()
    yield point
    unmount_all(point)


@pytest.mark.parametrize("is_parent", [False, True], ids=["active", "committed"])
def test_mount_of_a_dead_process_is_gone_after_remove(
    source: DriverSource, driver: Driver, tmp_path: Path, is_parent: bool
) -> None:
    """A client unmounts a snapshot before it removes it: MNT-030 has found the mount."""
    driver.create("layer")
    if is_parent:
        driver.create("child", "layer")
        driver.remove("child")
    view = driver.get("layer")
    again = source.make(tmp_path / "home", ())  # holds nothing, like a process started later

    again.remove("layer")

    assert mounts_at(view) == []
    assert not again.exists("layer")
    source.processes.release(again)


def test_image_is_mounted_through_a_loop_device(tmp_path: Path, point: Path) -> None:
    """blockfile and erofs return an image as the source, and `loop` among the options."""
    image = tmp_path / "image"
    image.write_bytes(b"")
    os.truncate(image, 8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)

    mount_all([Mount(type="ext4", source=str(image), options=["rw", "loop"])], point)

    assert (point / "lost+found").is_dir()
    unmount_all(point)
    assert not (point / "lost+found").exists()


def test_target_is_mounted_below_the_point(tmp_path: Path, point: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "name").write_text(name)
    one, two = (str(tmp_path / name) for name in ("one", "two"))

    mount_all(
        [
            Mount(type="bind", source=one, options=["rbind", "rw"]),
            Mount(type="bind", source=two, target="inner", options=["rbind", "ro"]),
        ],
        point,
    )

    assert (point / "name").read_text() == "one"
    assert (point / "inner" / "name").read_text() == "two"
    with pytest.raises(OSError, match="Read-only"):
        (point / "inner" / "name").write_text("changed")


def test_target_outside_the_point_is_refused(tmp_path: Path, point: Path) -> None:
    with pytest.raises(NotSupported, match="not below the mount point"):
        mount_all([Mount(type="bind", source=str(tmp_path), target="../..")], point)


@pytest.mark.parametrize("type", ["format/overlay", "mkfs/ext4", "no-such-type"])
def test_failed_mount_is_named_and_leaves_nothing(tmp_path: Path, point: Path, type: str) -> None:
    bind = Mount(type="bind", source=str(tmp_path), options=["bind"])

    with pytest.raises(NotSupported, match=type):
        mount_all([bind, Mount(type=type, source="none")], point)

    assert not os.listdir(point)


def test_lowers_that_another_namespace_mounts_cannot_be_judged(tmp_path: Path, point: Path) -> None:
    """A daemon mounts the lowers in its own namespace: in this one they are empty directories."""
    lower = tmp_path / "lower"
    lower.mkdir()
    script = f"mount -t tmpfs none {lower} && echo mounted && read -r line"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as daemon:
        assert daemon.stdout
        assert daemon.stdin
        assert daemon.stdout.readline() == b"mounted\n"
        mounts = [Mount(type="overlay", source="overlay", options=[f"lowerdir={lower}:{point}"])]

        with pytest.raises(PrerequisitesNotMet, match="is a different file for containerd"):
            Sources(daemon.pid).check(mounts)
        Sources(daemon.pid).check([Mount(type="bind", source=str(point))])
        Sources(0).check(mounts)
        daemon.stdin.close()
