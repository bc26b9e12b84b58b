"""Remove all files of the matrix: the cache, remnants of killed runs, domains of the host's
libvirtd.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from graphdriver_vms.machines.enclosure import system_libvirtd_answers
from graphdriver_vms.machines.surroundings import PREFIX

__all__ = ["clean"]

_NETWORK = "vagrant-libvirt"


def clean(cache: Path) -> Iterator[str]:
    """Remove all of them and yield a description of each removed item."""
    if system_libvirtd_answers():
        yield from _clean_libvirt()
    if cache.is_dir():
        shutil.rmtree(cache)
        yield f"cache {cache}"


def _clean_libvirt() -> Iterator[str]:
    """Remove domains, volumes and the network from the host's own libvirtd."""
    for domain in _names("list", "--all", "--name"):
        if domain.startswith(PREFIX):
            _virsh("destroy", domain)
            _virsh("undefine", domain)
            yield f"domain {domain}"
    for pool in _names("pool-list", "--name"):
        for row in _virsh("vol-list", pool).splitlines()[2:]:
            volume = row.split()[0] if row.split() else ""
            if volume.startswith(PREFIX):
                _virsh("vol-delete", "--pool", pool, volume)
                yield f"volume {volume}"
    # Other Vagrant machines may use it.
    if _NETWORK in _names("net-list", "--all", "--name") and not _names("list", "--name"):
        _virsh("net-destroy", _NETWORK)
        _virsh("net-undefine", _NETWORK)
        yield f"network {_NETWORK}"


def _names(*command: str) -> list[str]:
    return [line.strip() for line in _virsh(*command).splitlines() if line.strip()]


def _virsh(*command: str) -> str:
    done = subprocess.run(
        ["virsh", "-c", "qemu:///system", *command], capture_output=True, text=True, check=False
    )
    return done.stdout
