"""Public boxes: downloading them, and installing the guests' user space in their machines.

A public box provides the kernel. Its programs may be ten years old, so the root file system of the
guests is copied into it, and the guest's part runs in that.
"""

import subprocess
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import ClassVar

from graphdriver_vms.errors import MachineFailed
from graphdriver_vms.images.rootfs import box_of
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.machines.machine import Machine
from graphdriver_vms.machines.surroundings import Surroundings, run_step
from graphdriver_vms.progress import Progress

__all__ = ["PublicMachine", "obtain_boxes"]

# Seconds: a box has up to 2 GiB; copying the user space takes a minute under emulation.
_DOWNLOAD, _UPLOAD = 1800, 900
_REMEDY = "it takes internet once, or the box added by hand"
_SCRIPT = "/usr/local/sbin/graphdriver-enter"


def obtain_boxes(
    kernels: Sequence[Kernel], where: Surroundings, progress: Progress
) -> dict[str, str]:
    """Let Vagrant download the boxes of `kernels`; return the reasons for missing ones, by kernel.

    Boxes of an earlier run need no internet access.
    """
    problems: dict[str, str] = {}
    for kernel in kernels:
        if kernel.box not in problems:
            progress.say(kernel.name, f"public box {kernel.box}")
            problems[kernel.box] = run_step(
                where, ("box", kernel.box), where.log(kernel.name), _DOWNLOAD, lambda: ""
            )[1]
    return {
        kernel.name: f"the public box {kernel.box} cannot be had: vagrant box add {why}; {_REMEDY}"
        for kernel in kernels
        if (why := problems[kernel.box])
    }


class PublicMachine(Machine):
    """A machine of a public box; `prepare` copies the user space and the payload into it."""

    # A full init system, and guest detection: minutes under emulation.
    up_limit: ClassVar[int] = 900
    root: ClassVar[str] = "/var/lib/graphdriver/root"
    enter: ClassVar[str] = f"sh {_SCRIPT}"

    def prepare(self, report: Callable[[str], None]) -> None:
        """Copy user space and payload. Raises MachineFailed."""
        report("our user space")
        script = (files("graphdriver_vms") / "guest/guest-enter").read_text()
        self._ssh(f"sudo sh -c 'cat > {_SCRIPT}'", given=script)
        self._ssh(f"sudo {self.enter} --place")
        self._unpack_output(["gzip", "-1", "-c", str(box_of(self._where.cache).root)])
        place = ["--owner=0", "--group=0", "--transform=s,^[.],./opt/graphdriver,"]
        payload = ["tar", "-C", str(self._where.payload), *place, "-I", "gzip -1", "-cf", "-", "."]
        self._unpack_output(payload)

    def _unpack_output(self, command: list[str]) -> None:
        """Unpack the output of `command`, compressed: under emulation ssh takes longer than
        gzip.
        """
        with subprocess.Popen(command, stdout=subprocess.PIPE) as packed:
            assert packed.stdout is not None
            unpack = f"sudo tar --numeric-owner -C {self.root} -xpzf -"
            self._send(unpack, packed.stdout.fileno(), _UPLOAD)
        if packed.returncode:
            raise MachineFailed(f"{self.name}: {' '.join(command)} ended with {packed.returncode}")
