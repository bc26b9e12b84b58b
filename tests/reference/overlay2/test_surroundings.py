"""The environment of a home does not affect its layers, and is not changed."""

import errno
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from graphdriver import errors
from graphdriver.contract import Driver as DriverProtocol
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts and owners")

Factory = type[Overlay2] | type[Vfs]
both = pytest.mark.parametrize("factory", [Overlay2, Vfs])

# user::rwx, user:1234:rwx, group::r-x, mask::rwx, other::r-x (acl(5), in the kernel's format)
_ENTRIES = [(1, 7, -1), (2, 7, 1234), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, id & 0xFFFFFFFF) for tag, bits, id in _ENTRIES
)
SURROUNDINGS = ["acl", "acl of the home", "setgid", "umask 0", "umask 077", "umask 777"]


@pytest.fixture(params=SURROUNDINGS)
def surrounded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A home below a directory, or in a process, with attributes that new files inherit."""
    kind, _, rest = str(request.param).partition(" ")
    above, mask = tmp_path / "above", os.umask(0o022)
    above.mkdir()
    home = above / "home"
    if kind == "acl":
        if rest:
            home.mkdir()
        os.setxattr(home if rest else above, "system.posix_acl_default", ACL)
    elif kind == "setgid":
        os.chown(above, 0, 4321)
        above.chmod(0o2775)
    else:
        os.umask(int(rest, 8))
    yield home
    os.umask(mask)


def _described(root: Path) -> dict[str, tuple[str, int, int, list[str]]]:
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        state = path.lstat()
        attributes = [name for name in os.listxattr(path) if name.startswith("system.")]
        found[str(path.relative_to(root))] = (
            stat.filemode(state.st_mode),
            state.st_uid,
            state.st_gid,
            attributes,
        )
    return found


EXPECTED: dict[str, tuple[str, int, int, list[str]]] = {
    ".": ("drwxr-xr-x", 0, 0, []),
    "d": ("drwxr-xr-x", 0, 0, []),
    "d/f": ("-rw-r--r--", 0, 0, []),
}


@both
def test_directories_above_do_not_affect_layers(surrounded: Path, factory: Factory) -> None:
    driver: DriverProtocol = factory(surrounded)
    driver.create("base")
    driver.create_read_write("child", "base")
    driver.apply_diff("child", "base", io.BytesIO(_archive()))
    os.umask(0o022)

    for id in ("base", "child"):
        view = driver.get(id)
        (view / "d").mkdir(exist_ok=True)
        (view / "d" / "f").touch()
        assert _described(view) == EXPECTED, id
        driver.put(id)
    with driver.diff("child") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        headers = [(one.name, sorted(one.pax_headers)) for one in archive]
    assert [keys for _, keys in headers if any("acl" in key for key in keys)] == []
    driver.cleanup()


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("d")
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
    return buffer.getvalue()


@both
def test_home_does_not_inherit_from_directories_above(surrounded: Path, factory: Factory) -> None:
    existed = surrounded.exists()
    factory(surrounded)

    if not existed:
        assert _described(surrounded)["."] == ("drwx------", 0, 0, [])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A home that is a mount point, with the options nodev, nosuid and noexec."""
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nodev,nosuid,noexec", "disk", home], check=True)
    yield home
    subprocess.run(["umount", "-R", "-l", home], check=True)


@both
def test_home_that_is_a_mount_point_stays_mounted(disk: Path, factory: Factory) -> None:
    driver: DriverProtocol = factory(disk)
    driver.create("base")
    driver.create_read_write("child", "base")
    driver.get("child")

    driver.cleanup()

    assert os.path.ismount(disk)
    assert factory(disk).exists("child")


def test_views_do_not_have_the_mount_options_of_the_disk(disk: Path) -> None:
    driver = Overlay2(disk)
    driver.create("base")
    os.mknod(driver.get("base") / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    program = driver.get("base") / "program"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    driver.create_read_write("child", "base")
    view = driver.get("child")

    (view / "null").write_bytes(b"x")
    done = subprocess.run([view / "program"], check=False)

    driver.cleanup()
    assert done.returncode == 0


@both
def test_cleanup_leaves_the_mounts_of_others(tmp_path: Path, factory: Factory) -> None:
    driver: DriverProtocol = factory(tmp_path / "home")
    driver.create("base")
    driver.create_read_write("child", "base")
    view = driver.get("child")
    others = tmp_path / "home" / "others"
    inside = driver.get("base") / "inside"
    for place in (others, inside):
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "other", place], check=True)

    driver.cleanup()

    try:
        assert os.path.ismount(others)
        assert os.path.ismount(inside)
        assert factory is Vfs or not os.path.ismount(view)
    finally:
        subprocess.run(["umount", others, inside], check=True)


def test_cleanup_ends_what_is_mounted_in_a_view(tmp_path: Path) -> None:
    driver = Overlay2(tmp_path / "home")
    driver.create("base")
    driver.create_read_write("child", "base")
    view = driver.get("child")
    (view / "proc").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "other", view / "proc"], check=True)

    driver.cleanup()

    assert str(view) not in Path("/proc/self/mountinfo").read_text()
    driver.remove("child")


def test_home_below_a_bind_mount(tmp_path: Path) -> None:
    """The mount table lists mounts below it by the path of the bind mount."""
    (tmp_path / "real").mkdir()
    (tmp_path / "bound").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "real", tmp_path / "bound"], check=True)
    try:
        driver = Overlay2(tmp_path / "bound" / "home")
        driver.create("base")
        driver.create_read_write("child", "base")
        (driver.get("child") / "kept").touch()
        Overlay2(tmp_path / "bound" / "home").cleanup()
        assert "bound/home" not in Path("/proc/self/mountinfo").read_text()
        assert os.listdir(Overlay2(tmp_path / "real" / "home").get("child")) == ["kept"]
        Overlay2(tmp_path / "real" / "home").cleanup()
    finally:
        subprocess.run(["umount", "-l", tmp_path / "bound"], check=True)


@pytest.mark.parametrize("name", ["cr\rname", "nbsp\u00a0name", "line\u2028name", "a b\\c\td"])
def test_mounts_of_the_host_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A carriage return does not end a line of the mount table."""
    (tmp_path / name / "home").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "odd", tmp_path / name], check=True)
    try:
        driver = Overlay2(tmp_path / name / "home")
        driver.create("base")
        driver.create_read_write("child", "base")
        view = driver.get("child")
        driver.cleanup()
        assert not os.path.ismount(view)
        driver.remove("child")
        del driver
    finally:
        subprocess.run(["umount", tmp_path / name], check=True)


@both
def test_layer_is_removed_on_a_full_disk(tmp_path: Path, factory: Factory) -> None:
    (tmp_path / "disk").mkdir()
    options = "size=1m,nr_inodes=60"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "disk", tmp_path / "disk"], check=True)
    try:
        driver: DriverProtocol = factory(tmp_path / "disk" / "home")
        driver.create("base")
        driver.create_read_write("child", "base")
        (driver.get("child") / "data").write_bytes(b"x" * 100_000)
        driver.put("child")
        with suppress(OSError):
            for number in range(100):
                (tmp_path / "disk" / str(number)).touch()
        assert os.statvfs(tmp_path / "disk").f_favail == 0

        driver.remove("child")

        assert not driver.exists("child")
        assert os.statvfs(tmp_path / "disk").f_favail > 0
        driver.cleanup()
    finally:
        subprocess.run(["umount", "-R", "-l", tmp_path / "disk"], check=True)


@pytest.mark.parametrize("factory", [Overlay2, Vfs])
def test_home_below_a_file_is_refused_by_the_name_of_the_file(
    tmp_path: Path, factory: Factory
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(errors.PrerequisitesNotMet, match=r"file is not a directory"):
        factory(tmp_path / "file" / "docker" / "home")


def test_disk_that_has_become_read_only_is_named(disk: Path) -> None:
    """The EINVAL of overlayfs would suggest a wrong mount option."""
    driver = Overlay2(disk / "home")
    driver.create("base")
    driver.create_read_write("child", "base")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        with pytest.raises(OSError, match="Read-only file system") as caught:
            driver.get("child")
        assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError, match="Read-only file system"):
            driver.remove("child")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    driver.remove("child")
