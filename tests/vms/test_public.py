"""Public boxes: the providers that use them, their kernels, and errors for unavailable ones."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from graphdriver_vms.doctor import findings
from graphdriver_vms.errors import MachineFailed, MatrixError
from graphdriver_vms.images.kernel_image import KernelImage
from graphdriver_vms.kernels import Kernel, Source
from graphdriver_vms.machines.provider import LIBVIRT, VARIABLE, VIRTUALBOX, chosen_provider
from graphdriver_vms.machines.public import obtain_boxes
from graphdriver_vms.machines.surroundings import Surroundings
from graphdriver_vms.machines.vagrant import check_release
from graphdriver_vms.progress import Progress

ENTER = Path(__file__).parents[2] / "vms/graphdriver_vms/guest/guest-enter"
PUBLIC = Kernel("4.19", "works", "why", box="acme/debian10")
BOTH = Kernel("5.10", "works", "why", "bullseye", "linux-image-5.10*", "acme/debian11")
BUILT = Kernel("7.3", "works", "why", "sid", "linux-image-7.3*")


@pytest.mark.parametrize(
    ("kernel", "provider", "source"),
    [
        (PUBLIC, LIBVIRT, Source.PUBLIC),
        (BOTH, LIBVIRT, Source.BUILT),
        (BUILT, LIBVIRT, Source.BUILT),
        (PUBLIC, VIRTUALBOX, Source.PUBLIC),
        (BOTH, VIRTUALBOX, Source.PUBLIC),
        (BUILT, VIRTUALBOX, Source.NOWHERE),
    ],
)
def test_where_a_kernel_comes_from(kernel: Kernel, provider: str, source: Source) -> None:
    assert source is kernel.source(provider)


def test_a_provider_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "hyperv")

    with pytest.raises(MatrixError, match="VAGRANT_DEFAULT_PROVIDER=hyperv: the matrix knows"):
        chosen_provider()


@pytest.mark.parametrize(
    ("name", "release", "fits"),
    [
        ("4.19", "4.19.0-27-amd64", True),
        ("4.4", "4.4.0-210-generic", True),
        ("6.18", "6.18", True),
        ("4.1", "4.19.0-27-amd64", False),
        ("4.19", "5.10.0-46-cloud-amd64", False),
        ("5.10-acme", "5.10.0-46-cloud-amd64", True),
        ("5.10.1", "5.10.12", False),
    ],
)
def test_a_public_box_must_have_a_kernel_of_the_series(name: str, release: str, fits: bool) -> None:
    kernel = Kernel(name, "works", "why", box="acme/box")

    if fits:
        check_release(kernel, None, release)
    else:
        with pytest.raises(MachineFailed, match=rf"asked for a kernel [\d.]+, but {release} "):
            check_release(kernel, None, release)


def test_built_kernel_must_report_its_own_release() -> None:
    image = KernelImage("5.10.0-46-cloud-amd64", "package", "version", "recipe")

    check_release(BOTH, image, image.release)
    with pytest.raises(MachineFailed, match=r"asked for 5\.10\.0-46-.*, but 5\.10\.0-45-"):
        check_release(BOTH, image, "5.10.0-45-cloud-amd64")


@pytest.mark.skipif(
    not shutil.which("vagrant") or not find_spec("vagrant"),
    reason="needs vagrant and python-vagrant",
)
def test_unavailable_box_is_reported_with_vagrants_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A port without a listener, equivalent to a host without internet access.
    monkeypatch.setenv("VAGRANT_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("http_proxy", raising=False)
    state, logs = tmp_path / "state", tmp_path / "logs"
    logs.mkdir()
    again = Kernel("4.19-again", "works", "why", box=PUBLIC.box)

    problems = obtain_boxes(
        [PUBLIC, again], Surroundings(tmp_path, state, logs), Progress(["4.19", "4.19-again"])
    )

    assert list(problems) == ["4.19", "4.19-again"]
    assert "the public box acme/debian10 cannot be had: " in problems["4.19"]
    assert "127.0.0.1" in problems["4.19"]
    assert capsys.readouterr().out.count("public box") == 1, "asked for once"


def test_doctor_lists_prerequisites_of_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for provider in (LIBVIRT, VIRTUALBOX):
        monkeypatch.setenv(VARIABLE, provider)
        found[provider] = {one.text for one in findings(tmp_path)}

    libvirts = {"virsh", "qemu-img", "cpio", "vagrant-libvirt"}
    assert tuple(libvirts & found[one] for one in (LIBVIRT, VIRTUALBOX)) == (libvirts, set())
    assert "VBoxManage" in found[VIRTUALBOX] - found[LIBVIRT]
    assert "mmdebstrap" in found[VIRTUALBOX] & found[LIBVIRT]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts")
def test_guest_part_sees_our_root_only_and_can_create_user_namespaces(tmp_path: Path) -> None:
    """chroot would forbid user namespaces, so the script pivots; here into this host's programs."""
    root = tmp_path / "root"
    for name in ("usr", "proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    look = 'unshare --user true && ls / && exit "$1"'
    program = f"mount --bind /usr {root}/usr && exec sh {ENTER} sh -c '{look}' look 7"
    before = Path("/proc/self/mountinfo").read_text()

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GRAPHDRIVER_HOME": str(tmp_path)},
    )

    assert (done.returncode, done.stderr) == (7, "")
    expected = {"bin", "dev", "lib", "lib64", "mnt", "proc", "run", "sbin", "sys", "tmp", "usr"}
    assert set(done.stdout.split()) == expected
    assert Path("/proc/self/mountinfo").read_text() == before
