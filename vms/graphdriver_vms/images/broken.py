"""Broken kernels: Debian's linux-source with one bug of overlayfs each, built with ARCH=um."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.apt import Suite
from graphdriver_vms.images.uml_image import UmlImage, release_of
from graphdriver_vms.kernels import data_file

__all__ = ["SOUND", "BrokenKernel", "Workshop", "load_broken"]

SOUND = "sound"
"""The name of the kernel without a bug."""

_SUITE, _SOURCE = "bookworm-security", "linux-source-6.1"
# On top of a defconfig: what the suite takes, built in; and what it does not, left out.
_CONFIG = """
CONFIG_OVERLAY_FS=y
CONFIG_HOSTFS=y
CONFIG_EXT4_FS=y
CONFIG_EXT4_FS_POSIX_ACL=y
CONFIG_EXT4_FS_SECURITY=y
CONFIG_TMPFS=y
CONFIG_TMPFS_XATTR=y
CONFIG_TMPFS_POSIX_ACL=y
CONFIG_USER_NS=y
CONFIG_BLK_DEV_LOOP=y
CONFIG_BLK_DEV_UBD=y
CONFIG_DEVTMPFS=y
CONFIG_NAMESPACES=y
CONFIG_PID_NS=y
CONFIG_NET_NS=y
CONFIG_UTS_NS=y
CONFIG_IPC_NS=y
CONFIG_CGROUPS=y
CONFIG_SECCOMP=y
# CONFIG_MODULES is not set
# CONFIG_DEBUG_INFO is not set
CONFIG_DEBUG_INFO_NONE=y
# CONFIG_SOUND is not set
# CONFIG_UML_SOUND is not set
CONFIG_MULTIUSER=y
CONFIG_FUSE_FS=y
CONFIG_MAGIC_SYSRQ=y
CONFIG_UNIX=y
# CONFIG_INET is not set
# CONFIG_WIRELESS is not set
# CONFIG_WLAN is not set
# CONFIG_NETDEVICES is not set
# CONFIG_ETHTOOL_NETLINK is not set
# CONFIG_PACKET is not set
# CONFIG_UML_NET is not set
# CONFIG_INPUT is not set
# CONFIG_HID is not set
# CONFIG_REISERFS_FS is not set
# CONFIG_ISO9660_FS is not set
# CONFIG_AUTOFS_FS is not set
# CONFIG_IOSCHED_BFQ is not set
# CONFIG_CRYPTO_HW is not set
# CONFIG_WATCHDOG is not set
"""


@dataclass(frozen=True, slots=True)
class BrokenKernel:
    """One bug; the keys are explained in `broken_kernels.toml`."""

    name: str
    about: str
    bug: str
    file: str
    before: str
    after: str
    requirement: str
    cell: str

    def edited(self, text: str) -> str:
        """Return the source with the bug. Raises CannotBuild unless its place is there once."""
        before, after = self.before.strip("\n"), self.after.strip("\n")
        if text.count(before) != 1:
            raise CannotBuild(
                f"{self.name}: the text to replace is {text.count(before)} times in {self.file}",
                "adapt broken_kernels.toml to this source",
            )
        return text.replace(before, after)


def load_broken(path: Path | None = None) -> dict[str, BrokenKernel]:
    """Return the broken kernels by name. Raises ValueError, TypeError."""
    path = path or data_file("broken_kernels.toml")
    found: dict[str, BrokenKernel] = {}
    for entry in tomllib.loads(path.read_text())["broken"]:
        kernel = BrokenKernel(**entry)
        if kernel.name in found or kernel.name == SOUND:
            raise ValueError(f"{path}: {kernel.name} is there twice, or a name of its own")
        found[kernel.name] = kernel
    return found


class Workshop:
    """Builds the sound kernel and broken ones; what was built stays in the cache."""

    def __init__(self, cache: Path, report: Callable[[str], None]) -> None:
        self._base = cache / "broken"
        self._suite = Suite(_SUITE, cache / "apt" / "broken")
        self._report = report

    def build(self, kernels: Sequence[BrokenKernel]) -> dict[str, UmlImage]:
        """Return the sound kernel and `kernels` by name. Raises CannotBuild."""
        self._suite.update()
        version = self._suite.newest(_SOURCE).version
        source = self._base / "source" / version
        wanted = {SOUND: self._place(version, None)}
        wanted |= {one.name: self._place(version, one) for one in kernels}
        if not all(place.is_file() for place in wanted.values()):
            self._unpack(version, source)
            if not wanted[SOUND].is_file():
                self._report(f"linux {version}, sound: some minutes")
                self._make(source, wanted[SOUND])
            for one in kernels:
                if not wanted[one.name].is_file():
                    self._report(f"{one.name}: {one.about}")
                    with _edited(source / "fs/overlayfs" / one.file, one):
                        self._make(source, wanted[one.name])
        return {name: UmlImage(release_of(place), place) for name, place in wanted.items()}

    def _place(self, version: str, kernel: BrokenKernel | None) -> Path:
        """Return where a kernel is, by all that it was made of."""
        change = f"{kernel.file}\0{kernel.before}\0{kernel.after}" if kernel else ""
        digest = hashlib.sha256(f"{version}\0{_CONFIG}\0{change}".encode()).hexdigest()[:12]
        return self._base / "kernels" / f"{kernel.name if kernel else SOUND}-{digest}" / "linux"

    def _unpack(self, version: str, source: Path) -> None:
        if source.is_dir():
            return
        self._report(f"{_SOURCE} {version}")
        work = source.with_name(f".{version}.part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            (deb,) = self._suite.download([_SOURCE], work)
            _run("dpkg-deb", "-x", deb, work / "package")
            (archive,) = (work / "package/usr/src").glob("linux-source-*.tar.*")
            (work / "tree").mkdir()
            _run("tar", "-C", work / "tree", "--strip-components=1", "-xf", archive)
            (work / "tree").rename(source)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _make(self, source: Path, place: Path) -> None:
        """Build the source as it is; only what changed since the last time is compiled."""
        objects = self._base / "objects" / source.name
        objects.mkdir(parents=True, exist_ok=True)
        make = ("make", "-s", "-C", source, "ARCH=um", f"O={objects}")
        config = objects / ".config"
        wanted = objects / ".config.wanted"
        if not wanted.is_file() or wanted.read_text() != _CONFIG:
            _run(*make, "defconfig")
            with config.open("a") as file:
                file.write(_CONFIG)
            _run(*make, "olddefconfig")
            wanted.write_text(_CONFIG)
        _run(*make, f"-j{len(os.sched_getaffinity(0))}", "linux")
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(".linux.part")
        shutil.copy(objects / "linux", part)
        part.rename(place)


@contextlib.contextmanager
def _edited(file: Path, kernel: BrokenKernel) -> Iterator[None]:
    """Have the bug in a source file for the time being. Raises CannotBuild."""
    sound = file.read_text()
    file.write_text(kernel.edited(sound))
    try:
        yield
    finally:
        file.write_text(sound)


def _run(*command: str | Path) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise CannotBuild(
            f"there is no {command[0]}", "apt-get install gcc make flex bison bc xz-utils"
        ) from None
    if done.returncode:
        words = " ".join(map(str, command[:2]))
        raise CannotBuild(f"{words} failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
