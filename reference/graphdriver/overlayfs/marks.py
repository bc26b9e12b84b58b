"""overlayfs's own marks: whiteouts, and attributes with a prefix of their own.

Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

import errno
import os
import stat

__all__ = ["PREFIXES", "TRUSTED", "USER", "attribute", "is_opaque", "is_whiteout", "opaque_mark"]

TRUSTED = "trusted.overlay."
# Of mounts inside a user namespace, with the option userxattr.
USER = "user.overlay."
PREFIXES = (TRUSTED, USER)


def is_whiteout(found: os.stat_result) -> bool:
    """Say whether an lstat is that of overlay's whiteout, a character device 0:0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: bytes | int, xattr_prefix: str) -> bool:
    """Say whether a directory hides what lies below it."""
    return opaque_mark(path, xattr_prefix) == b"y"


def opaque_mark(path: bytes | int, xattr_prefix: str) -> bytes | None:
    """Return a directory's mark: `y` hides what is below, `x` says that files may be whiteouts."""
    return attribute(path, xattr_prefix + "opaque")


def attribute(path: bytes | int, name: str) -> bytes | None:
    """Return the value of an attribute of `path` (not followed) or a descriptor, or None."""
    try:
        return os.getxattr(path, name, follow_symlinks=isinstance(path, int))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
            return None
        raise
