"""A private libvirtd responds inside, and ends with the run in every case."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("virsh") or not Path("/usr/sbin/libvirtd").exists(),
    reason="needs root and libvirt",
)

PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from graphdriver_vms.machines.enclosure import enclosed
from graphdriver_vms.errors import MatrixError

def work():
    listed = subprocess.run(["virsh", "-c", "qemu:///system", "list"], capture_output=True)
    links = Path("/proc/net/dev").read_text().count(":")
    try:  # from the first word on: the signal comes as soon as that is read
        print("libvirtd", listed.returncode, "links", links, flush=True)
        if sys.argv[2] == "fail":
            return 7
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    except KeyboardInterrupt:
        time.sleep(0.5)  # as machines are destroyed: a second signal must not come through
        print("cleaned up", flush=True)
        return 5

sys.exit(enclosed(Path(sys.argv[1]), work))
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert _left(tmp_path) == []


def _left(state: Path) -> list[str]:
    """Return the command lines of the processes that still have files below `state` open."""
    found = []
    for process in _holders(state):
        with suppress(OSError):  # the process has ended meanwhile
            found.append((process / "cmdline").read_text())
    return found


def _holders(state: Path) -> Iterator[Path]:
    """Yield the /proc directories of the processes that have files below `state` open."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended meanwhile
            if any(one.startswith(str(state)) for one in _opened(process)):
                yield process


def _opened(process: Path) -> Iterator[str]:
    """Yield the open files of a process; files that it closes meanwhile are omitted."""
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            yield os.readlink(descriptor)


def _first_beside(member: Path) -> int:
    """Return a pidfd of the first process in the pid namespace of `member`."""
    namespace = os.readlink(member / "ns/pid")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended meanwhile
            inside = (process / "status").read_text().split("NSpid:")[1].splitlines()[0].split()
            if inside[-1] == "1" and os.readlink(process / "ns/pid") == namespace:
                return os.pidfd_open(int(process.name))
    raise LookupError(f"no first process beside {member}")


def _start(state: Path, what: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(state), what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "libvirtd 0 links 1\n", "it answers, in an empty network"
    return process


def test_the_exit_code_is_that_of_the_work(state: Path) -> None:
    process = _start(state, "fail")

    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 7


def test_work_that_is_killed_is_no_success(state: Path) -> None:
    """The kernel kills the process when memory is exhausted."""
    process = _start(state, "killed")

    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 128 + signal.SIGKILL


def test_work_is_interrupted_once_however_often_ctrl_c_is_pressed(state: Path) -> None:
    process = _start(state, "wait")
    for _ in range(3):
        process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=60)[0] == "cleaned up\n"
    assert process.returncode == 5


def test_killed_run_leaves_no_process(state: Path) -> None:
    process = _start(state, "wait")
    first = _first_beside(next(_holders(state)))
    process.kill()

    # libvirtd does not use the pipe, and may end later. The kernel ends the first process of a
    # namespace after all others.
    with open(first):
        assert select.select([first], [], [], 60)[0] == [first]
    assert process.communicate(timeout=60)[0] == ""
