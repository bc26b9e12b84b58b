"""libvirt on other hosts, and the number of concurrent machines; virsh is replaced by a script."""

import os
import threading
from pathlib import Path

import pytest

from graphdriver_vms.cli import main
from graphdriver_vms.each_run import command_of
from graphdriver_vms.errors import MachineFailed, MatrixError
from graphdriver_vms.images.kernel_image import KernelImage
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.machines.engine import Task
from graphdriver_vms.machines.hosts import Host, on_host
from graphdriver_vms.machines.machine import Machine
from graphdriver_vms.machines.surroundings import Surroundings
from graphdriver_vms.machines.vagrant import Lanes, VagrantEngine
from graphdriver_vms.progress import Progress

ONE, TWO = "qemu+ssh://root@one/system", "qemu+ssh://root@two/system"
KERNEL = Kernel("6.1", "works", "why", suite="bookworm", package="linux-image-6.1*")
IMAGE = KernelImage("6.1.9", "linux-image-6.1.9", "1", "")
# Each volume is a file in the pool; `capabilities` are those of a host with KVM.
VIRSH = """#!/bin/sh
echo "$@" >>{place}/calls
shift 3
case $1 in
capabilities) echo "<domain type='kvm'/>" ;;
vol-create-as) : >{place}/pool/$3 ;;
vol-upload) cp $5 {place}/pool/$4 ;;
vol-path) echo {place}/pool/$4 ;;
vol-delete) rm {place}/pool/$4 ;;
list) [ ! -e {place}/down ] || {{ echo "error: no route to host" >&2; exit 1; }} ;;
esac
"""


@pytest.fixture
def virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virsh(1) whose pool is a directory; return that directory."""
    program = tmp_path / "bin/virsh"
    program.parent.mkdir()
    program.write_text(VIRSH.format(place=tmp_path))
    program.chmod(0o755)
    (tmp_path / "pool").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "pool"


def _where(tmp_path: Path) -> Surroundings:
    kernel = tmp_path / "kernels/6.1"
    kernel.mkdir(parents=True)
    (kernel / "vmlinuz").write_text("kernel")
    (kernel / "initrd").write_text("initrd")
    return Surroundings(tmp_path, tmp_path / "run-x1", tmp_path)


def test_kernel_and_initrd_are_volumes_of_the_other_host(
    tmp_path: Path, virsh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHDRIVER_MATRIX_KVM", raising=False)
    with on_host(Host(ONE), KERNEL, IMAGE, _where(tmp_path)) as there:
        variables = there.environment()
        assert Path(variables["GRAPHDRIVER_MATRIX_VMLINUZ"]).read_text() == "kernel"
        assert Path(variables["GRAPHDRIVER_MATRIX_INITRD"]).read_text() == "initrd"
        assert (
            variables["GRAPHDRIVER_MATRIX_URI"],
            variables["GRAPHDRIVER_MATRIX_KVM"],
        ) == (ONE, "1")
        assert "GRAPHDRIVER_MATRIX_CONSOLES" not in variables

    assert os.listdir(virsh) == []
    calls = (tmp_path / "calls").read_text().splitlines()
    assert all(call.startswith(f"-q -c {ONE} ") for call in calls)


def test_volumes_are_removed_after_a_failure(tmp_path: Path, virsh: Path) -> None:
    with (
        pytest.raises(MachineFailed, match="no boot"),
        on_host(Host(ONE), KERNEL, IMAGE, _where(tmp_path)),
    ):
        raise MachineFailed("no boot")

    assert os.listdir(virsh) == []


def test_this_host_needs_no_upload(tmp_path: Path) -> None:
    where = _where(tmp_path)

    with on_host(Host(), KERNEL, IMAGE, where) as there:
        assert there is where
        assert "GRAPHDRIVER_MATRIX_URI" not in there.environment()


def test_a_host_that_does_not_answer_is_named(tmp_path: Path, virsh: Path) -> None:
    (tmp_path / "down").touch()

    with pytest.raises(MatrixError, match=r"one/system: virsh list failed: error: no route"):
        Host(ONE).check()


def test_machines_alternate_between_hosts(
    tmp_path: Path, virsh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    monkeypatch.setattr(Machine, "up", lambda self: used.append(self._where.uri))
    monkeypatch.setattr(Machine, "kernel", lambda _: IMAGE.release)
    monkeypatch.setattr(Machine, "destroy", lambda _: None)
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "libvirt")
    engine = VagrantEngine(
        {"6.1": IMAGE},
        _where(tmp_path),
        Progress([]),
        Lanes((Host(ONE), Host(TWO)), each=2),
    )
    together = threading.Barrier(4)

    def boot() -> None:
        with engine.booted(Task(KERNEL, "", tmp_path, print, print)):
            # All machines run at the same time: each has its own lane.
            together.wait(60)

    threads = [threading.Thread(target=boot) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(used) == [ONE, ONE, TWO, TWO]
    assert os.listdir(virsh) == []


@pytest.mark.parametrize(
    ("lanes", "machines", "available", "expected"),
    [
        (Lanes(), 5, 2, [1, 1, 1, 1, 2]),
        (Lanes(), 1, 2, [2]),
        (Lanes(), 2, 8, [2, 2]),
        (Lanes(each=3), 5, 4, [1, 1, 1, 2, 2]),
        (Lanes(processors=3), 2, 1, [3, 3]),
        (Lanes((Host(ONE), Host(TWO))), 2, 8, [1, 1]),
    ],
)
def test_the_processors_of_this_host_are_distributed(
    lanes: Lanes, machines: int, available: int, expected: list[int]
) -> None:
    found = [lanes.processors_of(place, machines, available) for place in range(machines)]

    assert found == expected


def test_other_hosts_are_for_virtual_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--engine=uml", f"--libvirt-uri={ONE}"]) == 2
    assert "--libvirt-uri is of --engine vagrant" in capsys.readouterr().err


def test_machine_is_an_xdist_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host name, which is part of the name of the result file, is that of the kernel."""
    execnet = pytest.importorskip("execnet")
    monkeypatch.setattr(Machine, "_ssh", lambda *_: "")
    place = Machine("7.3", Surroundings(tmp_path, tmp_path, tmp_path)).join()

    (option,) = (
        one.removeprefix("--tx=")
        for one in command_of([place], ["--graphdriver=vfs"], tmp_path)
        if one.startswith("--tx=")
    )
    spec = execnet.XSpec(option)
    assert (spec.ssh, spec.ssh_config, spec.chdir) == ("7.3", f"{tmp_path}/7.3.ssh", "/var/tmp")
    assert spec.python.startswith("sudo env PYTHONPATH=/opt/graphdriver/site-packages")
