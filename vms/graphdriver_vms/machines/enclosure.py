"""A libvirtd of the run's own, in its own namespaces, with which its processes end.

Processes, network, mounts and libvirt's directories are private. When the run ends, also when it is
killed, the kernel ends every machine, bridge and name server with it.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from graphdriver_vms.errors import MatrixError

__all__ = ["enclosed", "system_libvirtd_answers"]

_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

# For hosts without systemd, D-Bus and usable cgroups; see libvirt's qemu.conf.
_QEMU_CONF = """
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
remember_owner = 0
"""
_PRIVATE = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")


def system_libvirtd_answers() -> bool:
    """Return whether this host runs a libvirtd that is accessible."""
    if not shutil.which("virsh"):
        return False
    try:
        done = subprocess.run(
            ["virsh", "-c", "qemu:///system", "list"], capture_output=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return not done.returncode


def enclosed(state: Path, work: Callable[[], int]) -> int:
    """Call `work` beside a private libvirtd and return its exit code; `state` is a scratch
    directory.

    Ctrl-C and SIGTERM are delivered to `work` once, as KeyboardInterrupt, even if repeated. Raises
    MatrixError if namespaces cannot be created.
    """
    # In a child: after unshare of the PID namespace, no process can be started once that namespace
    # has ended.
    middle = os.fork()
    if not middle:
        _be_middle(state, work)
    return _wait_forwarding(middle)


def _be_middle(state: Path, work: Callable[[], int]) -> None:
    """Enter the namespaces and start their first process."""
    code = 2
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # In another group than the terminal's: the process outside forwards signals, once.
        os.setpgid(0, 0)
        if _libc.unshare(_CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWNS):
            raise MatrixError(
                f"no namespaces for a private libvirtd: {os.strerror(ctypes.get_errno())}",
                "run as root, or start libvirtd",
            )
        first = os.fork()
        if not first:
            _be_init(state, work)
        code = _wait_forwarding(first)
    except MatrixError as error:
        print(f"graphdriver matrix: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait_forwarding(child: int) -> int:
    """Wait for a child and return its exit code; pass on the first SIGINT or SIGTERM."""
    forwarded: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        # A second Ctrl-C must not interrupt the destruction of machines that the first began.
        if not forwarded:
            forwarded.append(number)
            os.kill(child, signal.SIGTERM)

    before = {one: signal.signal(one, forward) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _exit_code(os.waitpid(child, 0)[1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _be_init(state: Path, work: Callable[[], int]) -> None:
    """PID 1 of the namespace: prepare, start libvirtd, run `work` in a child, reap, exit."""
    code = 2
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _make_private(state)
        _start_libvirtd(state)
        worker = os.fork()
        if not worker:
            _work(work)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGINT))
        code = _reap_until(worker)
    except (MatrixError, OSError, subprocess.CalledProcessError) as error:
        print(f"graphdriver matrix: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _work(work: Callable[[], int]) -> None:
    code = 2
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        code = work()
    except SystemExit as wanted:
        code = wanted.code if isinstance(wanted.code, int) else 2
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code)


def _reap_until(worker: int) -> int:
    while True:
        process, status = os.wait()
        if process == worker:
            return _exit_code(status)


def _exit_code(status: int) -> int:
    """Return the exit code of a wait status as in a shell: 128 plus the number of the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _make_private(state: Path) -> None:
    run = ["mount", "--make-rprivate", "/"]
    subprocess.run(run, check=True)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], check=True)
    for name in ("libvirt", "lock"):
        Path("/run", name).mkdir()
    for place in map(Path, _PRIVATE):
        ours = state / place.relative_to("/")
        if place == Path("/etc/libvirt"):
            shutil.copytree(place, ours)
            with (ours / "qemu.conf").open("a") as file:
                file.write(_QEMU_CONF)
        else:
            ours.mkdir(parents=True)
        if place.is_dir():
            subprocess.run(["mount", "--bind", ours, place], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _start_libvirtd(state: Path) -> None:
    program = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
    log = state / "libvirtd.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        if system_libvirtd_answers():
            return
        time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    raise MatrixError(f"the private libvirtd did not answer:\n{log.read_text()[-2000:]}")
