"""Create a layer archive from records, chunk by chunk.

The hot path of `docker save` and `docker commit`: one header template, one read for a small file,
no copy of a large one. A file that differs from its record raises an error; the archive then has no
end, so that it cannot be mistaken for a complete one (Docker's writer logged the error and
continued: moby pkg/archive, C#64).
"""

import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from graphdriver.archive.entry import FILE, Entry
from graphdriver.archive.header import BLOCK, encode, padding
from graphdriver.archive.ids import xattrs_to_container
from graphdriver.archive.sparse import bounded, map_block
from graphdriver.errors import DriverError
from graphdriver.idmapping import IDMapping
from graphdriver.tree.data import Segment, data_segments
from graphdriver.tree.xattrs import exported_xattrs, listxattr

__all__ = ["FileData", "NotNative", "Record", "pack"]

# O_NONBLOCK: if a fifo has replaced the file, open must not block.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_SIZE = 1 << 20
_ZEROS = bytes(BLOCK)
# Files below this size are read into the buffer; larger ones are copied from the page cache
# directly to the reader of the stream.
_SMALL = 1 << 16
# The image-spec discourages sparse members, so only large files that are mostly holes become one:
# otherwise a 1 TiB hole would be 1 TiB of zeros.
_SPARSE_FROM = 16 << 20


class Record(NamedTuple):
    """An entry and, for a file, the location of its data: `name` in the directory open as `dir_fd`.

    The descriptor must stay open until the next record is requested. A file's xattrs are read when
    it is opened for its data, and ids in them mapped by `ids`; a file with the xattr `refuse`
    raises NotNative.
    """

    entry: Entry
    dir_fd: int = -1
    name: bytes = b""
    refuse: str = ""
    ids: IDMapping | None = None


class NotNative(DriverError):
    """The upper directory cannot be read directly: it contains a redirect or a metacopy."""


class FileData(NamedTuple):
    """`length` bytes of `descriptor` from `offset`, which the stream's reader copies."""

    descriptor: int
    offset: int
    length: int
    name: bytes

    def changed(self, found: int) -> OSError:
        """Return the error for a file that ended after `found` of its bytes."""
        return _changed(self.name, f"it ended {self.length - found} bytes early")


def pack(records: Iterable[Record]) -> Iterator[bytes | FileData]:
    """Yield the archive of `records`. Raises OSError for a file that differs from its record."""
    buffer = bytearray()
    for record in records:
        entry = record.entry
        if entry.kind is not FILE or record.dir_fd < 0:
            buffer += encode(entry)
        elif entry.size <= _SMALL:
            _read_small(record, buffer)
        else:
            yield from _large(record, buffer)
        if len(buffer) >= _CHUNK_SIZE:
            yield bytes(buffer)
            buffer.clear()
    buffer += bytes(2 * BLOCK)
    yield bytes(buffer)


def _read_small(record: Record, buffer: bytearray) -> None:
    entry = record.entry
    descriptor = _open(record)
    try:
        if names := listxattr(descriptor):
            entry = _with_attributes(record, descriptor, names)
        # One byte more than the size, to detect a file that has grown.
        data = os.read(descriptor, entry.size + 1)
    finally:
        os.close(descriptor)
    if len(data) != entry.size:
        raise _changed(entry.name, f"it has {len(data)} bytes or more, not {entry.size}")
    buffer += encode(entry)
    buffer += data
    buffer += _ZEROS[: -len(data) % BLOCK]


def _large(record: Record, buffer: bytearray) -> Iterator[bytes | FileData]:
    descriptor = _open(record)
    try:
        entry = _with_attributes(record, descriptor, listxattr(descriptor))
        now = os.fstat(descriptor)
        if now.st_size != entry.size:
            raise _changed(entry.name, f"it has {now.st_size} bytes, not {entry.size}")
        if entry.size - now.st_blocks * 512 >= _SPARSE_FROM:
            segments = bounded([*data_segments(descriptor, entry.size)])
            front, stored = _sparse_header(entry, segments)
        else:
            segments = [Segment(0, entry.size)]
            front, stored = encode(entry), entry.size
        yield bytes(buffer) + front
        buffer.clear()
        for offset, length in segments:
            yield FileData(descriptor, offset, length, entry.name)
        if os.fstat(descriptor).st_size != entry.size:
            raise _changed(entry.name, "its size changed while it was read")
        buffer += padding(stored)
    finally:
        os.close(descriptor)


def _sparse_header(entry: Entry, segments: list[Segment]) -> tuple[bytes, int]:
    """Return header and map of a PAX sparse 1.0 member, and the size of the data after the header.

    GNU tar, Go's archive/tar and Python's tarfile read this form.
    """
    before = map_block(segments)
    data = sum(segment.length for segment in segments)
    directory, slash, base = entry.name.rpartition(b"/")
    placeholder = entry._replace(
        name=directory + slash + b"GNUSparseFile.0/" + base, size=len(before) + data
    )
    pax = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": entry.name,
        b"GNU.sparse.realsize": b"%d" % entry.size,
    }
    return encode(placeholder, pax) + before, len(before) + data


def _with_attributes(record: Record, descriptor: int, names: list[str]) -> Entry:
    if record.refuse and record.refuse in names:
        raise NotNative(f"{record.entry.name!r} is a metacopy, its data lies below")
    xattrs = exported_xattrs(descriptor, names)
    if xattrs and record.ids is not None:
        xattrs = xattrs_to_container(xattrs, record.ids)
    return record.entry._replace(xattrs=xattrs)


def _open(record: Record) -> int:
    try:
        return os.open(record.name, _FLAGS, dir_fd=record.dir_fd)
    except OSError as error:
        error.filename = record.entry.name
        error.add_note("the file was there when the directory was listed; the diff ends here")
        raise


def _changed(name: bytes, how: str) -> OSError:
    return OSError(
        errno.EIO,
        f"the file changed while the diff read it: {how}; stop its writers and diff again",
        name,
    )
