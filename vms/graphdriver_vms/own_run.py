"""A run of a kernel of the user's own, and its comparison with a base: `matrix run
--kernel-image`.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graphdriver_vms.doctor import has_kvm
from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.kernel_image import make_initrd, static_busybox
from graphdriver_vms.images.own import KernelFormat, OwnKernel, own_kernel
from graphdriver_vms.images.payload import host_packages, make_payload
from graphdriver_vms.images.rootfs import build_box
from graphdriver_vms.images.uml_image import UmlImage
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.machines.engine import Engine, EngineName
from graphdriver_vms.machines.qemu import QemuEngine
from graphdriver_vms.machines.uml import UmlEngine
from graphdriver_vms.progress import Progress
from graphdriver_vms.results.judge import Cell, Row, State, read_row

__all__ = [
    "BAD",
    "CANNOT_TEST",
    "GOOD",
    "OWN",
    "STOP",
    "Comparison",
    "compared",
    "engine_of",
    "prepared",
]

OWN = Kernel("own", "works", "a kernel of one's own")
"""The row of the kernel."""

# Exit codes of `git bisect run`.
GOOD, BAD, CANNOT_TEST, STOP = 0, 1, 125, 128


def engine_of(file: Path) -> EngineName:
    """Return the engine for a kernel, by its file; a package may contain either kind."""
    try:
        with file.open("rb") as stream:
            is_elf = stream.read(4) == b"\x7fELF"
    except OSError:
        is_elf = False
    return EngineName.UML if is_elf or "user-mode-linux" in file.name else EngineName.QEMU


def prepared(
    file: Path,
    modules: Path | None,
    cache: Path,
    state: Path,
    out: Path,
    installables: tuple[str, ...],
    progress: Progress,
) -> Engine:
    """Return the engine that boots a kernel, prepared. Raises CannotBuild."""
    kernel = own_kernel(file, modules, state)
    progress.say(OWN.name, f"{file}: {kernel.release}")
    if kernel.format is KernelFormat.UML:
        image = UmlImage(kernel.release, kernel.file, kernel.modules_base)
        packages = host_packages(state / "payload", installables)
        return UmlEngine({OWN.name: image}, state, out, packages)
    return _qemu(kernel, cache, state, out, installables)


def _qemu(
    kernel: OwnKernel, cache: Path, state: Path, out: Path, installables: tuple[str, ...]
) -> QemuEngine:
    payload = state / "payload"
    make_payload(payload, installables)
    box = build_box(cache)
    base = kernel.modules_base[0] if kernel.modules_base else None
    initrd = state / "initrd"
    make_initrd(base, kernel.release, initrd, static_busybox(cache))
    return QemuEngine(kernel, initrd, box.disk(), payload, state, out, kvm=has_kvm())


@dataclass(frozen=True, slots=True)
class Comparison:
    """The regressions of a kernel of the user's own from the base, in lines for a terminal."""

    lines: tuple[str, ...]
    is_worse: bool


def compared(base: Path, row: Row, directory: Path) -> Comparison:
    """Compare a row, whose results are in `directory`, with an earlier one in `base`.

    Raises CannotBuild if `base` has no results.
    """
    if not (base / "row.json").is_file():
        raise CannotBuild(
            f"{base} has no results of a kernel", "name a directory as results/matrix/6.1"
        )
    before: Mapping[str, Cell] = {cell.name: cell for cell in read_row(base).cells}
    lines: list[str] = []
    is_worse = False
    for cell in row.cells:
        old = before.get(cell.name)
        if old is None:
            lines.append(f"{cell.name}: the base has no result")
            continue
        if cell.state is State.DIFFERENT and old.state is not State.DIFFERENT:
            is_worse = True
            lines.append(f"{cell.name}: {old.state} before; now different: {cell.detail}")
        files = [place / f"{cell.name}.json" for place in (base, directory)]
        if cell.result and old.result and all(one.is_file() for one in files):
            text, newly_violated = _diff(*files)
            is_worse |= newly_violated
            lines += [f"{cell.name}: {line}" for line in text.splitlines() if line.strip()]
    return Comparison(tuple(lines), is_worse)


def _diff(old: Path, new: Path) -> tuple[str, bool]:
    """Return the output of `graphdriver report --diff`, and whether there are new violations."""
    command = [
        sys.executable,
        "-m",
        "graphdriver_conformance",
        "report",
        "--diff",
        str(old),
        str(new),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise CannotBuild(f"the results cannot be compared: {done.stderr.strip()[-300:]}")
    return done.stdout, done.returncode == 1
