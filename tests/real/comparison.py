"""The broken drivers that Docker's own graphtest detects: docs/comparison.md.

    python -m tests.real.comparison             run it on the drivers that are not in the record yet
    python -m tests.real.comparison NAME ...    run it on these drivers again
    python -m tests.real.comparison --page      write the page from the record, run nothing

graphtest, its plugin client and its proxy are Docker 20.10's, from Debian's source package,
unchanged (tests/graphtest). Each broken driver is served on a plugin socket.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from graphdriver_conformance.host import namespaces
from graphdriver_conformance.host.environment import mount_tmpfs, umount_below

from .suites import SUITES, Suite

_ROOT = Path(__file__).parents[2]
_RECORD = _ROOT / "docs" / "comparison.json"
_PAGE = _RECORD.with_suffix(".md")
_TESTS = _ROOT / "tests" / "graphtest" / "graphtest_test.go"
_SKIPPED_UPSTREAM = {"TestChanges"}
_PATIENCE = 600
sys.path.insert(0, str(_ROOT / "tests"))  # the package of broken drivers is in that directory

_HEAD = """# Compared with Docker's graphtest

`daemon/graphdriver/graphtest` is Docker's test of storage drivers. Here it is run over the broken
drivers of [mutants.md](mutants.md) through the plugin socket, with Docker 20.10's own plugin client
and proxy, all unchanged: CreateEmpty, CreateBase, CreateSnap, DeepLayerRead of 128 layers,
DiffApply of 10 files, and Changes, which Docker's test of its overlay2 skips. SetQuota is left out:
through a socket it can neither pass nor be skipped on a kernel without project quotas. A driver is
caught when a check fails, when it does not start or ends, or when nothing ends within ten minutes.
Broken drivers that are newer than the run, and those that need project quotas, are not counted.

Written by `python -m tests.real.comparison`; about ten seconds for each driver on a busy machine.

"""


def main() -> int:
    """Run graphtest; return 0."""
    parser = argparse.ArgumentParser("python -m tests.real.comparison")
    parser.add_argument("name", nargs="*", help="broken drivers, variants, overlay2 or vfs")
    parser.add_argument("--page", action="store_true", help="write the page again, run nothing")
    parser.add_argument("-n", type=int, default=2, dest="processes", help="default: 2")
    options = parser.parse_args()
    record = _recorded()
    commands = dict(_commands())
    if unknown := set(options.name) - set(commands):
        parser.error(f"no such driver: {', '.join(sorted(unknown))}")
    names = options.name or [name for name in commands if name not in record]
    if names and not options.page:
        program = Suite(SUITES[0]).docker(_TESTS)
        namespaces.enter()
        with tempfile.TemporaryDirectory(prefix="graphtest-") as scratch:
            mount_tmpfs(Path(scratch))
            with ThreadPoolExecutor(options.processes) as pool:
                runs = {
                    pool.submit(_run, program, commands[name], Path(scratch)): name
                    for name in names
                }
                for run in as_completed(runs):
                    name, failed = runs[run], run.result()
                    print(f"{name}: {', '.join(failed) or 'nothing fails'}", flush=True)
                    record[name] = failed
                    _RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
            umount_below(Path(scratch).parent)
    _PAGE.write_text(page_of(record))
    return 0


def page_of(record: Mapping[str, list[str]]) -> str:
    """Return the page, without drivers that no longer exist."""
    return _document({name: record[name] for name, _ in _commands() if name in record})


def _document(record: Mapping[str, list[str]]) -> str:
    """Return the page."""
    from graphdriver_mutants import MUTANTS, kills

    broken = {name: failed for name, failed in record.items() if name in MUTANTS}
    correct = {name: failed for name, failed in record.items() if name not in MUTANTS}
    upstream = sum(1 for failed in broken.values() if set(failed) - _SKIPPED_UPSTREAM)
    everything = sum(1 for failed in broken.values() if failed)
    killed = kills.read()
    ours = sum(1 for name in broken if killed.get(name) or MUTANTS[name].breaks)
    measured = sum(1 for name in broken if killed.get(name))
    rejected = ", ".join(name for name, failed in sorted(correct.items()) if failed) or "none"
    rows = [
        "| | broken drivers caught |",
        "|---|---|",
        f"| graphtest, as Docker runs it for overlay2 | {upstream} of {len(broken)} |",
        f"| graphtest, with all its checks | {everything} of {len(broken)} |",
        f"| this suite, quick profile ([kill-table.md](kill-table.md)) | {ours} of {len(broken)} |",
        "",
        f"For this suite {measured} are counted by a recorded run; the others by the requirements",
        "that they declare, each of which CI checks to be violated.",
        "",
        f"Correct drivers (overlay2, vfs, {len(correct) - 2} legal variants) that graphtest "
        f"rejects: {rejected}.",
    ]
    rows += ["", "## Caught by graphtest", "", "| broken driver | checks that fail |", "|---|---|"]
    rows += [
        f"| {name} | {', '.join(failed)} |" for name, failed in sorted(broken.items()) if failed
    ]
    return _HEAD + "\n".join(rows) + "\n"


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each driver and the command that serves it."""
    from graphdriver_mutants import MUTANTS
    from graphdriver_mutants.variants import VARIANTS

    specs = {name: name for name in ("overlay2", "vfs")}
    specs |= {name: f"graphdriver_mutants.variants:{name}" for name in VARIANTS}
    for name, one in MUTANTS.items():
        if one.needs != "project_quota":  # which no test machine has had so far
            specs[name] = one.spec()
    for name, spec in specs.items():
        scheme, _, command = spec.partition(":")
        if scheme == "plugin+exec":
            words = shlex.split(command)
            yield name, [sys.executable if words[0] == "python" else words[0], *words[1:]]
        else:
            yield name, [sys.executable, "-m", "graphdriver.plugin", spec]


def _run(program: Path, command: list[str], scratch: Path) -> list[str]:
    """Serve a driver, run graphtest on it, and return the failed checks."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    socket = place / "s"
    environment = {
        **os.environ,
        "GRAPHDRIVER_SOCKET": str(socket),
        "PYTHONPATH": str(_ROOT / "tests"),
        "TMPDIR": str(place),
    }
    if "graphdriver.plugin" in command:
        command = [*command, "--socket", str(socket)]
    try:
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        ) as server:
            try:
                while not socket.exists():
                    if server.poll() is not None:
                        return ["does not start"]
                    time.sleep(0.05)
                return _failed(program, environment)
            finally:
                with contextlib.suppress(ProcessLookupError):  # a check may have killed it
                    os.killpg(server.pid, signal.SIGKILL)
    finally:
        umount_below(place)
        shutil.rmtree(place, ignore_errors=True)


def _failed(program: Path, environment: dict[str, str]) -> list[str]:
    try:
        done = subprocess.run(
            [program, "-test.v"],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ["does not end"]
    failed = re.findall(r"^--- FAIL: (\w+)", done.stdout, re.MULTILINE)
    return failed or (["crash"] if done.returncode else [])


def _recorded() -> dict[str, list[str]]:
    if not _RECORD.exists():
        return {}
    recorded: dict[str, list[str]] = json.loads(_RECORD.read_text())
    return recorded


if __name__ == "__main__":
    sys.exit(main())
