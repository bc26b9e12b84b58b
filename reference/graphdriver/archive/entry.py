"""One member of a layer archive, and the names of markers.

Not a file on disk: an `Entry` has the values in the archive, with inside ids and whole seconds.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from graphdriver.tree.xattrs import NO_XATTRS

__all__ = [
    "DIRECTORY",
    "FILE",
    "HARDLINK",
    "OPAQUE_MARKER",
    "WHITEOUT_PREFIX",
    "Entry",
    "Kind",
]

# image-spec, layer.md, "Whiteouts"
WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"


class Kind(Enum):
    """The type of a member; the value is ustar's type flag."""

    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"

    # Members are singletons; Enum's own hash is a Python function, called for each file.
    __hash__ = object.__hash__


# Constants for comparisons: before Python 3.12 an access to Kind.FILE takes as long as a small
# call.
FILE, HARDLINK, DIRECTORY = Kind.FILE, Kind.HARDLINK, Kind.DIRECTORY


class Entry(NamedTuple):
    """A member: `name` is relative without leading or trailing slashes, b"" is the layer's root.

    `mode` contains the twelve permission bits, `mtime` whole seconds since 1970, `size` bytes. A
    tuple, not a dataclass: one is created for each file, and this is four times faster.
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
