"""A run of the matrix: build what is missing, machines in lanes, one row for each kernel."""

import contextlib
import json
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphdriver_vms import cells as cells_module
from graphdriver_vms.errors import MachineFailed, MatrixError
from graphdriver_vms.images.kernel_image import KernelImage, build_kernel
from graphdriver_vms.images.payload import BROKEN_DRIVERS, broken_drivers, make_payload
from graphdriver_vms.images.rootfs import build_box
from graphdriver_vms.kernels import HOST, Kernel, Source
from graphdriver_vms.machines.machine import Machine
from graphdriver_vms.machines.provider import LIBVIRT, chosen_provider
from graphdriver_vms.machines.public import PublicMachine
from graphdriver_vms.machines.surroundings import Surroundings
from graphdriver_vms.progress import Progress
from graphdriver_vms.results.judge import Row, read_row, write_row

__all__ = ["Built", "Order", "build", "check_release", "run_host", "run_machines"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to do."""

    driver: str
    profile: str
    cells: tuple[cells_module.Cell, ...]
    installables: tuple[str, ...] = ()
    lanes: int = 2


@dataclass(frozen=True, slots=True)
class Built:
    """The kernels that were built here, and why others could not be."""

    images: dict[str, KernelImage]
    failures: dict[str, str]


def build(
    cache: Path,
    payload: Path,
    kernels: Sequence[Kernel],
    installables: Sequence[str],
    progress: Progress,
) -> Built:
    """Build box, kernels and payload, side by side. Raises MatrixError without box or payload."""
    progress.say("build", f"box, {len(kernels)} kernels and the guests' packages")
    images: dict[str, KernelImage] = {}
    failures: dict[str, str] = {}

    def one_kernel(kernel: Kernel) -> None:
        try:
            images[kernel.name] = build_kernel(cache, kernel)
            progress.say(kernel.name, f"kernel {images[kernel.name].release}")
        except (MatrixError, OSError, subprocess.SubprocessError) as error:
            failures[kernel.name] = f"no kernel: {error}"
            progress.say(kernel.name, failures[kernel.name])

    with ThreadPoolExecutor(3) as pool:
        box = pool.submit(build_box, cache, chosen_provider() == LIBVIRT)
        packages = pool.submit(make_payload, payload, installables)
        list(pool.map(one_kernel, kernels))
        packages.result()
        progress.say("build", f"box {box.result().name} is ready")
    return Built(images, failures)


class _Turns:
    """Who may come up. The first of each box alone: it uploads the box, and makes the network.

    Another of the same box would find it half there.
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


@dataclass(frozen=True, slots=True)
class _Run:
    """What the lanes of a run share."""

    built: Built
    order: Order
    where: Surroundings
    progress: Progress
    turns: _Turns = field(default_factory=_Turns)


def run_machines(
    kernels: Sequence[Kernel], built: Built, order: Order, where: Surroundings, progress: Progress
) -> list[Row]:
    """Run each kernel's machine and return the rows; machines are gone when this returns."""
    run = _Run(built, order, where, progress)
    rows: dict[str, Row] = {}
    todo: queue.SimpleQueue[Kernel] = queue.SimpleQueue()
    for kernel in kernels:
        todo.put(kernel)
    stop = threading.Event()

    def lane() -> None:
        while not stop.is_set():
            try:
                kernel = todo.get_nowait()
            except queue.Empty:
                return
            rows[kernel.name] = _row(kernel, run)

    with ThreadPoolExecutor(order.lanes) as pool:
        lanes = [pool.submit(lane) for _ in range(order.lanes)]
        try:
            # Not Thread.join: once interrupted, it takes the thread for ended (bpo-45274).
            wait(lanes)
        except KeyboardInterrupt:
            progress.warn("interrupted: destroying the machines")
            stop.set()
            Machine.interrupt_all()
            wait(lanes)
            raise
    for one in lanes:
        one.result()
    return [rows[kernel.name] for kernel in kernels]


def _row(kernel: Kernel, run: _Run) -> Row:
    started = time.monotonic()
    directory = run.where.logs / kernel.name
    if kernel.name in run.built.failures:
        row = Row(kernel.name, trouble=run.built.failures[kernel.name], failed=True)
    else:
        is_built = kernel.source(chosen_provider()) is Source.BUILT
        machine = (Machine if is_built else PublicMachine)(kernel.name, run.where)
        try:
            row = Row(kernel.name, _use(machine, kernel, run, directory))
        except (MatrixError, OSError, subprocess.SubprocessError) as error:
            row = Row(kernel.name, trouble=str(error), failed=True)
        finally:
            try:
                machine.destroy()
            except (MatrixError, OSError, subprocess.SubprocessError) as error:
                # The kernels that are left have their turn all the same.
                run.progress.warn(f"{kernel.name} was not destroyed: {error}")
    row = replace(row, seconds=round(time.monotonic() - started, 1))
    write_row(directory, row)
    row = read_row(directory)
    run.progress.done(kernel.name, _summary(row))
    return row


def _use(machine: Machine, kernel: Kernel, run: _Run, directory: Path) -> str:
    """Bring a machine up, run the cells in it, collect; return its kernel's release."""
    with run.turns.of(kernel.box if isinstance(machine, PublicMachine) else ""):
        run.progress.say(kernel.name, "up")
        machine.up()
    release = machine.kernel()
    check_release(kernel, run.built.images.get(kernel.name), release)
    machine.prepare(lambda text: run.progress.say(kernel.name, text))
    cells = run.order.cells
    names = [cell.name for cell in cells]

    def on_line(line: str) -> None:
        if line.startswith("@cell "):
            name = line.removeprefix("@cell ")
            place = f" ({names.index(name) + 1} of {len(names)})" if name in names else ""
            run.progress.say(kernel.name, name + place)

    plan = _plan(run.order, kernel.init)
    try:
        machine.run(json.dumps(plan), on_line)
    except MachineFailed:
        # What it did before may be there, and its end is what is told.
        with contextlib.suppress(MachineFailed):
            machine.collect(directory)
        raise
    run.progress.say(kernel.name, "collect")
    machine.collect(directory)
    return release


def check_release(kernel: Kernel, image: KernelImage | None, release: str) -> None:
    """Compare the kernel that answers with the one asked for; `image` where it was built here.

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


def run_host(order: Order, out: Path, progress: Progress) -> Row:
    """Run the plan on this host's own kernel, in a mount namespace, its module untouched.

    With the suite and the drivers that this Python has.
    """
    started = time.monotonic()
    directory = out / HOST
    directory.mkdir(parents=True, exist_ok=True)
    plan = _plan(order, "works")
    for cell in plan["cells"]:
        if cell["parameters"]:
            cell["not_run"] = "would set parameters of this host's overlay module"
        elif cell["user"] != "root":
            cell["not_run"] = f"this host has no user {cell['user']} for it"
    (directory / "plan.json").write_text(json.dumps(plan))
    command = ["unshare", "--mount", sys.executable, "-m", "graphdriver_vms.guest"]
    progress.say(HOST, f"{len(plan['cells'])} cells on {platform.release()}")
    done = subprocess.run(
        [*command, directory / "plan.json", directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=_environment_with_broken_drivers(),
        check=False,
    )
    trouble = f"the run on the host ended with {done.returncode}" if done.returncode else ""
    seconds = round(time.monotonic() - started, 1)
    write_row(directory, Row(HOST, platform.release(), trouble, bool(trouble), seconds))
    row = read_row(directory)
    progress.done(HOST, _summary(row))
    return row


def _plan(order: Order, init: str) -> dict[str, Any]:
    """Return the plan of a kernel; cells whose driver cannot be had here say so."""
    plan = cells_module.plan(order.cells, order.driver, _families(), order.profile, init)
    if broken_drivers() is None:
        for cell in plan["cells"]:
            if cell["driver"].startswith(f"{BROKEN_DRIVERS}:"):
                cell["not_run"] = (
                    f"{cell['driver']} is one of the broken drivers of the project's own tests, "
                    "which the installed package does not have: run the matrix from a checkout"
                )
    return plan


def _environment_with_broken_drivers() -> dict[str, str]:
    """Return this process's environment, with the broken drivers of a checkout importable."""
    places = [str(place.parent) for place in [broken_drivers()] if place]
    given = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*places, *filter(None, [given])])}


def _families() -> frozenset[str]:
    """Return the families of the catalogue, as `graphdriver list` has them."""
    command = [sys.executable, "-m", "graphdriver_conformance", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return frozenset(line.partition("-")[0] for line in done.stdout.splitlines())


def _summary(row: Row) -> str:
    if row.trouble:
        return f"FAILED: {row.trouble}"
    words = Counter(cell.state for cell in row.cells)
    told = ", ".join(f"{count} {state}" for state, count in words.items())
    return f"{told} ({row.seconds:.0f} s)"
