"""Apply a layer archive: read its members, separate whiteouts from content, write to a target.

image-spec, layer.md, "Applying Changesets". A whiteout hides files of lower layers and never those
of its own layer, independent of the order in the archive. After an error the caller discards the
target.
"""

import errno
from typing import BinaryIO

from graphdriver.apply.target import Target
from graphdriver.archive.entry import HARDLINK, OPAQUE_MARKER, WHITEOUT_PREFIX, Entry
from graphdriver.archive.ids import refuse_malformed, xattrs_to_host
from graphdriver.archive.reader import Reader
from graphdriver.errors import BadArchive
from graphdriver.idmapping import IDMapping
from graphdriver.tree.inodes import Attributes

__all__ = ["unpack"]

# Files that aufs stored in its branches: old images still contain them (moby pkg/archive).
_AUFS = b".wh..wh."
_NAMES = "names that begin with '.wh.' are the archive's own, for files that it deletes"
# A name, a symlink target or an xattr that no kernel accepts.
_IMPOSSIBLE = (errno.EINVAL, errno.ENAMETOOLONG, errno.ERANGE, errno.E2BIG)
_NS = 1_000_000_000
# ext4 with 256-byte inodes ends in 2446, xfs with bigtime in 2486; the kernel clamps there. Python
# limits times to 64 bits of nanoseconds.
_LATEST = 2**33 + 2**32


def unpack(stream: BinaryIO, target: Target, ids: IDMapping) -> int:
    """Apply `stream` to `target`; return the bytes of non-directories, hard links counted once.

    Raises BadArchive, UnmappedId, OSError; the target then contains a part of the layer.
    """
    reader = Reader(stream)
    size = 0
    try:
        for member in reader:
            entry = member.entry
            directory, _, base = entry.name.rpartition(b"/")
            if base.startswith(WHITEOUT_PREFIX):
                _add_marker(target, entry)
            elif directory.find(WHITEOUT_PREFIX) >= 0 and _has_marker_name(directory):
                # .wh..wh.plnk/ contains aufs's hard links; other names below a whiteout have no
                # meaning.
                if b"/" + _AUFS not in b"/" + directory:
                    raise BadArchive(f"{entry.name!r} is below a whiteout", _NAMES)
            else:
                if len(entry.name) > 255:
                    _check_length(entry)
                if entry.kind is HARDLINK and b"/" + _AUFS in b"/" + entry.linkname:
                    raise BadArchive(
                        f"{entry.name!r} is a hard link of aufs's own to {entry.linkname!r}",
                        "Docker's aufs driver wrote this layer; export the image anew",
                    )
                try:
                    size += target.place(member, _attributes(entry, ids), reader)
                except BadArchive as error:
                    raise _naming(entry, error) from None
                except OSError as error:
                    if error.errno in _IMPOSSIBLE:
                        raise BadArchive(f"{entry.name!r} cannot be: {error}") from error
                    error.add_note(f"unpacking {entry.name!r}")
                    raise
        target.finish()
    finally:
        target.close()
    return size


def _naming(entry: Entry, error: BadArchive) -> BadArchive:
    """Return the error, with the member's name where it does not say it."""
    if repr(entry.name[:200])[:-1] in error.message:
        return error
    return BadArchive(f"{entry.name[:200]!r}: {error.message}", error.hint)


def _add_marker(target: Target, entry: Entry) -> None:
    directory, _, base = entry.name.rpartition(b"/")
    if len(directory) > 255:
        _check_length(entry._replace(name=directory))
    if _has_marker_name(directory):
        if b"/" + _AUFS not in b"/" + directory:
            raise BadArchive(f"{entry.name!r} is below a whiteout", _NAMES)
    elif base == OPAQUE_MARKER:
        target.markers.opaque(directory)
    elif base.startswith(_AUFS):
        return
    elif base[len(WHITEOUT_PREFIX) :] in (b"", b".", b".."):
        raise BadArchive(
            f"{entry.name!r} is a whiteout of nothing", "name the file to delete after '.wh.'"
        )
    else:
        target.markers.whiteout(directory, base[len(WHITEOUT_PREFIX) :])


def _has_marker_name(directory: bytes) -> bool:
    """Return whether a component of the path begins like a marker."""
    return b"/" + WHITEOUT_PREFIX in b"/" + directory


def _check_length(entry: Entry) -> None:
    if max(map(len, entry.name.split(b"/"))) > 255:
        raise BadArchive(f"{entry.name[:300]!r} has a name of more than 255 bytes")


def _attributes(entry: Entry, ids: IDMapping) -> Attributes:
    # The reader has refused invalid owners.
    uid, gid, xattrs = entry.uid, entry.gid, entry.xattrs
    if xattrs:
        refuse_malformed(xattrs)
    if not ids.identity:
        uid, gid = ids.to_host(uid, gid)
        if xattrs:
            xattrs = xattrs_to_host(xattrs, ids)
    mtime = entry.mtime if -_LATEST < entry.mtime < _LATEST else _clamped(entry.mtime)
    # Equivalent to Attributes(...), in half the time: one is created for each member.
    return tuple.__new__(Attributes, (entry.mode, uid, gid, mtime * _NS, xattrs))


def _clamped(mtime: int) -> int:
    return _LATEST if mtime > 0 else -_LATEST
