"""The namespaces of a run: entered once, verified, and entered on every kind of host."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = 65534
ENTERS = """
import os, subprocess, sys
from graphdriver_conformance.host import namespaces

before = os.readlink("/proc/self/ns/mnt")
privileges = namespaces.enter()
print(before == os.readlink("/proc/self/ns/mnt"), privileges.uid, flush=True)
if sys.argv[1:] == ["twice"]:
    subprocess.run([sys.executable, __file__], check=True)
"""
# Drops root's privileges after the imports: the user may have no access to the interpreter.
ENTERS_AS_USER = f"""
import ctypes, os
from graphdriver_conformance.host import namespaces

os.setgroups([])
os.setresgid({USER}, {USER}, {USER})
os.setresuid({USER}, {USER}, {USER})
ctypes.CDLL(None).prctl(4, 1)
privileges = namespaces.enter()
maps = [open(f"/proc/self/{{kind}}_map").read().split() for kind in ("uid", "gid")]
print(privileges.limitation, maps, flush=True)
"""
OWN_ID_ONLY = f" [['0', '{USER}', '1'], ['0', '{USER}', '1']]\n"

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become an ordinary user")


@needs_root
@pytest.mark.parametrize(
    "stale",
    ["0,0,", "nonsense", "[]", json.dumps({"ids": ["mnt:[1]", "user:[1]"], "uid": 0}), ""],
)
def test_inherited_variable_of_another_process_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    monkeypatch.setenv("GRAPHDRIVER_NAMESPACES", stale)
    (tmp_path / "enters.py").write_text(ENTERS)

    done = subprocess.run(
        [sys.executable, "enters.py", "twice"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines() == ["False 0", "True 0"], "entered once, and inherited"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Yield a directory that the ordinary user may enter: the one of pytest is not accessible."""
    path = Path(tempfile.mkdtemp(prefix="graphdriver-namespaces-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _enter_as_user(open_path: Path, programs: str, ranges: str, expected: str) -> None:
    """Enter as an ordinary user, with replacements for newuidmap, newgidmap and /etc/subuid."""
    for name in ("newuidmap", "newgidmap"):
        (open_path / name).write_text(f"#!/bin/sh\n{programs}\n")
        (open_path / name).chmod(0o755)
    (open_path / "ranges").write_text(ranges)
    (open_path / "enters.py").write_text(ENTERS_AS_USER)
    script = """
    touch /etc/subuid /etc/subgid
    mount --bind ranges /etc/subuid
    mount --bind ranges /etc/subgid
    exec "$0" enters.py
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, sys.executable],
        cwd=open_path, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PATH": f"{open_path}:{os.environ['PATH']}"},
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, expected), done.stderr


@needs_root
def test_helper_that_dies_leaves_the_own_id(open_path: Path) -> None:
    _enter_as_user(open_path, "kill -9 $PPID", f"{USER}:100000:65536\n", OWN_ID_ONLY)


@needs_root
@pytest.mark.parametrize("ranges", ["", "junk\n", f"{USER}\n", f"{USER}:x:y\n", f"{USER}:1:\n"])
def test_malformed_ranges_are_skipped(open_path: Path, ranges: str) -> None:
    _enter_as_user(open_path, "exit 3", ranges, OWN_ID_ONLY)


@needs_root
def test_range_behind_malformed_lines_is_found(open_path: Path) -> None:
    log = open_path / "log"
    log.touch()
    log.chmod(0o666)
    ranges = f"# a comment\n{USER}:many:more\n{USER}:5:0\n{USER}:100000:65536\n"

    _enter_as_user(
        open_path, f'echo "${{0##*/}} $2 $3 $4 $5 $6 $7" >> {log}; exit 3', ranges, OWN_ID_ONLY
    )

    assert log.read_text().splitlines() == [f"newuidmap 0 {USER} 1 1 100000 65536"]
