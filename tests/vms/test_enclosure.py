"""A private libvirtd: it answers inside, and is gone with the run, however that ends."""

import os
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
import subprocess, sys, time
from pathlib import Path
from graphdriver_vms.enclosure import enclosed
from graphdriver_vms.errors import MatrixError

def work():
    listed = subprocess.run(["virsh", "-c", "qemu:///system", "list"], capture_output=True)
    links = Path("/proc/net/dev").read_text().count(":")
    try:  # from the first word on: the signal comes as soon as that is read
        print("libvirtd", listed.returncode, "links", links, flush=True)
        if sys.argv[2] == "fail":
            return 7
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
    assert [] == _left(tmp_path)


def _left(state: Path) -> list[str]:
    """Return the processes that still have something below `state` open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if any(one.startswith(str(state)) for one in _opened(process)):
                found.append((process / "cmdline").read_text())
    return found


def _opened(process: Path) -> Iterator[str]:
    """Yield what a process has open; what it closes meanwhile is left out."""
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            yield os.readlink(descriptor)


def _start(state: Path, what: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(state), what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "libvirtd 0 links 1\n" == process.stdout.readline(), "it answers, in an empty network"
    return process


def test_the_exit_code_is_that_of_the_work(state: Path) -> None:
    process = _start(state, "fail")

    assert "" == process.communicate(timeout=60)[0]
    assert 7 == process.returncode


def test_work_is_interrupted_once_however_often_ctrl_c_is_pressed(state: Path) -> None:
    process = _start(state, "wait")
    for _ in range(3):
        process.send_signal(signal.SIGINT)

    assert "cleaned up\n" == process.communicate(timeout=60)[0]
    assert 5 == process.returncode


def test_a_killed_run_takes_everything_with_it(state: Path) -> None:
    process = _start(state, "wait")
    assert [] != _left(state)

    process.kill()
    # The pipe is closed once the last process that had it is gone.
    assert "" == process.communicate(timeout=60)[0]
