"""`graphdriver matrix broken`: broken kernels, and whether the suite detects them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphdriver_vms.cells import Cell, load_cells
from graphdriver_vms.images.broken import UNMODIFIED, BrokenKernel
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.machines.engine import Engine
from graphdriver_vms.progress import Progress
from graphdriver_vms.results.judge import Row
from graphdriver_vms.run import Order, run_kernels

__all__ = ["Finding", "cell_of", "distinguished", "findings_of"]

_ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcomes of the requirement that a broken kernel violates."""

    kernel: BrokenKernel
    unmodified: str
    broken: str

    @property
    def is_caught(self) -> bool:
        """Whether the suite distinguishes the broken kernel from the unmodified one."""
        return (self.unmodified, self.broken) == ("met", "violated")

    def __str__(self) -> str:
        word = "caught" if self.is_caught else "NOT CAUGHT"
        return (
            f"{word:<10} {self.kernel.name:<18} {self.kernel.requirement}: "
            f"{self.unmodified} on the unmodified kernel, {self.broken} on the broken one"
        )


def cell_of(kernel: BrokenKernel) -> Cell:
    """Return the cell that tests a broken kernel, by its name."""
    cell = load_cells()[kernel.cell]
    return replace(cell, name=kernel.name, requirements=[kernel.requirement])


def distinguished(
    kernels: Sequence[BrokenKernel], engine: Engine, order: Order, out: Path, progress: Progress
) -> list[Finding]:
    """Run the unmodified kernel with the cells of all, and each broken one with its own."""
    cells = {one.name: cell_of(one) for one in kernels}
    works = Kernel(UNMODIFIED, "works", "a unmodified kernel")
    whole = replace(order, cells=tuple(cells.values()))
    (unmodified,) = run_kernels([works], engine, {}, whole, out, progress)
    found = []
    for one in kernels:
        only = replace(order, cells=(cells[one.name],))
        (row,) = run_kernels([replace(works, name=one.name)], engine, {}, only, out, progress)
        found.append(Finding(one, *findings_of(one, unmodified, row)))
    text = json.dumps(
        [
            {
                "name": one.kernel.name,
                "requirement": one.kernel.requirement,
                "unmodified": one.unmodified,
                "broken": one.broken,
            }
            for one in found
        ],
        indent=1,
    )
    (out / "broken.json").write_text(text + "\n")
    return found


def findings_of(kernel: BrokenKernel, unmodified: Row, broken: Row) -> tuple[str, str]:
    """Return the outcomes of the kernel's requirement in both rows, "-" if there is none."""
    cells = [
        next((cell for cell in row.cells if cell.name == kernel.name), None)
        for row in (unmodified, broken)
    ]
    before, after = (
        cell.outcomes().get(kernel.requirement, _ABSENT) if cell else _ABSENT for cell in cells
    )
    return before, after
