"""Runs the cells of a plan, each on its own file system, as many at a time as there are processors.

Errors are recorded and the next cell is run: the host evaluates them. Lines that begin with `@`
report the progress to the host.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from graphdriver_vms.guest import suite
from graphdriver_vms.guest.facts import d_type, probe_facts
from graphdriver_vms.guest.filesystem import CannotPrepare, mounted_filesystem, parameters_set
from graphdriver_vms.guest.side_by_side import run_side_by_side

__all__ = ["run_plan"]


def run_plan(plan: dict[str, Any], results: Path) -> None:
    """Run all cells; `results` gets `facts.json`, `cells.json`, and CELL.json and .log of each."""
    results.mkdir(parents=True, exist_ok=True)
    subprocess.run(["modprobe", "-a", "overlay", "loop"], capture_output=True, check=False)
    facts = probe_facts()
    (results / "facts.json").write_text(json.dumps(facts, indent=1))
    print("@cell import", flush=True)
    suite.warm_up()
    records: dict[str, dict[str, Any]] = {}

    def started(cell: dict[str, Any]) -> None:
        print(f"@cell {cell['name']}", flush=True)

    def ended(cell: dict[str, Any], record: dict[str, Any]) -> None:
        records[cell["name"]] = record
        finished = [records[one["name"]] for one in plan["cells"] if one["name"] in records]
        # After each, so that the results are available even if the machine dies later.
        (results / "cells.json").write_text(json.dumps(finished, indent=1))

    run_side_by_side(
        plan["cells"],
        len(os.sched_getaffinity(0)),
        lambda cell: _run_cell(cell, plan, results, facts),
        started,
        ended,
    )
    print("@done", flush=True)


def _run_cell(
    cell: dict[str, Any], plan: dict[str, Any], results: Path, facts: dict[str, str]
) -> dict[str, Any]:
    started = time.monotonic()
    record: dict[str, Any] = {**cell, "exit": None, "problem": "", "left": []}
    try:
        if cell.get("not_run"):
            raise CannotPrepare(cell["not_run"])
        with mounted_filesystem(cell) as filesystem, parameters_set(cell["parameters"]):
            record["d_type"] = d_type(filesystem)
            _check(cell, plan, filesystem, results, record)
            record["left"] = sorted(os.listdir(filesystem))
    except (CannotPrepare, OSError, subprocess.CalledProcessError) as error:
        # After the suite, it is no reason for a cell that was not run: a mount may be left.
        record["problem" if record["exit"] is None else "failure"] = str(error)
    record["seconds"] = round(time.monotonic() - started, 1)
    _add_facts(results / f"{cell['name']}.json", facts, record)
    return record


def _check(
    cell: dict[str, Any],
    plan: dict[str, Any],
    filesystem: Path,
    results: Path,
    record: dict[str, Any],
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # The ordinary user writes it in a directory of its own; the results directory is root's.
        os.chmod(scratch, 0o777)
        report = Path(scratch) / "report.json"
        log = results / f"{cell['name']}.log"
        arguments = [f"--graphdriver={cell['driver']}", f"--graphdriver-home={filesystem}"]
        arguments += [f"--graphdriver-profile={plan['profile']}", f"--graphdriver-report={report}"]
        arguments += [f"--graphdriver-requirement={one}" for one in cell["requirements"]]
        record["exit"] = suite.run(arguments, scratch, log, cell["user"], cell["personality"])
        if report.is_file():
            shutil.copy(report, results / f"{cell['name']}.json")


def _add_facts(report: Path, facts: dict[str, str], record: dict[str, Any]) -> None:
    """Add the results of the probes to the suite's result file."""
    if not report.is_file():
        return
    result = json.loads(report.read_text())
    result["environment"]["facts"] |= facts | {"d_type": record["d_type"]}
    report.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
