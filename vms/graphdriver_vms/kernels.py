"""The kernels of the matrix, as defined in `kernels.toml`."""

import os
import re
import tomllib
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from graphdriver_vms.machines.provider import LIBVIRT

__all__ = ["HOST", "Kernel", "Source", "data_file", "load_kernels"]

HOST = "host"
VARIABLE = "GRAPHDRIVER_MATRIX_KERNELS"


class Source(Enum):
    """The source of a kernel."""

    BUILT = auto()
    PUBLIC = auto()
    NOWHERE = auto()


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row of the matrix; "" for keys that are not in the file."""

    name: str
    init: str
    why: str
    suite: str = ""
    package: str = ""
    box: str = ""
    uml: str = ""

    @property
    def is_built_here(self) -> bool:
        """Whether its kernel is from a Debian suite rather than from a public box."""
        return bool(self.package)

    @property
    def has_source(self) -> bool:
        """Whether any engine supports it."""
        return bool(self.package or self.box or self.uml)

    def source(self, provider: str) -> Source:
        """Return the source of the kernel for machines of `provider`; the built box is for
        libvirt.
        """
        if self.package and provider == LIBVIRT:
            return Source.BUILT
        return Source.PUBLIC if self.box else Source.NOWHERE

    @property
    def series(self) -> str:
        """The requested version, the beginning of its name: 4.19."""
        found = re.match(r"\d+(\.\d+)+", self.name)
        return found[0] if found else ""

    def has_release(self, release: str) -> bool:
        """Return whether `release`, as reported by uname(2), belongs to the series."""
        return bool(re.match(rf"{re.escape(self.series)}(?!\d)", release))


def data_file(name: str) -> Path:
    """Return a data file: beside the modules in a wheel, otherwise in the repository.

    Raises FileNotFoundError.
    """
    package = Path(__file__).parent
    for place in (package, package.parent, package.parents[1]):
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"{name} is neither in {package} nor above it; install it again")


def load_kernels(path: Path | None = None) -> dict[str, Kernel]:
    """Return the kernels by name, in the order of the file. Raises ValueError, TypeError.

    `GRAPHDRIVER_MATRIX_KERNELS` names another file, for this and for the Vagrantfile.
    """
    path = path or Path(os.environ.get(VARIABLE) or data_file("kernels.toml"))
    found: dict[str, Kernel] = {}
    for entry in tomllib.loads(path.read_text())["kernel"]:
        kernel = Kernel(**entry)
        if kernel.name in found or kernel.name == HOST:
            raise ValueError(f"{path}: {kernel.name} is there twice, or a name of its own")
        if bool(kernel.suite) != bool(kernel.package) or not kernel.has_source:
            raise ValueError(f"{path}: {kernel.name} needs suite and package, a box, or uml")
        if kernel.box and not kernel.series:
            # Otherwise a box with any kernel would be accepted.
            raise ValueError(
                f"{path}: {kernel.name} has a box; begin its name with a version, 4.19"
            )
        found[kernel.name] = kernel
    return found
