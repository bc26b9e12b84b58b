"""Vagrant's provider: libvirt boots the built box and public boxes, VirtualBox only the latter."""

import os

from graphdriver_vms.errors import MatrixError

__all__ = ["LIBVIRT", "VARIABLE", "VIRTUALBOX", "chosen_provider"]

LIBVIRT, VIRTUALBOX = "libvirt", "virtualbox"
VARIABLE = "VAGRANT_DEFAULT_PROVIDER"


def chosen_provider() -> str:
    """Return the provider that `VAGRANT_DEFAULT_PROVIDER` asks for. Raises MatrixError."""
    asked = os.environ.get(VARIABLE) or LIBVIRT
    if asked not in (LIBVIRT, VIRTUALBOX):
        raise MatrixError(
            f"{VARIABLE}={asked}: the matrix knows {LIBVIRT} and {VIRTUALBOX}",
            f"unset it for {LIBVIRT}",
        )
    return asked
