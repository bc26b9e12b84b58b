"""A run of the matrix: build missing images, run machines in lanes, write one row for each
kernel.
"""

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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphdriver_vms import cells as cells_module
from graphdriver_vms.errors import MatrixError, NotBooted
from graphdriver_vms.images.kernel_image import KernelImage, build_kernel, static_busybox
from graphdriver_vms.images.payload import BROKEN_DRIVERS, broken_drivers, make_payload
from graphdriver_vms.images.rootfs import build_box
from graphdriver_vms.images.uml_image import UmlImage, build_uml
from graphdriver_vms.kernels import HOST, Kernel
from graphdriver_vms.machines.engine import Engine, Task
from graphdriver_vms.machines.provider import LIBVIRT, chosen_provider
from graphdriver_vms.progress import Progress
from graphdriver_vms.results.judge import Row, read_row, write_row

__all__ = ["Built", "Order", "build", "build_uml_kernels", "run_host", "run_kernels"]


@dataclass(frozen=True, slots=True)
class Order:
    """The parameters of a run."""

    driver: str
    profile: str
    cells: tuple[cells_module.Cell, ...]
    installables: tuple[str, ...] = ()
    lanes: int = 2


@dataclass(frozen=True, slots=True)
class Built:
    """The kernels that were built, and the reasons for the others."""

    images: dict[str, KernelImage]
    failures: dict[str, str]


def build(
    cache: Path,
    payload: Path,
    kernels: Sequence[Kernel],
    installables: Sequence[str],
    progress: Progress,
    uses: contextlib.ExitStack,
) -> Built:
    """Build box, kernels and payload, concurrently. Raises MatrixError without box or payload.

    Until `uses` is closed, no other run replaces the kernels.
    """
    progress.say("build", f"box, {len(kernels)} kernels and the guests' packages")
    busybox = static_busybox(cache) if kernels else Path()
    images: dict[str, KernelImage] = {}
    failures: dict[str, str] = {}

    def one_kernel(kernel: Kernel) -> None:
        with _failure_recorded(kernel, failures, progress):
            images[kernel.name] = build_kernel(cache, kernel, busybox, uses)
            progress.say(kernel.name, f"kernel {images[kernel.name].release}")

    with ThreadPoolExecutor(3) as pool:
        box = pool.submit(build_box, cache, chosen_provider() == LIBVIRT)
        packages = pool.submit(make_payload, payload, installables)
        list(pool.map(one_kernel, kernels))
        packages.result()
        progress.say("build", f"box {box.result().name} is ready")
    return Built(images, failures)


def build_uml_kernels(
    cache: Path, kernels: Sequence[Kernel], progress: Progress, uses: contextlib.ExitStack
) -> tuple[dict[str, UmlImage], dict[str, str]]:
    """Return the available user-mode Linux kernels, and the reasons for the others.

    Until `uses` is closed, no other run replaces the kernels.
    """
    images: dict[str, UmlImage] = {}
    failures: dict[str, str] = {}

    def one_kernel(kernel: Kernel) -> None:
        with _failure_recorded(kernel, failures, progress):
            images[kernel.name] = build_uml(cache, kernel, uses)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one_kernel, kernels))
    return images, failures


@contextlib.contextmanager
def _failure_recorded(
    kernel: Kernel, failures: dict[str, str], progress: Progress
) -> Iterator[None]:
    """Record why a kernel is not available; the others continue."""
    try:
        yield
    except (MatrixError, OSError, subprocess.SubprocessError) as error:
        failures[kernel.name] = f"no kernel: {error}"
        progress.say(kernel.name, failures[kernel.name])


@dataclass(frozen=True, slots=True)
class _Run:
    """The shared state of the lanes of a run."""

    engine: Engine
    failures: Mapping[str, str]
    order: Order
    out: Path
    progress: Progress


def run_kernels(
    kernels: Sequence[Kernel],
    engine: Engine,
    failures: Mapping[str, str],
    order: Order,
    out: Path,
    progress: Progress,
) -> list[Row]:
    """Run each kernel and return the rows, which are then below `out`; machines are destroyed.

    `failures` are the reasons of kernels that could not be built.
    """
    run = _Run(engine, failures, order, out, progress)
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
            # Not Thread.join: after an interrupt, it treats the thread as ended (bpo-45274).
            wait(lanes)
        except KeyboardInterrupt:
            progress.warn("interrupted: destroying the machines")
            stop.set()
            engine.interrupt()
            wait(lanes)
            raise
    for one in lanes:
        one.result()
    return [rows[kernel.name] for kernel in kernels]


def _row(kernel: Kernel, run: _Run) -> Row:
    started = time.monotonic()
    directory = run.out / kernel.name
    if kernel.name in run.failures:
        row = Row(kernel.name, problem=run.failures[kernel.name], failed=True, booted=False)
    else:
        try:
            release = run.engine.run_task(_task(kernel, run, directory))
            row = Row(kernel.name, release, planned=[one.name for one in run.order.cells])
        except (MatrixError, OSError, subprocess.SubprocessError) as error:
            booted = not isinstance(error, NotBooted)
            row = Row(kernel.name, problem=str(error), failed=True, booted=booted)
    row = replace(row, seconds=round(time.monotonic() - started, 1))
    write_row(directory, row)
    row = read_row(directory)
    run.progress.done(kernel.name, _summary(row))
    return row


def _task(kernel: Kernel, run: _Run, directory: Path) -> Task:
    names = [cell.name for cell in run.order.cells]

    def on_line(line: str) -> None:
        if line.startswith("@cell "):
            name = line.removeprefix("@cell ")
            place = f" ({names.index(name) + 1} of {len(names)})" if name in names else ""
            run.progress.say(kernel.name, name + place)

    def report(text: str) -> None:
        run.progress.say(kernel.name, text)

    plan = json.dumps(_plan(run.order, kernel.init))
    return Task(kernel, plan, directory, on_line, report)


def run_host(order: Order, out: Path, progress: Progress) -> Row:
    """Run the plan on the host's own kernel, in a mount namespace, without changes of its module.

    With the suite and the drivers of this Python.
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
    problem = f"the run on the host ended with {done.returncode}" if done.returncode else ""
    seconds = round(time.monotonic() - started, 1)
    planned = [one.name for one in order.cells]
    row = Row(HOST, platform.release(), problem, bool(problem), seconds=seconds, planned=planned)
    write_row(directory, row)
    row = read_row(directory)
    progress.done(HOST, _summary(row))
    return row


def _plan(order: Order, init: str) -> dict[str, Any]:
    """Return the plan of a kernel; cells whose driver is not available are marked as not run."""
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
    if row.problem:
        return f"FAILED: {row.problem}"
    words = Counter(cell.state for cell in row.cells)
    text = ", ".join(f"{count} {state}" for state, count in words.items())
    return f"{text} ({row.seconds:.0f} s)"
