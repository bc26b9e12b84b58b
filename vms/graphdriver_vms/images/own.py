"""A kernel of the user's own: a bzImage, a `linux` built with ARCH=um, or a Debian package of
either.
"""

import shutil
import struct
import subprocess
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.uml_image import release_of

__all__ = ["KernelFormat", "OwnKernel", "own_kernel"]

_ELF = b"\x7fELF"
# Documentation/arch/x86/boot.rst: the magic, and the offset of the version text.
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_VERSION_AT, _SETUP = 0x20E, 0x200
_NEEDS = "name a bzImage, a `linux` built with ARCH=um, or a Debian package with one of them"


class KernelFormat(Enum):
    """How a kernel is started."""

    UML = auto()
    BZIMAGE = auto()


@dataclass(frozen=True, slots=True)
class OwnKernel:
    """A kernel of the user's own; `modules_base` contains lib/modules/RELEASE, or is empty."""

    format: KernelFormat
    file: Path
    release: str
    modules_base: tuple[Path, ...] = ()


def own_kernel(file: Path, modules: Path | None, scratch: Path) -> OwnKernel:
    """Identify a file, and a directory of modules from `make modules_install`.

    `modules` may be the directory of INSTALL_MOD_PATH, or its lib/modules/RELEASE. `scratch` is for
    unpacked files. Raises CannotBuild.
    """
    if not file.is_file():
        raise CannotBuild(f"{file} is not a file", _NEEDS)
    if file.suffix == ".deb":
        file, packed = _unpacked(file, scratch / "package")
        modules = modules or packed
    with file.open("rb") as stream:
        head = stream.read(0x10000)
    if head.startswith(_ELF):
        format, release = KernelFormat.UML, release_of(file.absolute())
    elif head[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC:
        format, release = KernelFormat.BZIMAGE, _version(head)
    else:
        raise CannotBuild(f"{file} is not a kernel", _NEEDS)
    base = (_with_modules(modules, release, scratch / "modules"),) if modules else ()
    return OwnKernel(format, file.absolute(), release, base)


def _version(head: bytes) -> str:
    """Return the release in a bzImage's header. Raises CannotBuild."""
    (offset,) = struct.unpack_from("<H", head, _VERSION_AT)
    text = head[offset + _SETUP :].partition(b"\0")[0].decode("ascii", "replace")
    if not offset or not text.split():
        raise CannotBuild("the bzImage does not contain its release")
    return text.split()[0]


def _unpacked(package: Path, target: Path) -> tuple[Path, Path | None]:
    """Return the kernel in a Debian package, and the directory with its modules."""
    done = subprocess.run(
        ["dpkg-deb", "-x", package, target], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotBuild(f"{package} cannot be unpacked: {done.stderr.strip()[-300:]}")
    patterns = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "usr/bin/linux.uml", "usr/bin/linux")
    found = [one for pattern in patterns for one in target.glob(pattern)]
    if not found:
        raise CannotBuild(f"{package} has no kernel", _NEEDS)
    places = ("lib/modules/*", "usr/lib/modules/*", "usr/lib/uml/modules/*")
    modules = [
        one for pattern in places for one in target.glob(pattern) if (one / "kernel").is_dir()
    ]
    return found[0], modules[0] if modules else None


def _with_modules(given: Path, release: str, target: Path) -> Path:
    """Return a directory with lib/modules/RELEASE. Raises CannotBuild."""
    places = (given / "lib/modules" / release, given / "usr/lib/modules" / release, given / release)
    found = next((one for one in places if one.is_dir()), given)
    if not (found / "kernel").is_dir() and not (found / "modules.dep").is_file():
        raise CannotBuild(
            f"{given} has no modules of {release}",
            "name what INSTALL_MOD_PATH was for `make modules_install`",
        )
    # `build` and `source` point to the source trees of the kernel.
    ignore = shutil.ignore_patterns("build", "source")
    place = target / "lib/modules" / release
    shutil.copytree(found.resolve(), place, ignore=ignore)
    if not (place / "modules.dep").is_file():
        done = subprocess.run(
            ["depmod", "-b", target, release], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotBuild(f"depmod failed: {done.stderr.strip()[-300:]}")
    return target.absolute()
