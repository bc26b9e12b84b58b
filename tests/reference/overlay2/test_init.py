"""Init refuses unsuitable hosts and file systems, tested on real ones."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver import IDMap, errors
from graphdriver.overlay2 import Driver, support
from graphdriver.overlay2.options import parse_options, parse_size
from graphdriver.overlay2.support import kernel_is_too_old

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

OPEN = "import sys; from graphdriver.overlay2 import Driver; Driver(sys.argv[1], sys.argv[2:])"


@pytest.mark.skipif(not shutil.which("setarch"), reason="needs setarch, of util-linux")
def test_kernel_below_4_is_not_supported(tmp_path: Path) -> None:
    # The personality UNAME26 makes the kernel report release 2.6.x: a real old release, not a mock.
    command = ["setarch", platform.machine(), "--uname-2.6", sys.executable, "-c", OPEN]

    refused = subprocess.run(
        [*command, tmp_path / "a"], capture_output=True, text=True, check=False
    )
    overridden = subprocess.run(
        [*command, tmp_path / "b", "overlay2.override_kernel_check=true"], check=False
    )

    assert "NotSupported: overlay2 needs Linux 4.0, this is 2.6" in refused.stderr
    assert not (tmp_path / "a").exists()
    assert overridden.returncode == 0


@pytest.mark.parametrize(
    ("release", "old"),
    [("3.19.8", True), ("4.0.0", False), ("3.10.0-1160.el7", True), ("x", False)],
)
def test_releases_are_compared_by_number(release: str, old: bool) -> None:
    assert old is kernel_is_too_old(release)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "mnt"
    subprocess.run(["umount", "--lazy", tmp_path / "mnt"], check=False)


def test_overlay_on_overlay_is_incompatible(tmp_path: Path, mounted: Path) -> None:
    for name in ("lower", "upper", "work", "mnt"):
        (tmp_path / name).mkdir()
    data = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", data, "overlay", mounted], check=True)

    with pytest.raises(errors.IncompatibleFS, match="overlayfs"):
        Driver(mounted / "home")

    assert os.listdir(mounted) == []


def test_nfs_is_incompatible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identified by its magic number: a mount needs a server, and many kernels have no client."""
    monkeypatch.setattr(support, "filesystem_type", lambda _path: 0x6969)

    with pytest.raises(errors.IncompatibleFS, match="nfs"):
        Driver(tmp_path / "home")

    assert os.listdir(tmp_path) == []


def test_xfs_without_file_types_is_incompatible(tmp_path: Path, mounted: Path) -> None:
    if not shutil.which("mkfs.xfs"):
        pytest.skip("needs mkfs.xfs, of xfsprogs")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    options = ["-q", "-m", "crc=0", "-n", "ftype=0"]
    subprocess.run(["mkfs.xfs", *options, image], check=True, capture_output=True)
    mounted.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, mounted], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this kernel mounts no xfs of version 4, the only one without file types")

    with pytest.raises(errors.IncompatibleFS, match="d_type"):
        Driver(mounted / "home")

    assert os.listdir(mounted) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("overlay2.nope=1", "unknown option overlay2.nope"),
        ("novalue", "'novalue' is malformed"),
        ("=x", "malformed"),
        ("overlay2.override_kernel_check=maybe", "override_kernel_check=maybe"),
        ("overlay2.size=much", "overlay2.size=much"),
    ],
)
def test_bad_options_are_named_and_nothing_is_made(tmp_path: Path, option: str, words: str) -> None:
    with pytest.raises(errors.PrerequisitesNotMet, match=words):
        Driver(tmp_path / "home", [option])

    assert os.listdir(tmp_path) == []


def test_keys_are_in_any_case_and_booleans_as_go_spells_them() -> None:
    for text in ("1", "t", "T", "TRUE", "true", "True"):
        assert parse_options([f"Overlay2.Override_Kernel_Check={text}"]).override_kernel_check
    assert not parse_options(["overlay2.override_kernel_check=F"]).override_kernel_check


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("10k", 10240),
        ("1.5 GiB", 3 << 29),
        ("2mb", 2 << 20),
        ("7B", 7),
        ("9007199254740993", (1 << 53) + 1),
        ("8191p", 8191 << 50),
        ("0.1k", 102),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("size", text) == size


@pytest.mark.parametrize("text", ["", "-1", "0", "1x", "9" * 30, "9" * 400, "1.2.3", "k", "٣"])
def test_malformed_sizes(text: str) -> None:
    with pytest.raises(errors.PrerequisitesNotMet):
        parse_size("size", text)


def test_home_and_layers_are_closed_to_others(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "home")
    driver.create("a")

    for path in (tmp_path / "home", tmp_path / "home" / "l", tmp_path / "home" / "a"):
        assert path.stat().st_mode & 0o007 == 0, path


def test_new_directories_belong_to_the_mapped_root_and_those_above_do_not(tmp_path: Path) -> None:
    maps = [IDMap(0, 100_000, 65_536)]
    driver = Driver(tmp_path / "home", (), maps, maps)
    driver.create("base")
    driver.create_read_write("child", "base")
    driver.get("child")
    home = tmp_path / "home"

    for name in ("base/diff", "child/diff", "child/work", "child/work/work", "child/merged"):
        assert ((home / name).stat().st_uid, (home / name).stat().st_gid) == (100_000, 100_000), (
            name
        )
    assert (home.stat().st_uid, (home / "child").stat().st_uid) == (0, 0)
    driver.cleanup()
