"""One member of a layer archive, and which of its attributes travel.

Not a path on disk: an `Entry` holds what an archive says, inside ids and whole seconds.
"""

import os
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "DIRECTORY",
    "FILE",
    "HARDLINK",
    "NO_XATTRS",
    "OPAQUE_MARKER",
    "WHITEOUT_PREFIX",
    "Entry",
    "Kind",
    "exported_xattrs",
    "is_exported",
    "listxattr",
]

# image-spec, layer.md, "Whiteouts"
WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})

_EXACT = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})


class Kind(Enum):
    """What a member is; the value is ustar's type flag."""

    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"

    # Members are one of a kind; Enum's own hash is a Python function, called for each file.
    __hash__ = object.__hash__


# What each member is compared with: before Python 3.12 Kind.FILE takes as long as a small call.
FILE, HARDLINK, DIRECTORY = Kind.FILE, Kind.HARDLINK, Kind.DIRECTORY


class Entry(NamedTuple):
    """A member: `name` is relative without slashes at its ends, b"" being the layer's root.

    `mode` holds the twelve permission bits, `mtime` whole seconds since 1970, `size` bytes.
    A tuple, not a dataclass: a layer makes one for each file, and this is four times faster.
    """

    name: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = NO_XATTRS


def is_exported(name: str) -> bool:
    """Say whether an attribute belongs to the layer's content.

    user.*, file capabilities and ACLs do. What overlayfs keeps for itself under trusted.overlay.
    and user.overlay. does not, nor do labels, which belong to the host.
    """
    if name.startswith("user."):
        return not name.startswith("user.overlay.")
    return name in _EXACT


def listxattr(path: bytes | int) -> list[str]:
    """List the attributes of `path` (not followed) or of a descriptor; [] where there are none."""
    try:
        return os.listxattr(path, follow_symlinks=isinstance(path, int))
    except OSError as error:
        if error.errno in (95, 1):  # EOPNOTSUPP, EPERM: a file system without attributes
            return []
        raise


def exported_xattrs(path: bytes | int, names: list[str] | None = None) -> Mapping[bytes, bytes]:
    """Read those attributes of `path` or of a descriptor that belong in an archive.

    `names` are those it has, where the caller knows them.
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
