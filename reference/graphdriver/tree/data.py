"""The data of a file: its segments, and copying them to another file."""

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from graphdriver.linux.files import ficlone

__all__ = ["Segment", "copy_data", "data_segments", "write_all"]


class Segment(NamedTuple):
    """`length` bytes of data at `offset`; segments are separated by holes."""

    offset: int
    length: int


def data_segments(descriptor: int, size: int) -> Iterator[Segment]:
    """Yield the segments of a file (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # the rest is a hole
                return
            raise
        if start >= size:
            return
        position = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield Segment(start, position - start)


def copy_data(source: int, target: int, size: int) -> None:
    """Copy a file of `size` bytes to an empty one, sharing blocks or keeping holes."""
    try:
        ficlone(target, source)
        return
    except OSError:
        pass  # another file system, or one without shared blocks
    for offset, length in data_segments(source, size):
        position, end = offset, offset + length
        while position < end:
            count = os.copy_file_range(source, target, end - position, position, position)
            if not count:
                raise OSError(errno.EIO, "the file got shorter while it was copied")
            position += count
    os.ftruncate(target, size)


def write_all(target: int, chunk: bytes | memoryview) -> None:
    """Write all of `chunk`: on a nearly full disk, write(2) writes and reports a part."""
    written = os.write(target, chunk)
    while written < len(chunk):
        chunk = chunk[written:]
        written = os.write(target, chunk)
