"""What this host lacks for the matrix, each with what to do."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from graphdriver_vms.images.apt import KEYRING
from graphdriver_vms.machines.enclosure import system_libvirtd_answers
from graphdriver_vms.machines.provider import VIRTUALBOX, chosen_provider

__all__ = ["Finding", "findings", "has_kvm"]

_GIB = 1 << 30
_DISK, _MEMORY = 6 * _GIB, 3 * _GIB

# Program (or file), and the Debian package that has it: for the guests' user space, and
_NEEDED = {
    "vagrant": "vagrant",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "apt-get": "apt",
    str(KEYRING): "debian-archive-keyring",
}
# for kernels that are built here, and their machines.
_LIBVIRT = {
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon-system",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "dnsmasq": "dnsmasq-base",
    "iptables": "iptables",
    "mke2fs": "e2fsprogs",
    "rsync": "rsync",
    "cpio": "cpio",
    "depmod": "kmod",
    "zstd": "zstd",
    "ip": "iproute2",
    "dpkg-deb": "dpkg",
    "/bin/busybox": "busybox-static",
    "/usr/share/seabios/bios-256k.bin": "seabios",
}
_PLUGIN = "/usr/share/rubygems-integration/all/specifications/vagrant-libvirt-*.gemspec"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something looked at; `remedy` is "" when it is all right."""

    text: str
    remedy: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether the matrix cannot run because of it."""
        return bool(self.remedy)


def has_kvm() -> bool:
    """Say whether KVM carries stock kernels here: a /dev/kvm without vmx or svm does not."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return os.access("/dev/kvm", os.W_OK) and (" vmx " in flags or " svm " in flags)


def findings(cache: Path) -> Iterator[Finding]:
    """Look at the host."""
    machine = f"{platform.system()} on {platform.machine()}"
    right = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    yield Finding(machine, "" if right else "local machines take Linux on x86_64")
    yield Finding("root", "" if os.geteuid() == 0 else "run as root: boxes, mounts, a network")
    yield from _programs(_NEEDED)
    yield Finding(
        "python-vagrant",
        "" if find_spec("vagrant") else "pip install python-vagrant",
    )
    yield Finding("pip", "" if find_spec("pip") else "python3 -m ensurepip")
    yield from _room(cache)
    yield from _virtualbox() if chosen_provider() == VIRTUALBOX else _libvirt()


def _libvirt() -> Iterator[Finding]:
    yield from _programs(_LIBVIRT)
    plugin = list(Path("/").glob(_PLUGIN.lstrip("/")))
    yield Finding("vagrant-libvirt", "" if plugin else "apt-get install vagrant-libvirt")
    whose = "the host's" if system_libvirtd_answers() else "one for each run"
    yield Finding(f"libvirtd: {whose}")
    yield Finding(f"acceleration: {'KVM' if has_kvm() else 'none, emulation (TCG)'}")
    yield Finding(
        "kernels: built here; from public boxes, which take internet, where Debian has none"
    )


def _virtualbox() -> Iterator[Finding]:
    remedy = "install VirtualBox from https://www.virtualbox.org/wiki/Linux_Downloads"
    yield Finding("VBoxManage", "" if _is_there("VBoxManage") else remedy)
    yield Finding("kernels: from public boxes, which take internet; those built here are libvirt's")


def _programs(packages: Mapping[str, str]) -> Iterator[Finding]:
    for program, package in packages.items():
        yield Finding(program, "" if _is_there(program) else f"apt-get install {package}")


def _is_there(program: str) -> bool:
    if program.startswith("/"):
        return Path(program).exists()
    return any(shutil.which(program, path=path) for path in (None, "/usr/sbin:/sbin"))


def _room(cache: Path) -> Iterator[Finding]:
    ground = next(path for path in (cache, *cache.parents) if path.is_dir())
    free = shutil.disk_usage(ground).free
    text = f"{free / _GIB:.1f} GiB free for {cache}"
    yield Finding(text, "" if free >= _DISK else f"make room for {_DISK // _GIB} GiB, or --cache")
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = max(pages, _available())
    text = f"{available / _GIB:.1f} GiB of memory available"
    yield Finding(text, "" if available >= _MEMORY else f"{_MEMORY // _GIB} GiB for two machines")


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
