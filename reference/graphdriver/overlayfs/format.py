"""The on-disk format of overlayfs: whiteouts, and xattrs with its prefix.

Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

import errno
import os
import stat

__all__ = ["PREFIXES", "TRUSTED", "USER", "attribute", "is_opaque", "is_whiteout", "opaque_value"]

TRUSTED = "trusted.overlay."
# For mounts inside a user namespace, with the option userxattr.
USER = "user.overlay."
PREFIXES = (TRUSTED, USER)


def is_whiteout(found: os.stat_result) -> bool:
    """Return whether an lstat is that of a whiteout, a character device 0:0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: bytes | int, xattr_prefix: str) -> bool:
    """Return whether a directory is opaque."""
    return opaque_value(path, xattr_prefix) == b"y"


def opaque_value(path: bytes | int, xattr_prefix: str) -> bytes | None:
    """Return a directory's opaque xattr: `y` hides lower entries, `x` means that files may be
    whiteouts.
    """
    return attribute(path, xattr_prefix + "opaque")


def attribute(path: bytes | int, name: str) -> bytes | None:
    """Return the value of an xattr of `path` (not followed) or a descriptor, or None."""
    try:
        return os.getxattr(path, name, follow_symlinks=isinstance(path, int))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
            return None
        raise
