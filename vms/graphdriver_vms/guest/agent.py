"""Runs the cells of a plan, one after the other, each on ground of its own.

What went wrong is recorded and the next cell is run: judging is for the host. Lines that begin
with `@` tell the host where the machine is.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphdriver_vms.guest import suite
from graphdriver_vms.guest.facts import d_type, probe_facts

__all__ = ["NoGround", "run_plan"]

_PARAMETERS = Path("/sys/module/overlay/parameters")
_IMAGE_SIZE = 1 << 30


class NoGround(Exception):
    """This machine has no such file system or parameter; the text says what was tried."""


def run_plan(plan: dict[str, Any], results: Path) -> None:
    """Run all cells; `results` gets `facts.json`, `cells.json`, and CELL.json and .log of each."""
    results.mkdir(parents=True, exist_ok=True)
    subprocess.run(["modprobe", "-a", "overlay", "loop"], capture_output=True, check=False)
    facts = probe_facts()
    (results / "facts.json").write_text(json.dumps(facts, indent=1))
    print("@cell import", flush=True)
    suite.warm_up()
    records: list[dict[str, Any]] = []
    for cell in plan["cells"]:
        print(f"@cell {cell['name']}", flush=True)
        records.append(_run_cell(cell, plan, results, facts))
        # After each, so that a machine that dies later still tells what it did.
        (results / "cells.json").write_text(json.dumps(records, indent=1))
    print("@done", flush=True)


def _run_cell(
    cell: dict[str, Any], plan: dict[str, Any], results: Path, facts: dict[str, str]
) -> dict[str, Any]:
    started = time.monotonic()
    record: dict[str, Any] = {**cell, "exit": None, "said": "", "trouble": "", "left": []}
    try:
        if cell.get("not_run"):
            raise NoGround(cell["not_run"])
        with _ground(cell) as ground, _parameters(cell["parameters"]):
            record["d_type"] = d_type(ground)
            _check(cell, plan, ground, results, record)
            record["left"] = sorted(os.listdir(ground))
    except (NoGround, OSError, subprocess.CalledProcessError) as error:
        record["trouble"] = str(error)
    record["seconds"] = round(time.monotonic() - started, 1)
    _add_facts(results / f"{cell['name']}.json", facts, record)
    return record


def _check(
    cell: dict[str, Any],
    plan: dict[str, Any],
    ground: Path,
    results: Path,
    record: dict[str, Any],
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # The ordinary user writes it, where it may; the results are root's.
        os.chmod(scratch, 0o777)
        report = Path(scratch) / "report.json"
        log = results / f"{cell['name']}.log"
        arguments = [f"--graphdriver={cell['driver']}", f"--graphdriver-home={ground}"]
        arguments += [f"--graphdriver-profile={plan['profile']}", f"--graphdriver-report={report}"]
        arguments += [f"--requirement={one}" for one in cell["requirements"]]
        record["exit"] = suite.run(arguments, scratch, log, cell["user"], cell["personality"])
        errors = [
            line for line in log.read_text("utf-8", "replace").splitlines() if "ERROR" in line
        ]
        record["said"] = errors[-1] if errors else ""
        if report.is_file():
            shutil.copy(report, results / f"{cell['name']}.json")


@contextlib.contextmanager
def _ground(cell: dict[str, Any]) -> Iterator[Path]:
    """Make the file system of a cell and mount it. Raises NoGround when this kernel has none."""
    base = Path(tempfile.mkdtemp(prefix="graphdriver-ground-", dir="/var/tmp"))
    ground = base / "ground"
    ground.mkdir()
    base.chmod(0o755)
    mounted = False
    try:
        if cell["make"]:
            _make_and_mount(cell["make"], cell["mount"], base / "image", ground)
            mounted = True
        # Of its user, as a home directory is; what mkfs put there is in nobody's way.
        with contextlib.suppress(OSError):
            (ground / "lost+found").rmdir()
        shutil.chown(ground, cell["user"], cell["user"])
        yield ground
    finally:
        if mounted:
            subprocess.run(["umount", ground], check=True)
        shutil.rmtree(base, ignore_errors=True)


def _make_and_mount(make: list[str], options: str, image: Path, ground: Path) -> None:
    if make == ["tmpfs"]:
        command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", ground]
    else:
        if not shutil.which(make[0]):
            raise NoGround(f"there is no {make[0]} here")
        with image.open("wb") as file:
            file.truncate(_IMAGE_SIZE)
        _run([*make, image])
        joined = ",".join(filter(None, ("loop", options)))
        command = ["mount", "-o", joined, image, ground]
    _run(command)


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # Without the paths, which are other ones in every run.
        words = " ".join(str(one) for one in command if not str(one).startswith("/"))
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise NoGround(f"{words} failed: {said.rpartition(': ')[2]}")


@contextlib.contextmanager
def _parameters(wanted: dict[str, str]) -> Iterator[None]:
    """Set parameters of the overlay module, and back. Raises NoGround when there is none such."""
    before = {}
    try:
        for name, value in wanted.items():
            file = _PARAMETERS / name
            if not file.is_file():
                raise NoGround(f"this kernel's overlay has no parameter {name}")
            before[file] = file.read_text().strip()
            file.write_text(value)
        yield
    finally:
        for file, value in before.items():
            file.write_text(value)


def _add_facts(report: Path, facts: dict[str, str], record: dict[str, Any]) -> None:
    """Put what was probed into the suite's result file."""
    if not report.is_file():
        return
    result = json.loads(report.read_text())
    result["environment"]["facts"] |= facts | {"d_type": record["d_type"]}
    report.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
