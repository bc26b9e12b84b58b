"""A kernel that is booted directly, with a shell script in place of the kernel."""

import os
import sys
import threading
from pathlib import Path

import pytest

import graphdriver_vms
from graphdriver_vms.errors import MachineFailed, NotBooted
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.machines.direct import DirectBoot
from graphdriver_vms.machines.engine import Task
from graphdriver_vms.machines.uml import needed_paths
from graphdriver_vms.results.judge import Row, exit_code, read_row, write_row

KERNEL = Kernel("6.1", "works", "why", uml="bookworm")


def _boot(tmp_path: Path, script: str, lines: list[str], boot_limit: float = 60) -> str:
    boot = DirectBoot(
        ["sh", "-c", script], dict(os.environ), tmp_path / "console", tmp_path, boot_limit
    )
    task = Task(KERNEL, "{}", tmp_path, lines.append, print)
    return boot.run(task, threading.Event())


def test_lines_of_the_guest_report_its_progress(tmp_path: Path) -> None:
    lines: list[str] = []

    release = _boot(tmp_path, "echo '@kernel 6.1.9'; echo '@cell ext4'; echo '@end 0'", lines)

    assert (release, lines) == ("6.1.9", ["@cell ext4"])
    assert "@kernel 6.1.9" in (tmp_path / "console").read_text()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Kernel panic - not syncing'; exit 1", "did not boot: the kernel ended"),
        ("exec sleep 600", "no user space after 1 s"),
    ],
)
def test_kernel_that_does_not_boot_is_no_kernel_that_fails(
    tmp_path: Path, script: str, words: str
) -> None:
    with pytest.raises(NotBooted, match=words):
        _boot(tmp_path, script, [], boot_limit=1)


@pytest.mark.parametrize("end", ["echo '@end 3'", "echo 'Kernel panic'"])
def test_kernel_that_dies_later_has_booted(tmp_path: Path, end: str) -> None:
    with pytest.raises(MachineFailed) as caught:
        _boot(tmp_path, f"echo '@kernel 6.1.9'; {end}", [])

    assert not isinstance(caught.value, NotBooted)


def test_program_that_is_not_there_did_not_boot(tmp_path: Path) -> None:
    boot = DirectBoot([str(tmp_path / "nope")], {}, tmp_path / "console", tmp_path)

    with pytest.raises(NotBooted, match="No such file"):
        boot.run(Task(KERNEL, "{}", tmp_path, print, print), threading.Event())


def test_row_of_a_kernel_that_did_not_boot_is_kept_so(tmp_path: Path) -> None:
    write_row(tmp_path, Row("6.1", problem="panic", failed=True, booted=False))

    row = read_row(tmp_path)

    assert not row.booted
    assert exit_code([row]) == 2


def test_guest_reads_the_directories_that_this_python_needs(tmp_path: Path) -> None:
    paths = needed_paths((tmp_path,))

    assert [one for one in paths if one.is_relative_to("/usr")] == []
    wanted = [Path(sys.prefix).resolve(), tmp_path, Path(graphdriver_vms.__file__).resolve()]
    for one in wanted:
        assert any(one.is_relative_to(path) for path in (*paths, Path("/usr")))
    assert [a for a in paths for b in paths if a != b and a.is_relative_to(b)] == []
