"""Claims of drivers are verified in both directions; and the progress display of the run."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

MINE = """
from graphdriver.vfs import Driver

class Modest(Driver):
    capabilities = frozenset()

class Rightly(Modest):
    def apply_diff(self, id, parent, diff):
        size = super().apply_diff(id, parent, diff)
        root = self.get(id)
        for path in root.rglob("*"):
            import os
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name)
        return size

class Boasting(Rightly):
    capabilities = frozenset({"user_xattrs"})
"""


def _row(pytester: pytest.Pytester, name: str) -> tuple[dict[str, str], pytest.RunResult]:
    pytester.makepyfile(mine=MINE)
    done = pytester.runpytest_subprocess(
        f"--driver=mine:{name}", "--requirement=ARC-013", "--requirement=LIF-001",
        "--graphdriver-report=r.json", "-p", "no:xdist", "-p", "no:cacheprovider",
    )  # fmt: skip
    rows = json.loads((pytester.path / "r.json").read_text())["requirements"]
    return next(row for row in rows if row["id"] == "ARC-013"), done


def test_features_that_work_but_are_not_claimed_are_listed(pytester: pytest.Pytester) -> None:
    row, done = _row(pytester, "Modest")

    assert (
        row["outcome"],
        row["detail"],
    ) == ("not-claimed", "works although not claimed: user_xattrs")
    done.stdout.fnmatch_lines(["works although not claimed: user_xattrs (1 requirement)"])
    assert done.ret == 0


def test_missing_feature_that_is_not_claimed_is_no_violation(pytester: pytest.Pytester) -> None:
    row, done = _row(pytester, "Rightly")

    assert (
        row["outcome"],
        row["detail"],
    ) == ("not-claimed", "the driver does not claim user_xattrs")
    done.stdout.no_fnmatch_line("works although*")
    assert done.ret == 0


def test_claimed_feature_that_is_broken_is_a_violation(pytester: pytest.Pytester) -> None:
    row, done = _row(pytester, "Boasting")

    assert row["outcome"] == "violated"
    assert done.ret == 1


def test_terminal_shows_how_many_tests_are_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--driver=vfs", "--requirement=LIF-00"]
    command += ["-p", "no:xdist", "-p", "no:cacheprovider"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=tmp_path) as process:
        os.close(theirs)
        output = b""
        while part := _read(ours):
            output += part
    os.close(ours)

    assert process.returncode == 0
    assert b"LIF-001  " in output
    assert b" 0 tests left, " in output
    assert b"CONFORMANT" in output or b"INCONCLUSIVE" in output


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # EIO: all writers are closed
        return b""
