"""libvirt on other hosts: `qemu+ssh://root@HOST/system`.

Box and machine are uploaded by vagrant-libvirt. Kernel and initrd are files of the host that boots
them, so they are uploaded as volumes of libvirt's pool `default`, over the same connection.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from graphdriver_vms.errors import MachineFailed, MatrixError
from graphdriver_vms.images.kernel_image import KernelImage
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.machines.surroundings import Surroundings

__all__ = ["Host", "on_host"]

_POOL, _POOL_PLACE = "default", "/var/lib/libvirt/images"
_FILES = ("vmlinuz", "initrd")
_LIMIT = 600


@dataclass(frozen=True, slots=True)
class Host:
    """The libvirt that boots machines: of this host, or, with `uri`, of another one."""

    uri: str = ""

    def check(self) -> None:
        """Raise MatrixError if its libvirt does not answer."""
        try:
            self.virsh("list")
        except MachineFailed as error:
            raise MatrixError(str(error), "see that `ssh` to that host takes a key") from None

    def has_kvm(self) -> bool:
        """Return whether its libvirt offers KVM. Raises MachineFailed."""
        return "<domain type='kvm'" in self.virsh("capabilities")

    def virsh(self, *command: str) -> str:
        """Return the output of virsh(1). Raises MachineFailed."""
        try:
            done = subprocess.run(
                ["virsh", "-q", "-c", self.uri, *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise MachineFailed(f"{self.uri}: virsh {command[0]}: no answer") from None
        if done.returncode:
            words = done.stderr.strip() or f"exit code {done.returncode}"
            raise MachineFailed(f"{self.uri}: virsh {command[0]} failed: {words[-300:]}")
        return done.stdout

    def upload(self, file: Path, volume: str) -> str:
        """Upload a file as a volume and return its path there. Raises MachineFailed."""
        self._make_pool()
        size = file.stat().st_size
        self.virsh("vol-create-as", _POOL, volume, f"{size}B", "--format", "raw")
        self.virsh("vol-upload", "--pool", _POOL, volume, str(file))
        return self.virsh("vol-path", "--pool", _POOL, volume).strip()

    def remove(self, volume: str) -> None:
        """Remove a volume, if it exists."""
        with contextlib.suppress(MachineFailed):
            self.virsh("vol-delete", "--pool", _POOL, volume)

    def _make_pool(self) -> None:
        """Create and start the pool as vagrant-libvirt does, if it is missing."""
        with contextlib.suppress(MachineFailed):
            self.virsh("pool-info", _POOL)
            return
        with contextlib.suppress(MachineFailed):
            # Another lane may create it at the same time; vol-create-as reports a pool that is
            # missing.
            self.virsh("pool-define-as", _POOL, "dir", "--target", _POOL_PLACE)
            self.virsh("pool-build", _POOL)
            self.virsh("pool-start", _POOL)


@contextlib.contextmanager
def on_host(
    host: Host, kernel: Kernel, image: KernelImage | None, where: Surroundings
) -> Iterator[Surroundings]:
    """Yield the surroundings of a machine on a host, with the kernel that was built here.

    `image` is None if a public box has the kernel. Raises MachineFailed.
    """
    if not host.uri:
        yield where
        return
    there = replace(where, uri=host.uri, kvm=host.has_kvm())
    if image is None:
        yield there
        return
    directory = image.directory(where.cache, kernel)
    volumes = {name: f"{where.prefix}{kernel.name}-{name}" for name in _FILES}
    try:
        places = tuple(
            (name, host.upload(directory / name, volume)) for name, volume in volumes.items()
        )
        yield replace(there, files=places)
    finally:
        for volume in volumes.values():
            host.remove(volume)
