"""Run the comparisons, print the table of aims, write the result file and its page."""

import argparse
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks import page
from benchmarks.axes import layers, mounts
from benchmarks.comparisons import changes, cycle, diff_and_apply, grown, sources, synced
from benchmarks.filesystem import enter_private_namespace, ext4_on_tmpfs
from benchmarks.memory import peaks
from benchmarks.own_suite import suite
from benchmarks.real import root_filesystem
from benchmarks.remote import through_socket
from benchmarks.result import Result, read, write
from benchmarks.workspace import FULL, SMALL, Record, Sizes, Workspace

_GROUPS: dict[str, Callable[[Workspace, Record], None]] = {
    "cycle": cycle,
    "files": diff_and_apply,
    "sources": sources,
    "synced": synced,
    "grown": grown,
    "changes": changes,
    "real": root_filesystem,
    "socket": through_socket,
    "layers": layers,
    "mounts": mounts,
    "memory": peaks,
    "suite": suite,
}


def main() -> int:
    """Return 0; a missed aim is a result, not a failure."""
    options = _parse()
    if options.render:
        page.update(read(options.render), options.page)
        return 0
    enter_private_namespace()
    sizes = SMALL if options.small else FULL
    record = Record(options.rounds, show=lambda row: print(page.terminal(row), flush=True))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graphdriver-benchmarks-") as base:
        ext4, spare = ext4_on_tmpfs(Path(base), sizes.image, sizes.room)
        try:
            _measure_all(options.only or list(_GROUPS), ext4, spare, sizes, record)
        finally:
            # The image is in use until the loop mount is removed, and the directory until both are.
            for mount in (ext4, spare):
                subprocess.run(["umount", "--recursive", "--lazy", str(mount)], check=False)
    result = Result(
        _setup(), options.rounds, record.watch.evenness(), record.rows, record.axes, record.memory
    )
    print(f"\n{page.markdown(result)}\n{time.monotonic() - started:.0f} s")
    if options.json:
        write(result, options.json)
    if options.page:
        page.update(result, options.page)
    return 0


def _measure_all(names: list[str], ext4: Path, spare: Path, sizes: Sizes, record: Record) -> None:
    for name in names:
        record.watch.look()
        with Workspace.fresh(ext4, spare, sizes) as workspace:
            _GROUPS[name](workspace, record)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="Measure the reference drivers."
    )
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds (default 9)")
    parser.add_argument(
        *("--only", "-o"), action="append", choices=_GROUPS, help="a group; may be repeated"
    )
    parser.add_argument("--small", action="store_true", help="little work, to try the comparisons")
    parser.add_argument("--json", type=Path, help="write all times here")
    parser.add_argument("--page", type=Path, help="replace table and charts of this page")
    parser.add_argument(
        "--render", type=Path, metavar="JSON", help="measure nothing; make the page of this file"
    )
    options = parser.parse_args()
    if options.render and not options.page:
        parser.error("--render needs --page")
    return options


def _setup() -> dict[str, str]:
    """Return the versions of the candidates, as far as this machine's packages provide them."""
    found = {"Linux": platform.release(), "Python": platform.python_version()}
    for name, package in (
        ("Docker", "golang-github-docker-docker-dev"),
        ("containerd", "golang-github-containerd-containerd-dev"),
        ("containers-storage", "containers-storage"),
        ("GNU tar", "tar"),
    ):
        with suppress(OSError, subprocess.CalledProcessError):
            command = ["dpkg-query", "--show", "--showformat=${Version}", package]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = done.stdout
    return found


if __name__ == "__main__":
    raise SystemExit(main())
