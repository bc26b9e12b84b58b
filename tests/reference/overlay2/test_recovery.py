"""Kills and errors inside verbs: remnants are repaired, and results are correct."""

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from graphdriver import IDMap, errors
from graphdriver.contract import Driver as DriverProtocol
from graphdriver.linux.mounts import detach
from graphdriver.overlay2 import Driver, recovery
from graphdriver.overlay2.fsck import findings
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

OLD = build_archive([entry_of("old", file(b"old"))])
NEW = build_archive([entry_of("new", file(b"new")), entry_of("last", file(b"x" * 70_000))])
REDIRECT = "overlay2.mountopt=redirect_dir=on"

# Runs in another process, which kills itself during the last verb.
BEGIN = """
import io, os, signal, sys
from graphdriver.overlay2 import Driver, support, differs
from graphdriver import vfs
home, archive = sys.argv[1], open(sys.argv[2], "rb").read()
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
class Dying(io.BytesIO):
    def read(self, size=-1):
        data = super().read(size)
        return data if data else die()
"""
KILLED_IN_INIT = """
mount = support._mount_trial
support._mount_trial = lambda *arguments: (mount(*arguments), die())
Driver(home)
"""
KILLED_IN_STAGED_VIEW = f"""
Driver(home, ["{REDIRECT}"]).apply_diff("child", "base", Dying(archive[:-1024]))
"""
KILLED_IN_APPLY = """
Driver(home).apply_diff("child", "base", Dying(archive[:-1024]))
"""
KILLED_IN_PLACE = """
driver = Driver(home)
driver.get("child")
driver.apply_diff("child", "base", Dying(archive[:-1024]))
"""
KILLED_IN_PLACE_OF_A_BASE = """
driver = Driver(home)
driver.get("base")
driver.apply_diff("base", "", Dying(archive[:-1024]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home with `child` on `base`, each with content."""
    driver = Driver(tmp_path / "home")
    driver.create("base")
    driver.apply_diff("base", "", io.BytesIO(OLD))
    driver.create_read_write("child", "base")
    del driver
    yield tmp_path / "home"
    subprocess.run(["umount", "-R", "-l", tmp_path], check=False, capture_output=True)


def _kill(program: str, home: Path) -> None:
    archive = home.parent / "archive"
    archive.write_bytes(NEW)
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program, home, archive], check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    archive.unlink()


def _mounts(home: Path) -> list[str]:
    table = Path("/proc/self/mountinfo").read_text()
    return [line.split()[4] for line in table.splitlines() if f" {home}/" in line]


def _shown(driver: DriverProtocol, id: str) -> list[str]:
    view = driver.get(id)
    try:
        return sorted(os.listdir(view))
    finally:
        driver.put(id)


def test_killed_while_a_probe_is_mounted(home: Path) -> None:
    _kill(KILLED_IN_INIT, home)
    assert len(_mounts(home)) == 1

    driver = Driver(home)

    assert _mounts(home) == []
    assert sorted(os.listdir(home)) == ["base", "child", "l"]
    assert _shown(driver, "child") == ["old"]


def test_killed_in_the_first_init_leaves_nothing_beside_the_home(tmp_path: Path) -> None:
    home = tmp_path / "above" / "home"
    (tmp_path / "above").mkdir()
    _kill(KILLED_IN_INIT, home)

    assert os.listdir(tmp_path / "above") == ["home"]
    Driver(home)
    assert os.listdir(home) == ["l"]
    assert _mounts(home) == []


@pytest.mark.parametrize(
    ("program", "options"),
    [
        (KILLED_IN_APPLY, ()),
        (KILLED_IN_STAGED_VIEW, (REDIRECT,)),
        (KILLED_IN_PLACE, ()),
    ],
)
@pytest.mark.parametrize("restart", [True, False])
def test_killed_in_apply_diff(
    home: Path, program: str, options: tuple[str, ...], restart: bool
) -> None:
    """The old content is restored by the next start, or the next apply_diff of a live driver."""
    before = Driver(home, options)
    _kill(program, home)
    if restart:
        del before
        driver = Driver(home, options)
        assert _shown(driver, "child") == ["old"]
        assert findings(home) == []
        assert sorted(os.listdir(home)) == ["base", "child", "l"]
    else:
        driver = before

    driver.apply_diff("child", "base", io.BytesIO(NEW))

    assert _shown(driver, "child") == ["last", "new", "old"]
    assert sorted(os.listdir(home / "child")) == ["diff", "link", "lower", "merged", "work"]
    driver.cleanup()
    assert _mounts(home) == []


def test_killed_in_apply_diff_to_a_base_layer_in_use(home: Path) -> None:
    _kill(KILLED_IN_PLACE_OF_A_BASE, home)

    assert _shown(Driver(home), "base") == ["old"]


def test_crash_in_the_middle_of_recovery(home: Path) -> None:
    """Between its two renames the layer has no tree."""
    _kill(KILLED_IN_PLACE, home)
    os.rename(home / "child" / "diff", home / "child" / ".applying" / "partial")

    assert _shown(Driver(home), "child") == ["old"]


def test_files_of_others_in_the_home_do_not_keep_it_from_starting(home: Path) -> None:
    (home / "README").write_text("yours")
    (home / "notes").mkdir()
    (home / "dangling").symlink_to("nowhere")
    (home / "loop").symlink_to("loop")

    assert _shown(Driver(home), "child") == ["old"]
    assert {"README", "notes", "dangling", "loop"} < set(os.listdir(home))


def test_recovery_goes_through_no_symlink_out_of_the_home(home: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    (others / ".applying").mkdir(parents=True)
    (home / "link").symlink_to(others)

    Driver(home)

    assert os.listdir(others) == [".applying"]


def test_mounts_in_a_remnant_keep_their_content(home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (home / ".removed-X" / "diff" / "mnt").mkdir(parents=True)
    subprocess.run(["mount", "--bind", precious, home / ".removed-X" / "diff" / "mnt"], check=True)

    Driver(home)

    assert (precious / "file").exists()
    assert not (home / ".removed-X").exists()


@pytest.fixture
def driver(home: Path) -> Iterator[Driver]:
    made = Driver(home)
    yield made
    made.cleanup()


def _failing(number: int, when: Callable[..., bool], real: Callable[..., object]) -> object:
    def call(*arguments: object, **options: object) -> object:
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    return call


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_create_that_cannot_be_made_durable_is_undone(
    driver: Driver, home: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = sorted(home.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fsync", _failing(number, lambda fd: fd == driver._home.descriptor, os.fsync)
        )
        with pytest.raises(OSError) as caught:
            driver.create("new", "base")

    assert number == caught.value.errno
    assert before == sorted(home.rglob("*"))
    driver.create("new", "base")
    driver.remove("new")


def test_applied_archive_is_no_failure_when_the_old_tree_cannot_be_removed(
    driver: Driver, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "graphdriver.overlay2.differs.remove_unmounted",
            _failing(errno.EIO, lambda *_: True, lambda: None),
        )
        driver.apply_diff("child", "base", io.BytesIO(NEW))

    assert _shown(driver, "child") == ["last", "new", "old"]
    driver.apply_diff("child", "base", io.BytesIO(OLD))
    assert not (home / "child" / ".applying").exists()


def test_remnant_that_could_not_be_deleted_goes_with_the_next_removal(
    driver: Driver, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.create("other")
    with monkeypatch.context() as patch:
        patch.setattr(
            "graphdriver.overlay2.layout.remove_unmounted",
            _failing(errno.EMFILE, lambda *_: True, lambda: None),
        )
        driver.remove("child")
    assert not driver.exists("child")
    assert len(os.listdir(home)) == 4

    driver.remove("other")

    assert sorted(os.listdir(home)) == ["base", "l"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize(
    "verb",
    [
        lambda driver: driver.remove("child"),
        lambda driver: driver.get("child"),
        lambda driver: driver.create("new", "child"),
        lambda driver: driver.diff("child", "base"),
        lambda driver: driver.apply_diff("child", "base", io.BytesIO(NEW)),
    ],
)
def test_error_of_the_disk_is_no_missing_layer(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[[Driver], object],
    number: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", _failing(number, lambda path: path == "child/diff", os.stat))
        with pytest.raises(OSError) as caught:
            verb(driver)

    assert number == caught.value.errno
    assert driver.exists("child")
    assert not driver.exists("new")


def test_error_of_the_disk_is_no_advice_to_remove_layers(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", _failing(errno.EIO, lambda *_: True, os.readlink))
        with pytest.raises(OSError) as caught:
            driver.get_metadata("child")

    assert caught.value.errno == errno.EIO


def test_start_does_not_remove_short_names_that_it_cannot_look_at(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = sorted(os.listdir(home / "l"))
    with monkeypatch.context() as patch:
        for name in ("stat", "readlink"):
            failing = _failing(
                errno.EIO,
                lambda path, *_: str(path).startswith((f"{home}/l/", "l/")),
                getattr(os, name),
            )
            patch.setattr(os, name, failing)
        Driver(home)

    assert links == sorted(os.listdir(home / "l"))


def test_start_looks_into_no_layer_that_is_whole(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host has thousands of layers: each start read three files of each."""
    opened: list[str] = []
    real = os.open

    def noting(path: str | Path, *arguments: int, **named: int) -> int:
        opened.append(str(path))
        return real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", noting)
        driver = Driver(home)
        driver.create("new")

    assert opened
    assert [path for path in opened if "base" in path or "child" in path] == []
    with pytest.raises(errors.LayerInUse, match="has children"):
        driver.remove("base")


def test_probe_that_cannot_be_unmounted_at_once_leaves_no_mount(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def failing_once(point: Path) -> None:
        calls.append(point)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        detach(point)

    monkeypatch.setattr("graphdriver.tree.removal.detach", failing_once)

    Driver(home)

    assert calls[1] == calls[0]
    assert _mounts(home) == []


def test_cause_of_a_failing_probe_is_the_one_that_is_raised(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(recovery, "remove_unmounted", refuse)
    monkeypatch.setattr("graphdriver.overlay2.support.mount", refuse)

    with pytest.raises(errors.NotSupported, match="Input/output error"):
        Driver(home)


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=60", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-R", "-l", tmp_path], check=True)


def _use_up_inodes(directory: Path) -> None:
    directory.mkdir()
    with suppress(OSError):
        for number in range(1000):
            (directory / str(number)).touch()
    assert os.statvfs(directory).f_ffree == 0


def test_view_that_the_kernel_makes_read_only_is_refused(few_inodes: Path) -> None:
    """overlayfs failed to create work/work, only logged it, and mounted read-only."""
    home = few_inodes / "home"
    driver = Driver(home)
    driver.create("base")
    driver.create_read_write("child", "base")
    filler = few_inodes / "filler"
    _use_up_inodes(filler)

    with pytest.raises(OSError, match="No space left") as caught:
        driver.get("child")
    assert caught.value.errno == errno.ENOSPC
    assert _mounts(home) == []
    for path in filler.iterdir():
        path.unlink()

    (driver.get("child") / "written").touch()
    driver.cleanup()


def test_view_whose_work_directory_cannot_be_chowned_is_unmounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = [IDMap(0, 100_000, 65_536)]
    driver = Driver(tmp_path / "home", (), maps, maps)
    driver.create("base")
    driver.create_read_write("child", "base")
    with monkeypatch.context() as patch:
        failing = _failing(errno.EIO, lambda path, *_: str(path).endswith("work/work"), os.chown)
        patch.setattr(os, "chown", failing)
        with pytest.raises(OSError, match="Input/output"):
            driver.get("child")

    assert _mounts(tmp_path / "home") == []
    driver.get("child")
    driver.cleanup()


def test_mount_point_that_dockerd_has_removed_is_no_finding(home: Path) -> None:
    (home / "child" / "merged").rmdir()

    assert findings(home) == []
    assert _shown(Driver(home), "child") == ["old"]


def test_remnants_of_a_killed_dockerd_are_known(home: Path) -> None:
    (home / "check-overlayfs-support123" / "merged").mkdir(parents=True)
    (home / "opaque-bug-check456").mkdir()

    found = {one.name: one.what for one in findings(home)}

    what = "the probe of a dockerd that was killed"
    assert {"check-overlayfs-support123": what, "opaque-bug-check456": what} == found
