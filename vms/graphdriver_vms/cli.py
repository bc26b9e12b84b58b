"""`graphdriver matrix`: the suite on many kernels, one virtual machine each."""

import argparse
import contextlib
import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from graphdriver_vms.broken_run import distinguished
from graphdriver_vms.cells import CONFORMANT, Cell, load_cells
from graphdriver_vms.clean import clean
from graphdriver_vms.doctor import findings, install_command
from graphdriver_vms.each_run import XDIST, run_each
from graphdriver_vms.errors import MatrixError
from graphdriver_vms.images.broken import Workshop, load_broken
from graphdriver_vms.images.payload import host_packages
from graphdriver_vms.kernels import HOST, Kernel, Source, load_kernels
from graphdriver_vms.locks import exclusive, is_in_use, shared
from graphdriver_vms.machines.enclosure import enclosed, system_libvirtd_answers
from graphdriver_vms.machines.engine import CHOICES, EngineName
from graphdriver_vms.machines.hosts import Host
from graphdriver_vms.machines.provider import LIBVIRT, chosen_provider
from graphdriver_vms.machines.public import obtain_boxes
from graphdriver_vms.machines.surroundings import Surroundings
from graphdriver_vms.machines.uml import UmlEngine
from graphdriver_vms.machines.vagrant import Lanes, VagrantEngine
from graphdriver_vms.own_run import BAD, CANNOT_TEST, GOOD, OWN, STOP, compared, engine_of, prepared
from graphdriver_vms.progress import Progress
from graphdriver_vms.results import terminal
from graphdriver_vms.results.judge import Row, exit_code, read_row, write_row
from graphdriver_vms.results.markdown import as_markdown
from graphdriver_vms.results.page import as_page
from graphdriver_vms.run import Order, build, build_uml_kernels, run_host, run_kernels
from graphdriver_vms.shard import Shard, shard

__all__ = ["cells_of", "main"]

_UNSUPPORTED = 3
_KERNEL_IMAGE = "a kernel of your own: bzImage, `linux` of ARCH=um, or Debian package"
_PROCESSORS = "of each machine, each runs a cell (default: this host's, shared by the machines)"
_URI = "libvirt of another host, as qemu+ssh://root@HOST/system, with its lanes; repeatable"
_ENGINES = "vagrant: virtual machines (default); uml: user-mode Linux, a quick look without root"
_INTERRUPTED = 130
# The lock of the cache that every run holds.
_RUN = "run"
_Entry = TypeVar("_Entry")


def default_cache() -> Path:
    """Return the directory of boxes and kernels; the Vagrantfile uses the same rule."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("GRAPHDRIVER_MATRIX_CACHE") or Path(base) / "graphdriver-vms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except MatrixError as error:
        print(f"graphdriver matrix: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not is_full or options.command is _list:  # which only writes to standard output
            raise
        where = f" below {error.filename}" if error.filename else ""
        print(
            f"graphdriver matrix: no space is left{where}; make room, or name other places with "
            "--cache and --out",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("graphdriver matrix: interrupted; no machine is left", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("graphdriver matrix", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    running = commands.add_parser("run", help="run the suite on kernels and report")
    running.set_defaults(command=_run)
    add = running.add_argument
    add("kernels", nargs="*", metavar="KERNEL", help="of kernels.toml, or host; default: all")
    add("--driver", default="overlay2", metavar="SPEC", help="driver to test (default: overlay2)")
    add("--install", action="append", default=[], metavar="WHEEL", help="wheel or path with it")
    add("--profile", default="quick", choices=("quick", "default", "thorough"))
    add("--cell", action="append", default=[], metavar="NAME", help="of cells.toml; repeatable")
    add(
        "--requirement", action="append", default=[], metavar="ID", help="or its family; repeatable"
    )
    add(
        "--engine",
        type=EngineName,
        default=EngineName.VAGRANT,
        choices=CHOICES,
        help=_ENGINES,
    )
    add("--kernel-image", type=Path, metavar="FILE", help=_KERNEL_IMAGE)
    add("--modules", type=Path, metavar="DIR", help="its modules, as `make modules_install` does")
    add("--base", type=Path, metavar="DIR", help="results of a kernel to compare it with")
    add("--shard", type=shard, default=Shard(1, 1), metavar="I/N", help="the Ith of N shares")
    add("--lanes", type=_count, default=2, metavar="N", help="machines at a time (default: 2)")
    add("--processors", type=_count, default=0, metavar="N", help=_PROCESSORS)
    add("--libvirt-uri", action="append", default=[], metavar="URI", help=_URI)
    add("--out", type=Path, default=Path("results/matrix"), metavar="DIR", help="results, logs")
    joining = commands.add_parser(
        "each", help="boot kernels, and run one pytest with --dist each over them"
    )
    joining.set_defaults(command=_each)
    joining.add_argument("kernels", nargs="+", metavar="KERNEL", help="of kernels.toml")
    joining.add_argument("--driver", default="overlay2", metavar="SPEC")
    joining.add_argument("--install", action="append", default=[], metavar="WHEEL")
    joining.add_argument("--profile", default="quick", choices=("quick", "default", "thorough"))
    joining.add_argument("--requirement", action="append", default=[], metavar="ID")
    joining.add_argument("--out", type=Path, default=Path("results/each"), metavar="DIR")
    reporting = commands.add_parser("report", help="compare the results of a run")
    reporting.set_defaults(command=_report)
    reporting.add_argument(
        "directories",
        type=Path,
        nargs="*",
        default=[Path("results/matrix")],
        metavar="DIR",
        help="of one run, or of all its shards (default: results/matrix)",
    )
    reporting.add_argument("-o", "--html", type=Path, metavar="FILE.html")
    reporting.add_argument("--markdown", type=Path, metavar="FILE.md")
    breaking = commands.add_parser(
        "broken", help="build kernels with one bug of overlayfs each, and run the suite on them"
    )
    breaking.set_defaults(command=_broken)
    breaking.add_argument("kernels", nargs="*", metavar="NAME", help="of broken_kernels.toml")
    breaking.add_argument("--list", action="store_true", help="only list them")
    breaking.add_argument("--build-only", action="store_true", help="only build them")
    breaking.add_argument("--driver", default="overlay2", metavar="SPEC")
    breaking.add_argument("--shard", type=shard, default=Shard(1, 1), metavar="I/N")
    breaking.add_argument("--out", type=Path, default=Path("results/broken"), metavar="DIR")
    building = commands.add_parser("build", help="box and kernels, for `vagrant up KERNEL`")
    building.set_defaults(command=_build)
    building.add_argument("kernels", nargs="*", metavar="KERNEL")
    building.add_argument("--install", action="append", default=[], metavar="WHEEL")
    looking = commands.add_parser("doctor", help="list missing prerequisites of this host")
    looking.set_defaults(command=_doctor)
    listing = commands.add_parser("list", help="kernels and cells")
    listing.set_defaults(command=_list)
    cleaning = commands.add_parser("clean", help="remove boxes, kernels and remnants of runs")
    cleaning.set_defaults(command=_clean)
    looking.add_argument(
        "--engine",
        type=EngineName,
        default=EngineName.VAGRANT,
        choices=CHOICES,
        help=_ENGINES,
    )
    for command in (running, joining, breaking, building, looking, cleaning):
        command.add_argument(
            "--cache", type=lambda text: Path(text).absolute(), default=default_cache()
        )
    return parser


def _count(text: str) -> int:
    """Read a number above 0. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    if options.kernel_image:
        return _run_own(options)
    if options.libvirt_uri and options.engine is not EngineName.VAGRANT:
        raise MatrixError("--libvirt-uri is of --engine vagrant", "leave one of them out")
    if options.modules or options.base:
        raise MatrixError("--modules and --base are of --kernel-image", "name a kernel with it")
    engine: EngineName = options.engine
    known = {name: one for name, one in load_kernels().items() if _is_of(one, engine)}
    kernels = _chosen({**known, HOST: None}, options.kernels)
    if engine is EngineName.UML and not options.kernels:
        # The host's own row needs root, which this engine does not.
        del kernels[HOST]
    cells = cells_of(options)
    share = options.shard.of(kernels)
    kernels = {name: one for name, one in kernels.items() if name in share}
    if not kernels:
        print(f"graphdriver matrix: shard {options.shard} has no kernel; the others have them all")
        return 0
    provider = chosen_provider()
    machines = [
        one
        for one in kernels.values()
        if one and (engine is EngineName.UML or one.source(provider) != Source.NOWHERE)
    ]
    hosts = tuple(Host(uri) for uri in dict.fromkeys(options.libvirt_uri)) or (Host(),)
    is_remote = bool(hosts[0].uri)
    if machines and (missing := _missing(options.cache, engine, is_remote=is_remote)):
        print(missing, file=sys.stderr)
        return _UNSUPPORTED
    for host in hosts if machines and is_remote else ():
        host.check()
    lanes = Lanes(hosts, options.lanes, options.processors)
    order = Order(options.driver, options.profile, cells, tuple(options.install), lanes.count)
    out = options.out.absolute()
    # Rows of other kernels are kept, so that an interrupted run can be completed by another one.
    for name in kernels:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    nowhere = f"has no public box in kernels.toml, and what is built here is {LIBVIRT}'s"
    others = [one.name for one in kernels.values() if one and one not in machines]
    _set_aside({name: f"{name} {nowhere}" for name in others}, out)
    progress = Progress([one.name for one in machines] + [HOST] * (HOST in kernels))

    def run() -> int:
        if engine is EngineName.UML:
            return _run_uml(options.cache, machines, order, out, progress)
        return _run_machines(options.cache, machines, order, lanes, out, progress)

    if machines and (code := run()):
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        return code
    progress.remove([one.name for one in machines])
    if HOST in kernels:
        run_host(order, out, progress)
    page = out / "report.html"
    page.write_text(as_page(_rows(out, _names(out)), _main_cell()))
    return _show(_rows(out, list(kernels)), page)


def _each(options: argparse.Namespace) -> int:
    """Return the exit code of pytest: 0 if the driver conforms on each kernel."""
    kernels = list(_chosen(load_kernels(), options.kernels).values())
    provider = chosen_provider()
    for one in kernels:
        if one.source(provider) is not Source.BUILT:
            raise MatrixError(f"{one.name} is not built here", "see `graphdriver matrix list`")
    if missing := _missing(options.cache, EngineName.VAGRANT):
        print(missing, file=sys.stderr)
        return _UNSUPPORTED
    out = options.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    arguments = [f"--graphdriver={options.driver}", f"--graphdriver-profile={options.profile}"]
    arguments += [f"--graphdriver-requirement={one}" for one in options.requirement]
    progress = Progress([one.name for one in kernels])
    with _scratch(options.cache) as state, contextlib.ExitStack() as uses:
        where = Surroundings(options.cache, state, out)
        try:
            guests = (*options.install, XDIST)
            built = build(options.cache, where.payload, kernels, guests, progress, uses)
            if built.failures:
                raise MatrixError("; ".join(built.failures.values()))

            def machines() -> int:
                engine = VagrantEngine(
                    built.images, where, progress, Lanes(each=len(kernels), processors=1)
                )
                return run_each(kernels, engine, arguments, out, progress)

            alone = system_libvirtd_answers()
            return machines() if alone else enclosed(state, machines)
        finally:
            _keep_logs(where, out)


def _run_own(options: argparse.Namespace) -> int:
    """Run a kernel of the user's own; the exit code is one for `git bisect run`."""
    try:
        return _judge_own(options)
    except MatrixError as error:
        print(f"graphdriver matrix: {error}", file=sys.stderr)
        return STOP


def _judge_own(options: argparse.Namespace) -> int:
    """Return the exit code of a run of a kernel of the user's own. Raises MatrixError."""
    if options.kernels:
        raise MatrixError("--kernel-image is the only kernel of its run", "name no other")
    cells = cells_of(options)
    order = Order(options.driver, options.profile, cells, tuple(options.install), 1)
    out = options.out.absolute()
    directory = out / OWN.name
    base = options.base.absolute() if options.base else None
    if base == directory:
        raise MatrixError(f"--base is where the results go: {base}", "name another --out")
    shutil.rmtree(directory, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress([OWN.name])
    with _scratch(options.cache) as state:
        name = engine_of(options.kernel_image)
        if missing := _missing(options.cache, name, is_own=True):
            raise MatrixError(missing)
        engine = prepared(
            options.kernel_image,
            options.modules,
            options.cache,
            state,
            out,
            order.installables,
            progress,
        )
        (row,) = run_kernels([OWN], engine, {}, order, out, progress)
    page = out / "report.html"
    page.write_text(as_page(_rows(out, _names(out)), _main_cell()))
    code = _show([row], page)
    if not row.booted or (code == 2 and not row.failed):
        return CANNOT_TEST
    if row.failed or base is None:
        return BAD if code else GOOD
    comparison = compared(base, row, directory)
    print(f"compared with {base}:")
    for line in comparison.lines:
        print(f"    {line}")
    return BAD if comparison.is_worse else GOOD


def cells_of(options: argparse.Namespace) -> tuple[Cell, ...]:
    """Return the requested cells, with the requested requirements. Raises MatrixError."""
    cells = _chosen(load_cells(), options.cell).values()
    wanted = [one.upper() for one in options.requirement]
    if not wanted:
        return tuple(cells)
    # Cells in which Init must refuse or a broken driver is tested have their own requirements.
    return tuple(
        replace(one, requirements=wanted) if one.expect == CONFORMANT else one for one in cells
    )


def _is_of(kernel: Kernel, engine: EngineName) -> bool:
    """Return whether an engine supports a kernel with some provider."""
    return bool(kernel.uml if engine is EngineName.UML else kernel.package or kernel.box)


def _run_machines(
    cache: Path,
    kernels: Sequence[Kernel],
    order: Order,
    lanes: Lanes,
    out: Path,
    progress: Progress,
) -> int:
    """Run the machines of `kernels` whose box is available; all rows are then below `out`."""
    provider = chosen_provider()
    with _scratch(cache) as state, contextlib.ExitStack() as uses:
        where = Surroundings(cache, state, out)
        built_here = [one for one in kernels if one.source(provider) is Source.BUILT]
        try:
            # In this process, not beside the machines: their own network has no route to the
            # internet.
            public = [one for one in kernels if one not in built_here]
            problems = obtain_boxes(public, where, progress)
            _set_aside(problems, out, progress)
            todo = [one for one in kernels if one.name not in problems]
            if not todo:
                return 0
            built = build(cache, where.payload, built_here, order.installables, progress, uses)

            def machines() -> int:
                available = len(os.sched_getaffinity(0))
                count = len(todo) - len(built.failures)
                engine = VagrantEngine(built.images, where, progress, lanes, count, available)
                run_kernels(todo, engine, built.failures, order, out, progress)
                return 0

            is_remote = bool(lanes.hosts[0].uri)
            alone = provider != LIBVIRT or is_remote or system_libvirtd_answers()
            return machines() if alone else enclosed(state, machines)
        finally:
            _keep_logs(where, out)


def _run_uml(
    cache: Path, kernels: Sequence[Kernel], order: Order, out: Path, progress: Progress
) -> int:
    """Run kernels of user-mode Linux; all rows are then below `out`."""
    with _scratch(cache) as state, contextlib.ExitStack() as uses:
        progress.say("build", f"{len(kernels)} kernels of user-mode Linux")
        images, failures = build_uml_kernels(cache, kernels, progress, uses)
        engine = UmlEngine(images, state, out, host_packages(state / "payload", order.installables))
        run_kernels(kernels, engine, failures, order, out, progress)
    return 0


@contextlib.contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """Yield a directory for a run; SIGTERM ends the run and its children like Ctrl-C.

    Several runs may use a cache at the same time; `clean` does not remove it meanwhile.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with shared(cache, _RUN):
        yield from _scratch_below(cache)


def _scratch_below(cache: Path) -> Iterator[Path]:
    state = Path(tempfile.mkdtemp(prefix="run-", dir=cache))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield state
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(state, ignore_errors=True)


def _set_aside(reasons: Mapping[str, str], out: Path, progress: Progress | None = None) -> None:
    """Write the rows of kernels that are not available, with the reason."""
    for name, reason in reasons.items():
        write_row(out / name, Row(name, problem=reason))
        if progress:
            progress.done(name, f"not run: {reason}")


def _keep_logs(where: Surroundings, out: Path) -> None:
    """Save the logs of the private libvirtd and of qemu."""
    for log in (where.state / "var/log/libvirt/qemu").glob("*.log"):
        shutil.copy(log, out / f"{log.stem.removeprefix(where.prefix)}.qemu.log")


def _report(options: argparse.Namespace) -> int:
    where: dict[str, Path] = {}
    for directory in options.directories:
        names = _names(directory)
        if not names:
            raise MatrixError(f"no results below {directory}", "`graphdriver matrix run` first")
        for name in names:
            if name in where:
                raise MatrixError(
                    f"{name} is in {where[name]} and in {directory}", "name one of them"
                )
            where[name] = directory
    rows = [read_row(where[name] / name) for name in _in_order(where)]
    if options.html:
        options.html.write_text(as_page(rows, _main_cell()))
    if options.markdown:
        options.markdown.write_text(as_markdown(rows, _main_cell()))
    return _show(rows, options.html, options.markdown)


def _names(directory: Path) -> list[str]:
    """Return the kernels that have a row below `directory`, in the order of kernels.toml."""
    found = {path.parent.name for path in directory.glob("*/row.json")}
    return _in_order(found)


def _in_order(names: Collection[str]) -> list[str]:
    """Return kernels in the order of kernels.toml, unknown ones at the end."""
    known = [*load_kernels(), HOST]
    return [*(one for one in known if one in names), *sorted(set(names) - set(known))]


def _rows(directory: Path, names: Sequence[str]) -> list[Row]:
    return [read_row(directory / name) for name in names]


def _main_cell() -> str:
    return next(iter(load_cells()))


def _show(rows: Sequence[Row], *written: Path | None) -> int:
    print()
    for line in terminal.lines(rows):
        print(line)
    for path in filter(None, written):
        print(f"report: {path}")
    return exit_code(rows)


def _build(options: argparse.Namespace) -> int:
    if missing := _missing(options.cache, EngineName.VAGRANT):
        print(missing, file=sys.stderr)
        return _UNSUPPORTED
    kernels = _chosen(load_kernels(), options.kernels).values()
    local = [one for one in kernels if one.source(chosen_provider()) is Source.BUILT]
    payload = options.cache / "payload"
    progress = Progress([one.name for one in local])
    with (
        shared(options.cache, _RUN),
        exclusive(options.cache, "payload"),
        contextlib.ExitStack() as uses,
    ):
        built = build(options.cache, payload, local, options.install, progress, uses)
    return 2 if built.failures else 0


def _broken(options: argparse.Namespace) -> int:
    """Return 0 if every broken kernel is distinguished from the unmodified one."""
    known = load_broken()
    share = options.shard.of(known)
    kernels = [one for name, one in _chosen(known, options.kernels).items() if name in share]
    if options.list:
        for one in kernels:
            print(f"{one.name:<18} {one.requirement:<8} {one.cell:<13} {one.about}")
        return 0
    if missing := _missing(options.cache, EngineName.UML, is_own=True):
        print(missing, file=sys.stderr)
        return _UNSUPPORTED
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress([one.name for one in kernels])
    order = Order(options.driver, "quick", (), lanes=1)
    with _scratch(options.cache) as state, contextlib.ExitStack() as uses:
        workshop = Workshop(options.cache, lambda text: progress.say("build", text), uses)
        images = workshop.build(kernels)
        if options.build_only:
            for name, image in images.items():
                modules = image.modules_base[0]
                print(f"{name:<18} --kernel-image {image.program} --modules {modules}")
            return 0
        engine = UmlEngine(images, state, out, host_packages(state / "payload", ()))
        found = distinguished(kernels, engine, order, out, progress)
    print()
    for finding in found:
        print(finding)
    caught = sum(finding.is_caught for finding in found)
    print(f"{caught} of {len(found)} broken kernels are distinguished from the unmodified one")
    return 0 if caught == len(found) else 1


def _doctor(options: argparse.Namespace) -> int:
    found = list(findings(options.cache, options.engine))
    for finding in found:
        print(f"{'MISSING' if finding.is_missing else 'ok':<8}{finding.text}")
        if finding.is_missing:
            print(f"        {finding.remedy}")
    if command := install_command(found):
        print(f"\nAll packages that are missing:\n    {command}")
    return _UNSUPPORTED if any(one.is_missing for one in found) else 0


def _missing(
    cache: Path, engine: EngineName, *, is_own: bool = False, is_remote: bool = False
) -> str:
    """Return the missing prerequisites of an engine, "" if there are none."""
    found = findings(cache, engine, is_own=is_own, is_remote=is_remote)
    lacks = [one for one in found if one.is_missing]
    if not lacks:
        return ""
    lines = [f"    {one.text}: {one.remedy}" for one in lacks]
    if command := install_command(lacks):
        lines.append(f"all packages that are missing:\n    {command}")
    return "\n".join(["graphdriver matrix: this host lacks", *lines])


def _list(_: argparse.Namespace) -> int:
    provider = chosen_provider()
    for kernel in load_kernels().values():
        is_built = kernel.source(provider) is Source.BUILT
        source = f"{kernel.suite} {kernel.package}" if is_built else kernel.box or "uml only"
        uml = f"uml: {kernel.uml}" if kernel.uml else ""
        print(f"{kernel.name:<6} {source:<55} {uml:<14} {kernel.why}")
    print()
    for cell in load_cells().values():
        print(f"{cell.name:<14} {cell.about}")
    return 0


def _clean(options: argparse.Namespace) -> int:
    if is_in_use(options.cache, _RUN):
        raise MatrixError(f"a run uses {options.cache}", "wait for its end, or end it")
    for removed in clean(options.cache):
        print(f"removed {removed}")
    return 0


def _chosen(known: Mapping[str, _Entry], names: Sequence[str]) -> dict[str, _Entry]:
    """Return the named entries, all without names. Raises MatrixError."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MatrixError(f"unknown: {unknown[0]}", f"there are {', '.join(known)}")
    return {name: known[name] for name in names or known}
