"""Apply a layer archive: read its members, tell whiteouts from content, drive a target.

image-spec, layer.md, "Applying Changesets". A whiteout hides what lies below this layer and never
what this layer holds, whatever their order in the archive. What a target leaves behind after an
error is for its caller to throw away.
"""

from typing import BinaryIO, Protocol

from graphdriver.archive.entry import OPAQUE_MARKER, WHITEOUT_PREFIX, Entry
from graphdriver.archive.reader import Member, Reader
from graphdriver.errors import BadArchive
from graphdriver.idmapping import IDMapping
from graphdriver.tree.inodes import Attributes

__all__ = ["Target", "unpack"]

# What aufs kept for itself in its branches: old images still carry them (moby pkg/archive).
_AUFS = b".wh..wh."
_NS = 1_000_000_000
# ext4 with 256-byte inodes ends in 2446, xfs with bigtime in 2486; the kernel clamps there. Beyond
# 64 bits of nanoseconds Python cannot say it.
_LATEST = 2**33 + 2**32


class Target(Protocol):
    """Where an archive goes. Names are clean: relative, without `.` and `..`."""

    def place(self, member: Member, attributes: Attributes, reader: Reader) -> int:
        """Put a member there; return the bytes this adds (less those of what it replaced)."""

    def whiteout(self, directory: bytes, name: bytes) -> None:
        """Hide what lies below as `name` in `directory`."""

    def opaque(self, directory: bytes) -> None:
        """Hide all that lies below in `directory`."""

    def finish(self) -> None:
        """Do what has to wait for the last member."""

    def close(self) -> None:
        """Release descriptors."""


def unpack(stream: BinaryIO, target: Target, ids: IDMapping) -> int:
    """Apply `stream` to `target`; return the bytes of non-directories, hard links counted once.

    Raises BadArchive, UnmappedId, OSError; the target then holds a part of the layer.
    """
    reader = Reader(stream)
    size = 0
    try:
        for member in reader:
            entry = member.entry
            directory, _, base = entry.name.rpartition(b"/")
            if base.startswith(WHITEOUT_PREFIX):
                _whiteout(target, directory, base)
            elif directory.find(_AUFS) >= 0 and b"/" + _AUFS in b"/" + directory:
                continue  # .wh..wh.plnk/ holds aufs's hard links
            else:
                if len(entry.name) > 255:
                    _check_length(entry)
                size += target.place(member, _attributes(entry, ids), reader)
        target.finish()
    finally:
        target.close()
    return size


def _whiteout(target: Target, directory: bytes, base: bytes) -> None:
    if base == OPAQUE_MARKER:
        target.opaque(directory)
    elif base.startswith(_AUFS):
        return
    elif base[len(WHITEOUT_PREFIX) :] in (b"", b".", b".."):
        raise BadArchive(
            f"{base!r} in {directory!r} is a whiteout of nothing",
            "name the file to delete after '.wh.'",
        )
    else:
        target.whiteout(directory, base[len(WHITEOUT_PREFIX) :])


def _check_length(entry: Entry) -> None:
    if max(map(len, entry.name.split(b"/"))) > 255:
        raise BadArchive(f"{entry.name[:300]!r} has a name of more than 255 bytes")


def _attributes(entry: Entry, ids: IDMapping) -> Attributes:
    # The reader has refused what nobody can be.
    uid, gid = entry.uid, entry.gid
    if not ids.identity:
        uid, gid = ids.to_host(uid, gid)
    mtime = entry.mtime if -_LATEST < entry.mtime < _LATEST else _clamped(entry.mtime)
    # As Attributes(...) would, in half the time: one is made for each member.
    return tuple.__new__(Attributes, (entry.mode, uid, gid, mtime * _NS, entry.xattrs))


def _clamped(mtime: int) -> int:
    return _LATEST if mtime > 0 else -_LATEST
