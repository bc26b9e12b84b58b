"""`graphdriver matrix`: the suite on many kernels, one virtual machine each."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphdriver_vms.cells import Cell, load_cells
from graphdriver_vms.enclosure import enclosed, system_libvirtd_answers
from graphdriver_vms.errors import MatrixError
from graphdriver_vms.judge import Row, exit_code, write_row
from graphdriver_vms.kernels import HOST, Kernel, load_kernels
from graphdriver_vms.machine import Surroundings
from graphdriver_vms.progress import Progress
from graphdriver_vms.run import Order, build, run_host, run_machines

__all__ = ["main"]


def default_cache() -> Path:
    """Return where boxes and kernels are kept; the Vagrantfile has the same rule."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("GRAPHDRIVER_MATRIX_CACHE") or Path(base) / "graphdriver-vms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    options = _parser().parse_args(arguments)
    options.cache = options.cache.absolute()
    try:
        return int(options.command(options))
    except MatrixError as error:
        print(f"graphdriver matrix: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("graphdriver matrix", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help)
        command.set_defaults(command=globals()[f"_{name}"])
        command.add_argument(
            "--cache", type=Path, default=default_cache(), help="boxes, kernels, logs"
        )
        return command

    running = add("run", "run the suite on kernels and write the report")
    running.add_argument("kernels", nargs="*", metavar="KERNEL", help="default: all, and the host")
    running.add_argument("--driver", default="overlay2", metavar="SPEC")
    running.add_argument(
        "--install", action="append", default=[], metavar="WHEEL", help="what has the driver"
    )
    running.add_argument("--profile", default="quick", choices=("quick", "default", "thorough"))
    running.add_argument("--cell", action="append", default=[], metavar="NAME")
    running.add_argument("--lanes", type=int, default=2, help="machines at a time")
    running.add_argument("--out", type=Path, default=Path("results/matrix"), metavar="DIR")
    return parser


def _run(options: argparse.Namespace) -> int:
    kernels = _chosen(load_kernels(), options.kernels or [*load_kernels(), HOST])
    cells = tuple(_chosen(load_cells(), options.cell or list(load_cells())).values())
    order = Order(
        options.driver, options.profile, cells, tuple(options.install), max(1, options.lanes)
    )
    rows = _all_rows(options, kernels, order)
    for row in rows:
        print(row.name, row.release, row.trouble, row.seconds)
        for cell in row.cells:
            print("   ", cell.name, cell.state, cell.seconds, cell.detail)
    return exit_code(rows)


def _all_rows(
    options: argparse.Namespace, kernels: dict[str, Kernel | None], order: Order
) -> list[Row]:
    progress = Progress([*kernels, "build"])
    local = [one for one in kernels.values() if one and one.is_built_here]
    out = options.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    built = build(options.cache, local, order.installables, progress)
    state = Path(tempfile.mkdtemp(prefix="run-", dir=options.cache))
    where = Surroundings(options.cache, state, out)
    rows: dict[str, Row] = {}

    def machines() -> int:
        run_machines(local, built, order, where, progress)
        return 0

    try:
        if local:
            code = machines() if system_libvirtd_answers() else enclosed(state, machines)
            if code == 130:
                raise KeyboardInterrupt
        if HOST in kernels:
            run_host(order, where, progress)
    finally:
        for log in (state / "var/log/libvirt/qemu").glob("*.log"):
            shutil.copy(log, out / f"{log.stem.removeprefix('graphdriver-')}.qemu.log")
        shutil.rmtree(state, ignore_errors=True)
    from graphdriver_vms.judge import read_row
    return [read_row(out/name) for name in kernels if (out/name/"row.json").exists()]


def _chosen(known, names):
    unknown = [name for name in names if name not in known and name != HOST]
    if unknown:
        raise MatrixError(f"no {unknown[0]}; there are {', '.join(known)}")
    return {name: known.get(name) for name in names}
