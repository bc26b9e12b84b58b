"""The supervisor counts, kills and fails exactly the requested system calls."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from graphdriver_conformance.faults.calls import Call, CallKind
from graphdriver_conformance.faults.supervisor import (
    ALL_CALLS,
    CHANGES,
    PROCEED,
    WRITES,
    Supervisor,
    Verdict,
    Watched,
    failing,
    kill,
    without_flushes,
)
from graphdriver_conformance.host import seccomp
from graphdriver_conformance.host.syscalls import call

pytestmark = pytest.mark.skipif(
    bool(seccomp.why_impossible()), reason=f"cannot be supervised: {seccomp.why_impossible()}"
)


def _in_child(supervisor: Supervisor, work: Callable[[], object]) -> int:
    """Run `work` in a supervised child; return its exit status, negative for a signal.

    The status is 0 if `work` returned, and the errno if it raised an OSError.
    """
    child = os.fork()
    if not child:
        status = 255
        try:
            supervisor.enter()
            work()
            status = 0
        except OSError as error:
            status = error.errno or 254
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def _names(watched: Watched, home: Path) -> list[str]:
    return [one.shown(os.fsencode(home)) for one in watched.calls]


def test_calls_below_the_home_are_counted_in_order(home: Path) -> None:
    def work() -> None:
        (home / "d").mkdir()
        (home.parent / "elsewhere").mkdir()
        (home / "d" / "f").write_bytes(b"x")
        descriptor = os.open(home, os.O_RDONLY)
        os.symlink("f", "d/link", dir_fd=descriptor)
        os.chdir(home / "d")
        os.rename("f", "g")

    with Supervisor(home) as supervisor, supervisor.watching() as watched:
        assert _in_child(supervisor, work) == 0

    assert _names(watched, home) == [
        "mkdir d",
        "openat d/f",
        "write d/f",
        "symlinkat f d/link",
        "rename d/f d/g",
    ]


def test_child_is_killed_before_the_call(home: Path) -> None:
    def work() -> None:
        for name in "abc":
            (home / name).mkdir()

    with Supervisor(home) as supervisor, supervisor.watching(2, kill) as watched:
        assert _in_child(supervisor, work) == -9

    assert os.listdir(home) == ["a"]
    assert watched.hit
    assert watched.hit.shown(os.fsencode(home)) == "mkdir b"


def test_call_fails_once(home: Path) -> None:
    def work() -> None:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (home / "a").mkdir()
        (home / "b").mkdir()

    with Supervisor(home) as supervisor, supervisor.watching(1, failing(errno.ENOSPC)):
        assert _in_child(supervisor, work) == 0

    assert os.listdir(home) == ["b"]


def test_calls_of_threads_and_programs_are_counted_together(home: Path) -> None:
    def work() -> None:
        thread = threading.Thread(target=(home / "thread").mkdir)
        thread.start()
        thread.join()
        subprocess.run(["mkdir", home / "program"], check=True)

    with Supervisor(home) as supervisor, supervisor.watching() as watched:
        assert _in_child(supervisor, work) == 0

    assert _names(watched, home) == ["mkdir thread", "mkdir program"]


def test_kill_reaches_children_in_sessions_of_their_own(home: Path) -> None:
    done = home.parent / "done"
    script = f"import os; os.mkdir({str(home / 'a')!r}); os.mkdir({str(done)!r})"

    def work() -> None:
        subprocess.run([sys.executable, "-c", script], check=False, start_new_session=True)
        done.mkdir()

    with Supervisor(home) as supervisor, supervisor.watching(1, kill):
        assert _in_child(supervisor, work) == -9

    assert not done.exists()


def test_fault_runs_before_the_call(home: Path) -> None:
    seen: list[list[str]] = []

    def look(call: Call) -> Verdict:
        seen.append(os.listdir(home))
        return PROCEED

    with Supervisor(home) as supervisor, supervisor.watching(1, look):
        assert _in_child(supervisor, (home / "a").mkdir) == 0

    assert seen == [[]]
    assert os.listdir(home) == ["a"]


def test_error_of_a_fault_is_raised_by_the_watching_code(home: Path) -> None:
    def broken(call: Call) -> Verdict:
        raise RuntimeError("cannot cut the power")

    def watch() -> None:
        with Supervisor(home) as supervisor, supervisor.watching(1, broken):
            assert _in_child(supervisor, (home / "a").mkdir) == 0

    with pytest.raises(RuntimeError, match="cannot cut the power"):
        watch()


def test_process_below_another_root_is_counted(home: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")

    def work() -> None:
        os.chroot(home)
        os.mkdir("/inside")

    with Supervisor(home) as supervisor, supervisor.watching() as watched:
        assert _in_child(supervisor, work) == 0

    assert [one.name for one in watched.calls] == ["mkdir"]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (CHANGES, ["openat"]),
        (WRITES, ["openat", "fsync"]),
        (ALL_CALLS, ["openat", "fsync", "openat"]),
    ],
    ids=["changes", "writes", "all"],
)
def test_kinds_of_calls(home: Path, kinds: frozenset[CallKind], expected: list[str]) -> None:
    def work() -> None:
        os.fsync(os.open(home / "f", os.O_WRONLY | os.O_CREAT))
        os.open(home / "f", os.O_RDONLY)

    with Supervisor(home, kinds) as supervisor, supervisor.watching() as watched:
        assert _in_child(supervisor, work) == 0

    assert [one.name for one in watched.calls if one.name in ("openat", "fsync")] == expected


def test_ioctls_that_change_a_file_are_counted(home: Path) -> None:
    def work() -> None:
        source = os.open(home / "f", os.O_RDWR | os.O_CREAT)
        target = os.open(home / "g", os.O_RDWR | os.O_CREAT)
        fcntl.ioctl(target, 0x40049409, source)  # FICLONE, which not every file system supports

    with Supervisor(home) as supervisor, supervisor.watching(3, failing(errno.ENOSPC)) as watched:
        assert _in_child(supervisor, work) == errno.ENOSPC

    assert _names(watched, home) == ["openat f", "openat g", "ioctl g FICLONE"]


def test_io_uring_cannot_be_set_up(home: Path) -> None:
    with Supervisor(home) as supervisor:
        status = _in_child(supervisor, lambda: call("syscall", 425, 8, None))

    assert status == errno.ENOSYS


def test_second_listener_is_reported_as_the_reason(home: Path) -> None:
    reasons = home.parent / "reason"

    with Supervisor(home) as supervisor:
        status = _in_child(supervisor, lambda: reasons.write_text(seccomp.why_impossible()))

    assert status == 0
    assert "another supervisor" in reasons.read_text()


@pytest.mark.parametrize("kinds", [CHANGES, WRITES])
def test_flushes_that_are_skipped_succeed_and_are_not_made(
    home: Path, kinds: frozenset[CallKind]
) -> None:
    """fsync of an invalid descriptor would fail if it were executed."""

    def work() -> None:
        os.fsync(999)
        os.fdatasync(999)
        os.sync()

    with (
        Supervisor(home, kinds, skips_flushes=True) as supervisor,
        supervisor.watching() as watched,
    ):
        assert _in_child(supervisor, work) == 0

    assert [one.name for one in watched.calls] == (["sync"] if kinds is WRITES else [])


def test_flush_that_would_be_skipped_can_fail(home: Path) -> None:
    def work() -> None:
        os.fsync(os.open(home, os.O_RDONLY))

    with (
        Supervisor(home, WRITES, skips_flushes=True) as supervisor,
        supervisor.watching(1, failing(errno.EIO)) as watched,
    ):
        assert _in_child(supervisor, work) == errno.EIO

    assert watched.hit
    assert watched.hit.name == "fsync"


def test_process_without_flushes_makes_none() -> None:
    child = os.fork()
    if not child:
        status = 1
        try:
            without_flushes()
            os.fsync(999)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
