"""Missing prerequisites of the matrix, each with the remedy."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from graphdriver_vms.images.apt import KEYRING
from graphdriver_vms.machines.enclosure import system_libvirtd_answers
from graphdriver_vms.machines.engine import EngineName
from graphdriver_vms.machines.provider import VIRTUALBOX, chosen_provider

__all__ = ["Finding", "findings", "has_kvm", "install_command"]

_GIB = 1 << 30
_DISK, _MEMORY = 6 * _GIB, 3 * _GIB
_UML_DISK, _UML_MEMORY = 2 * _GIB, 3 * _GIB

# Each program, the command that tests whether it starts, and its Debian package. For
# every engine,
_BASE = {
    ("apt-get", "--version"): "apt",
    ("dpkg-deb", "--version"): "dpkg",
    ("mke2fs", "-V"): "e2fsprogs",
    ("modprobe", "--version"): "kmod",
}
# for the guests' user space and Vagrant,
_VAGRANT = {
    ("vagrant", "--version"): "vagrant",
    ("mmdebstrap", "--version"): "mmdebstrap",
    ("ssh", "-V"): "openssh-client",
}
# and for kernels that are built here, and their machines.
_LIBVIRT = {
    ("virsh", "--version"): "libvirt-clients",
    ("libvirtd", "--version"): "libvirt-daemon-system",
    ("qemu-system-x86_64", "--version"): "qemu-system-x86",
    ("qemu-img", "--version"): "qemu-utils",
    ("dnsmasq", "--version"): "dnsmasq-base",
    ("iptables", "--version"): "iptables",
    ("rsync", "--version"): "rsync",
    ("cpio", "--version"): "cpio",
    ("depmod", "--version"): "kmod",
    ("zstd", "--version"): "zstd",
    ("ip", "-V"): "iproute2",
}
# The subset that a bzImage of the user's own needs; the box contains Vagrant's key.
_QEMU = {
    one: package
    for one, package in {**_VAGRANT, **_LIBVIRT}.items()
    if one[0]
    in ("vagrant", "mmdebstrap", "qemu-system-x86_64", "qemu-img", "cpio", "depmod", "zstd")
}
# The subset for machines on other hosts: box and kernels are built here.
_REMOTE = {
    one: package
    for one, package in _LIBVIRT.items()
    if one[0] in ("virsh", "qemu-img", "rsync", "cpio", "depmod", "zstd")
}
_PATCHELF = {("patchelf", "--version"): "patchelf"}
_BIOS = Path("/usr/share/seabios/bios-256k.bin")
_PLUGIN = "/usr/share/rubygems-integration/all/specifications/vagrant-libvirt-*.gemspec"
# The newest version of the C library that Debian's user-mode Linux kernels need.
_UML_LIBC = (2, 38)
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@dataclass(frozen=True, slots=True)
class Finding:
    """A checked prerequisite; `remedy` is "" if it is met.

    `package` is the Debian package, `wheel` the Python package that provides it.
    """

    text: str
    remedy: str = ""
    package: str = ""
    wheel: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether the matrix cannot run without it."""
        return bool(self.remedy)


def has_kvm() -> bool:
    """Return whether KVM works with stock kernels: a /dev/kvm without vmx or svm does not."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return os.access("/dev/kvm", os.W_OK) and (" vmx " in flags or " svm " in flags)


def findings(
    cache: Path,
    engine: EngineName = EngineName.VAGRANT,
    *,
    is_own: bool = False,
    is_remote: bool = False,
) -> Iterator[Finding]:
    """Check the host, for an engine; `is_own` means that the kernel is not one of Debian's, and
    `is_remote` that the machines run on other hosts.
    """
    machine = f"{platform.system()} on {platform.machine()}"
    right = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    yield Finding(machine, "" if right else "local machines take Linux on x86_64")
    yield from _programs(_BASE)
    yield _file(KEYRING, "debian-archive-keyring")
    if engine is EngineName.UML:
        yield from _uml(is_own)
        yield from _room(cache, _UML_DISK, _UML_MEMORY)
        return
    yield Finding("root", "" if os.geteuid() == 0 else "run as root: boxes, mounts, a network")
    if engine is EngineName.QEMU:
        yield from _programs(_QEMU)
        yield _file(_BIOS, "seabios")
        yield Finding("pip", "" if find_spec("pip") else "python3 -m ensurepip")
        yield from _room(cache, _DISK, _UML_MEMORY)
        return
    yield from _programs(_VAGRANT)
    yield _module("vagrant", "python-vagrant")
    yield Finding("pip", "" if find_spec("pip") else "python3 -m ensurepip")
    yield from _room(cache, _DISK, 0 if is_remote else _MEMORY)
    if is_remote:
        yield from _programs(_REMOTE)
        yield _plugin()
        return
    yield from _virtualbox() if chosen_provider() == VIRTUALBOX else _libvirt()


def install_command(found: Iterable[Finding]) -> str:
    """Return one shell command that installs every missing package, "" for none."""
    lacks = [one for one in found if one.is_missing]
    packages = list(dict.fromkeys(one.package for one in lacks if one.package))
    wheels = list(dict.fromkeys(one.wheel for one in lacks if one.wheel))
    commands = []
    if packages:
        commands.append("apt-get install -y --no-install-recommends " + " ".join(packages))
    if wheels:
        commands.append("pip install " + " ".join(wheels))
    return " && ".join(commands)


def _uml(is_own: bool) -> Iterator[Finding]:
    version = _libc()
    if version < _UML_LIBC and not is_own:
        yield from _programs(_PATCHELF)
    yield Finding(f"C library {'.'.join(map(str, version))}")
    yield Finding("kernels: Debian's user-mode-linux; neither root nor KVM is needed")


def _libc() -> tuple[int, ...]:
    """Return the version of this host's C library, (0,) if it is not GNU's."""
    try:
        words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError):
        words = []
    return tuple(map(int, words[1].split("."))) if len(words) == 2 else (0,)


def _libvirt() -> Iterator[Finding]:
    yield from _programs(_LIBVIRT)
    yield _file(_BIOS, "seabios")
    yield _plugin()
    whose = "the host's" if system_libvirtd_answers() else "one for each run"
    yield Finding(f"libvirtd: {whose}")
    yield Finding(f"acceleration: {'KVM' if has_kvm() else 'none, emulation (TCG)'}")
    yield Finding(
        "kernels: built here; from public boxes, which take internet, where Debian has none"
    )


def _plugin() -> Finding:
    plugin = list(Path("/").glob(_PLUGIN.lstrip("/")))
    remedy = "" if plugin else "apt-get install vagrant-libvirt"
    return Finding("vagrant-libvirt", remedy, "vagrant-libvirt")


def _virtualbox() -> Iterator[Finding]:
    remedy = "install VirtualBox from https://www.virtualbox.org/wiki/Linux_Downloads"
    failure = _failure("VBoxManage", "--version")
    yield Finding("VBoxManage", f"{failure}: {remedy}" if failure else "")
    yield Finding("kernels: from public boxes, which take internet; those built here are libvirt's")


def _programs(packages: Mapping[tuple[str, str], str]) -> Iterator[Finding]:
    """Start each program once, several at a time: Vagrant alone takes a second."""
    with ThreadPoolExecutor(4) as pool:
        failures = list(pool.map(lambda one: _failure(*one), packages))
    for ((program, _), package), failure in zip(packages.items(), failures, strict=True):
        yield _of_package(program, failure, package)


def _of_package(text: str, failure: str, package: str) -> Finding:
    remedy = f"{failure}: apt-get install {package}" if failure else ""
    return Finding(text, remedy, package)


def _file(path: Path, package: str) -> Finding:
    return _of_package(str(path), "" if path.exists() else "is missing", package)


def _module(name: str, wheel: str) -> Finding:
    remedy = "" if find_spec(name) else f"pip install {wheel}"
    return Finding(wheel, remedy, wheel=wheel)


def _failure(program: str, argument: str) -> str:
    """Return why a program does not start, "" when it does."""
    path = shutil.which(program, path=_PATH)
    if not path:
        return "is missing"
    try:
        done = subprocess.run(
            [path, argument],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start ({error})"
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"does not start ({words[0] if words else f'exit code {done.returncode}'})"
    return ""


def _room(cache: Path, disk: int, memory: int) -> Iterator[Finding]:
    base = next(path for path in (cache, *cache.parents) if path.is_dir())
    free = shutil.disk_usage(base).free
    text = f"{free / _GIB:.1f} GiB free for {cache}"
    yield Finding(text, "" if free >= disk else f"make room for {disk / _GIB:g} GiB, or --cache")
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = max(pages, _available())
    text = f"{available / _GIB:.1f} GiB of memory available"
    yield Finding(text, "" if available >= memory else f"{memory / _GIB:g} GiB for two machines")


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
