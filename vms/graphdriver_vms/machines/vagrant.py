"""The engine of virtual machines that Vagrant controls."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Mapping

from graphdriver_vms.errors import MachineFailed, MatrixError, NotBooted
from graphdriver_vms.images.kernel_image import KernelImage
from graphdriver_vms.kernels import Kernel, Source
from graphdriver_vms.machines.engine import Task
from graphdriver_vms.machines.machine import Machine
from graphdriver_vms.machines.provider import chosen_provider
from graphdriver_vms.machines.public import PublicMachine
from graphdriver_vms.machines.surroundings import Surroundings
from graphdriver_vms.progress import Progress

__all__ = ["VagrantEngine", "check_release"]


class _Turns:
    """Order of the boots. The first machine of each box is alone: it uploads the box, and creates
    the network.

    Another machine of the same box would find an incomplete upload.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploaded: set[str] = set()

    @contextlib.contextmanager
    def of(self, box: str) -> Iterator[None]:
        with self._lock:
            first = box not in self._uploaded
            if first:
                yield
                self._uploaded.add(box)
        if not first:
            yield


class VagrantEngine:
    """Machines of the Vagrantfile; `images` are the kernels that were built here."""

    def __init__(
        self, images: Mapping[str, KernelImage], where: Surroundings, progress: Progress
    ) -> None:
        self._images = images
        self._where = where
        self._progress = progress
        self._turns = _Turns()

    def conduct(self, task: Task) -> str:
        """Boot a machine, run the plan in it, fetch the results, destroy it; return its release."""
        kernel = task.kernel
        is_built = kernel.source(chosen_provider()) is Source.BUILT
        machine = (Machine if is_built else PublicMachine)(kernel.name, self._where)
        try:
            return self._use(machine, task)
        finally:
            try:
                machine.destroy()
            except (MatrixError, OSError, subprocess.SubprocessError) as error:
                # The remaining kernels are run nevertheless.
                self._progress.warn(f"{kernel.name} was not destroyed: {error}")

    def interrupt(self) -> None:
        """End the current step of every machine."""
        Machine.interrupt_all()

    def _use(self, machine: Machine, task: Task) -> str:
        kernel = task.kernel
        with self._turns.of(kernel.box if isinstance(machine, PublicMachine) else ""):
            task.report("up")
            try:
                machine.up()
            except MachineFailed as error:
                raise NotBooted(str(error)) from None
        release = machine.kernel()
        check_release(kernel, self._images.get(kernel.name), release)
        machine.prepare(task.report)
        try:
            machine.run(task.plan, task.on_line)
        except MachineFailed:
            # Results of earlier cells may exist; the failure of the run is reported.
            with contextlib.suppress(MachineFailed):
                machine.collect(task.directory)
            raise
        task.report("collect")
        machine.collect(task.directory)
        return release


def check_release(kernel: Kernel, image: KernelImage | None, release: str) -> None:
    """Compare the running kernel with the requested one; `image` if it was built here.

    Raises MachineFailed.
    """
    if image and release != image.release:
        raise MachineFailed(f"{kernel.name}: asked for {image.release}, but {release} answers")
    if not image and not kernel.has_release(release):
        raise MachineFailed(
            f"{kernel.name}: asked for a kernel {kernel.series}, but {release} answers "
            f"in the public box {kernel.box}",
            "name another box in kernels.toml",
        )
