"""The engine for a bzImage of the user's own: booted by QEMU, without Vagrant, libvirt or a
network.

The root file system is that of the box; plan and packages are on a second disk, as a tar archive,
and the results are written to a third.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

from graphdriver_vms.errors import MachineFailed
from graphdriver_vms.images.own import OwnKernel
from graphdriver_vms.machines.direct import DirectBoot
from graphdriver_vms.machines.engine import Task

__all__ = ["QemuEngine"]

_RESULTS = 256 << 20
_MEMORY = 1024
_BOOT_LIMIT = 420
_APPEND = (
    "console=ttyS0 root=/dev/vda rw panic=-1 quiet no_timer_check graphdriver.direct "
    "init=/sbin/graphdriver-direct"
)


class QemuEngine:
    """Boots one kernel; `initrd` has its modules, `disk` is the box's, `payload` its packages."""

    def __init__(
        self,
        kernel: OwnKernel,
        initrd: Path,
        disk: Path,
        payload: Path,
        state: Path,
        logs: Path,
        *,
        kvm: bool,
    ) -> None:
        self._kernel = kernel
        self._initrd = initrd
        self._disk = disk
        self._payload = payload
        self._state = state
        self._logs = logs
        self._accelerator = "kvm" if kvm else "tcg,thread=multi"
        self._interrupted = threading.Event()

    def run_task(self, task: Task) -> str:
        """Boot the kernel, which runs the plan; return its release."""
        task.report(f"boot {self._kernel.release}")
        directory = Path(tempfile.mkdtemp(prefix="qemu-", dir=self._state))
        try:
            (directory / "plan.json").write_text(task.plan)
            with tarfile.open(directory / "payload.tar", "w") as archive:
                archive.add(self._payload, ".")
                archive.add(directory / "plan.json", "plan.json")
            results = directory / "results.tar"
            with results.open("wb") as file:
                file.truncate(_RESULTS)
            boot = DirectBoot(
                self._command(directory),
                {**os.environ, "TMPDIR": str(directory)},
                self._logs / f"{task.kernel.name}.console",
                directory,
                _BOOT_LIMIT,
            )
            try:
                release = boot.run(task, self._interrupted)
            finally:
                _unpack(results, task.directory)
            return release
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def interrupt(self) -> None:
        """End the machine."""
        self._interrupted.set()

    def _command(self, directory: Path) -> list[str]:
        disks = (
            f"file={self._disk},format=qcow2,snapshot=on,cache=unsafe",
            f"file={directory}/payload.tar,format=raw,readonly=on",
            f"file={directory}/results.tar,format=raw",
        )
        command = ["qemu-system-x86_64", "-accel", self._accelerator]
        command += ["-cpu", "host" if self._accelerator == "kvm" else "max", "-m", str(_MEMORY)]
        command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
        command += ["-device", "virtio-rng-pci"]
        command += ["-kernel", str(self._kernel.file), "-initrd", str(self._initrd)]
        command += ["-append", _APPEND]
        for one in disks:
            command += ["-drive", f"if=virtio,{one}"]
        return command


def _unpack(results: Path, target: Path) -> None:
    """Unpack the results of a guest, also of one that died; there may be none."""
    target.mkdir(parents=True, exist_ok=True)
    with results.open("rb") as file:
        if not file.read(512).strip(b"\0"):
            return
    done = subprocess.run(
        ["tar", "-C", target, "--no-same-owner", "-xf", results],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MachineFailed(f"results cannot be unpacked: {done.stderr.strip()[-300:]}")
