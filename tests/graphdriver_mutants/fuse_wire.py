"""FUSE requests and responses as structures (include/uapi/linux/fuse.h): see `passthrough`."""

import errno
import os
import struct
import time
from dataclasses import dataclass

__all__ = [
    "ANSWER",
    "DIRENT",
    "ENTRY",
    "INIT",
    "REQUEST",
    "TRANSFER",
    "Changes",
    "attributes",
    "changes_in",
    "name_in",
    "opened",
    "sized",
    "statistics",
]

_SECOND = 10**9

REQUEST = struct.Struct("<IIQQIIIHH")  # fuse_in_header
ANSWER = struct.Struct("<IiQ")  # fuse_out_header
INIT = struct.Struct("<4I2H2I36x")  # fuse_init_out
ENTRY = struct.Struct("<4Q2I")  # fuse_entry_out, without the attributes
TRANSFER = struct.Struct("<2Q2IQ2I")  # fuse_read_in, fuse_write_in
DIRENT = struct.Struct("<2Q2I")  # fuse_dirent
_ATTRIBUTES = struct.Struct("<3Q3q10I")  # fuse_attr
_CHANGES = struct.Struct("<2I3Q3q8I")  # fuse_setattr_in
_STATISTICS = struct.Struct("<5Q4I24x")  # fuse_statfs_out

# FATTR_*
_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _ATIME_NOW, _MTIME_NOW = 1, 2, 4, 8, 16, 32, 128, 256


@dataclass(frozen=True, slots=True)
class Changes:
    """Attributes to set, None for unchanged ones; in `owner` -1 is unchanged."""

    owner: tuple[int, int] | None
    mode: int | None
    size: int | None
    times: tuple[int, int] | None


def changes_in(body: bytes, found: os.stat_result) -> Changes:
    """Parse fuse_setattr_in; `found` has the current attributes."""
    what, _, _, size, _, *seconds, _, access, written, _, mode, _, uid, gid, _ = (
        _CHANGES.unpack_from(body)
    )
    owner = uid if what & _UID else -1, gid if what & _GID else -1
    atime = seconds[0] * _SECOND + access if what & _ATIME else found.st_atime_ns
    mtime = seconds[1] * _SECOND + written if what & _MTIME else found.st_mtime_ns
    now = time.time_ns()
    times = now if what & _ATIME_NOW else atime, now if what & _MTIME_NOW else mtime
    return Changes(
        owner if what & (_UID | _GID) else None,
        mode & 0o7777 if what & _MODE else None,
        size if what & _SIZE else None,
        times if what & (_ATIME | _MTIME) else None,
    )


def statistics(found: os.statvfs_result) -> bytes:
    """Return fuse_statfs_out."""
    counts = found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree
    return _STATISTICS.pack(*counts, found.f_bsize, found.f_namemax, found.f_frsize, 0)


def attributes(found: os.stat_result) -> bytes:
    """Return fuse_attr."""
    times = [
        divmod(ns, _SECOND) for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    ]
    return _ATTRIBUTES.pack(
        *(found.st_ino, found.st_size, found.st_blocks),
        *(seconds for seconds, _ in times),
        *(rest for _, rest in times),
        *(found.st_mode, found.st_nlink, found.st_uid, found.st_gid),
        *(found.st_rdev & 0xFFFFFFFF, found.st_blksize, 0),
    )


def name_in(body: bytes) -> bytes:
    """Return the name at the start of a body."""
    return body.partition(b"\0")[0]


def opened(handle: int) -> bytes:
    """Return fuse_open_out."""
    return struct.pack("<QII", handle, 0, 0)


def sized(body: bytes, value: bytes) -> bytes:
    """Return a value, or its size if `size` is 0."""
    (size,) = struct.unpack_from("<I", body)
    if not size:
        return struct.pack("<II", len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, "too long")
    return value
