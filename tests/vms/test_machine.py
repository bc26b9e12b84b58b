"""Commands of a machine for ssh and Vagrant, with a shell in place of ssh and without a machine."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from graphdriver_vms import run as run_module
from graphdriver_vms.cells import load_cells
from graphdriver_vms.errors import MachineFailed
from graphdriver_vms.kernels import load_kernels
from graphdriver_vms.machines import machine as machine_module
from graphdriver_vms.machines.machine import Machine
from graphdriver_vms.machines.surroundings import Surroundings
from graphdriver_vms.machines.vagrant import VagrantEngine
from graphdriver_vms.progress import Progress
from graphdriver_vms.run import Order, run_kernels


def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Machine:
    """Return a machine whose ssh runs this script; `ssh.pid` then contains its pid."""
    command = ["sh", "-c", f"echo $$ > {tmp_path}/ssh.pid; {script}", "ssh"]
    monkeypatch.setattr(Machine, "_ssh_command", lambda self: command)
    return Machine("7.3", Surroundings(tmp_path, tmp_path, tmp_path))


def _assert_ssh_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "ssh.pid").read_text()), 0)


def test_results_are_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "results.tar", "w") as archive:
        entry = tarfile.TarInfo("facts.json")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"{}"))

    _machine(tmp_path, monkeypatch, f"cat {tmp_path}/results.tar").collect(tmp_path / "out")

    assert (tmp_path / "out" / "facts.json").read_text() == "{}"
    _assert_ssh_is_gone(tmp_path)


@pytest.mark.parametrize(
    ("script", "limit", "words"),
    [
        ("exec sleep 600", 1, "did not end in 1 s"),
        ("exit 255", 240, "ssh and tar ended with 255"),
    ],
)
def test_failed_collection_leaves_no_ssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, limit: int, words: str
) -> None:
    monkeypatch.setattr(machine_module, "_STEP", limit)

    with pytest.raises(MachineFailed, match=words):
        _machine(tmp_path, monkeypatch, script).collect(tmp_path / "out")

    _assert_ssh_is_gone(tmp_path)


def test_tar_that_fails_ends_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tar").write_text("#!/bin/sh\nread -r line; exit 2\n")
    (tmp_path / "tar").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    machine = _machine(tmp_path, monkeypatch, "echo line; exec sleep 600")

    with pytest.raises(MachineFailed, match="and 2"):
        machine.collect(tmp_path / "out")

    _assert_ssh_is_gone(tmp_path)


def test_machine_that_cannot_be_destroyed_does_not_end_the_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(machine: Machine) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Machine, "up", fail)
    monkeypatch.setattr(Machine, "destroy", fail)
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "libvirt")
    kernels = [one for one in load_kernels().values() if one.is_built_here][:2]

    progress = Progress([one.name for one in kernels])
    engine = VagrantEngine({}, Surroundings(tmp_path, tmp_path, tmp_path), progress)

    rows = run_kernels(
        kernels, engine, {}, Order("overlay2", "quick", (), lanes=1), tmp_path, progress
    )

    assert [row.failed for row in rows] == [True, True]


@pytest.mark.parametrize("is_checkout", [True, False])
def test_cells_of_broken_drivers_say_that_they_take_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_checkout: bool
) -> None:
    drivers = tmp_path if is_checkout else None
    monkeypatch.setattr(run_module, "broken_drivers", lambda: drivers)
    order = Order("overlay2", "quick", tuple(load_cells().values()))

    plan = run_module._plan(order, "works")

    reasons = {cell["name"]: cell.get("not_run", "") for cell in plan["cells"]}
    named = {name for name, reason in reasons.items() if "run the matrix from a checkout" in reason}
    assert (
        set() if is_checkout else {name for name in reasons if name.startswith("broken-")}
    ) == named
