"""The xattrs that belong to a layer's content."""

import errno
import os
from collections.abc import Mapping
from types import MappingProxyType

from graphdriver.overlayfs.format import USER

__all__ = ["DEFAULT_ACL", "NO_XATTRS", "exported_xattrs", "is_exported", "listxattr"]

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})

DEFAULT_ACL = b"system.posix_acl_default"

_EXACT = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})


def is_exported(name: str) -> bool:
    """Return whether an xattr belongs to the layer's content.

    user.*, file capabilities and ACLs do. overlayfs's own trusted.overlay.* and user.overlay.* do
    not, nor do labels, which are set by the host.
    """
    if name.startswith("user."):
        return not name.startswith(USER)
    return name in _EXACT


def listxattr(path: bytes | int) -> list[str]:
    """List the xattrs of `path` (not followed) or of a descriptor; [] if there are none."""
    try:
        return os.listxattr(path, follow_symlinks=isinstance(path, int))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):  # a file system without xattrs
            return []
        raise


def exported_xattrs(path: bytes | int, names: list[str] | None = None) -> Mapping[bytes, bytes]:
    """Read the xattrs of `path` or of a descriptor that belong in an archive.

    `names` are its xattrs, if the caller knows them.
    """
    names = listxattr(path) if names is None else names
    if not names:
        return NO_XATTRS
    follow = isinstance(path, int)
    return {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=follow)
        for name in sorted(names)
        if is_exported(name)
    } or NO_XATTRS
