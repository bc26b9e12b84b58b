"""The engine of virtual machines that Vagrant controls."""

import contextlib
import itertools
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphdriver_vms.errors import MachineFailed, MatrixError, NotBooted
from graphdriver_vms.images.kernel_image import KernelImage
from graphdriver_vms.kernels import Kernel, Source
from graphdriver_vms.locks import exclusive
from graphdriver_vms.machines.engine import Task
from graphdriver_vms.machines.hosts import Host, on_host
from graphdriver_vms.machines.machine import Machine
from graphdriver_vms.machines.provider import chosen_provider
from graphdriver_vms.machines.public import PublicMachine
from graphdriver_vms.machines.surroundings import Surroundings
from graphdriver_vms.progress import Progress

__all__ = ["Lanes", "VagrantEngine", "check_release"]

# A second processor halves the time of all cells but the longest one; a third gains little.
_PROCESSORS = 2


@dataclass(frozen=True, slots=True)
class Lanes:
    """The number of concurrent machines on each host, and the processors of each machine.

    `processors` is 0 if the processors of this host are distributed to its machines.
    """

    hosts: Sequence[Host] = (Host(),)
    each: int = 2
    processors: int = 0

    @property
    def count(self) -> int:
        """The number of concurrent machines on all hosts."""
        return self.each * len(self.hosts)

    def processors_of(self, position: int, machines: int, available: int) -> int:
        """Return the processors of the machine that starts at `position`, from 0, of `machines`.

        The last machines, which cannot fill all lanes, have more of them. `available` are the
        processors of this host; those of other hosts are unknown.
        """
        if self.processors:
            return self.processors
        if any(host.uri for host in self.hosts):
            return 1
        whole = machines - machines % self.each
        at_once = self.each if position < whole else machines - whole
        return max(1, min(_PROCESSORS, available // at_once))


class _Turns:
    """Order of the boots. The first machine of each box on a host is alone, in all runs with this
    cache: it adds the box to Vagrant, uploads it, and creates the network.

    Another machine of the same box would find an incomplete upload.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._uploaded: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def of(self, uri: str, box: str) -> Iterator[None]:
        with self._lock:
            first = (uri, box) not in self._uploaded
            if first:
                with exclusive(self._cache, "upload"):
                    yield
                self._uploaded.add((uri, box))
        if not first:
            yield


class VagrantEngine:
    """Machines of the Vagrantfile; `images` are the kernels that were built here, `machines` is the
    number of machines to come, and `available` that of this host's processors.
    """

    def __init__(
        self,
        images: Mapping[str, KernelImage],
        where: Surroundings,
        progress: Progress,
        lanes: Lanes = Lanes(),
        machines: int = 1,
        available: int = 1,
    ) -> None:
        self._images = images
        self._where = where
        self._progress = progress
        self._lanes = lanes
        self._machines = machines
        self._available = available
        self._positions = itertools.count()
        self._turns = _Turns(where.cache)
        self._free: queue.SimpleQueue[Host] = queue.SimpleQueue()
        # The hosts alternate, so that each has its first machine before any has its second.
        for host in [*lanes.hosts] * lanes.each:
            self._free.put(host)

    def run_task(self, task: Task) -> str:
        """Boot a machine, run the plan in it, fetch the results, destroy it; return its release."""
        with self.booted(task) as (machine, release):
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

    @contextlib.contextmanager
    def booted(self, task: Task) -> Iterator[tuple[Machine, str]]:
        """Yield a machine with the kernel, and its release; destroy it afterwards.

        It runs on the next host with a free lane. Raises MachineFailed, and NotBooted.
        """
        kernel = task.kernel
        is_built = kernel.source(chosen_provider()) is Source.BUILT
        host = self._free.get()
        processors = self._lanes.processors_of(
            next(self._positions), self._machines, self._available
        )
        try:
            where = replace(self._where, processors=processors)
            with on_host(host, kernel, self._images.get(kernel.name), where) as there:
                machine = (Machine if is_built else PublicMachine)(kernel.name, there)
                try:
                    yield machine, self._boot(machine, task, host)
                finally:
                    self._destroy(machine)
        finally:
            self._free.put(host)

    def _destroy(self, machine: Machine) -> None:
        try:
            machine.destroy()
        except (MatrixError, OSError, subprocess.SubprocessError) as error:
            # The remaining kernels are run in any case.
            self._progress.warn(f"{machine.name} was not destroyed: {error}")

    def interrupt(self) -> None:
        """End the current step of every machine."""
        Machine.interrupt_all()

    def _boot(self, machine: Machine, task: Task, host: Host) -> str:
        kernel = task.kernel
        box = kernel.box if isinstance(machine, PublicMachine) else ""
        with self._turns.of(host.uri, box):
            task.report(f"up on {host.uri}" if host.uri else "up")
            try:
                machine.up()
            except MachineFailed as error:
                raise NotBooted(str(error)) from None
        release = machine.kernel()
        check_release(kernel, self._images.get(kernel.name), release)
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
