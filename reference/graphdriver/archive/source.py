"""A byte stream with a position, read in large chunks and returned in small ones.

Supports streams that return fewer bytes than requested (pipes, sockets) and reports an early end.
"""

import errno
import io
import os
from collections.abc import Callable
from typing import BinaryIO

from graphdriver.errors import BadArchive
from graphdriver.tree.data import write_all

__all__ = ["Source"]

_CHUNK_SIZE = 1 << 20
# Copied data of this size stays in the processor's cache.
_SCRATCH = 1 << 17
# Files of this size and above are copied by the kernel; between steps signals are handled.
_LARGE, _STEP = 1 << 20, 1 << 24
# Errors of sendfile(2) where the source or the target does not support it.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Source:
    """Reads `stream` through a buffer of one chunk."""

    __slots__ = ("_before", "_buffer", "_file", "_position", "_read", "_scratch", "readinto")

    def __init__(self, stream: BinaryIO) -> None:
        self._read: Callable[[int], bytes] = stream.read
        self.readinto: Callable[[memoryview], int] | None = getattr(stream, "readinto", None)
        self._buffer = b""
        self._position = 0
        self._scratch: memoryview | None = None
        self._before = 0  # position of the buffer's start in the stream
        self._file = _regular_file(stream)

    @property
    def offset(self) -> int:
        """The number of bytes returned so far: the position in the archive."""
        return self._before + self._position

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes, or fewer at the end of the stream."""
        end = self._position + count
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        return self._take_and_refill(count)

    def exactly(self, count: int, padding: int = 0) -> bytes:
        """Return `count` bytes and skip the `padding` after them.

        Raises BadArchive if the stream ends earlier.
        """
        position = self._position
        end = position + count
        if end + padding <= len(self._buffer):
            self._position = end + padding
            return self._buffer[position:end]
        data = self._take_and_refill(count + padding)
        if len(data) < count + padding:
            raise self.truncated(count + padding - len(data))
        return data[:count]

    def unread(self, data: bytes) -> None:
        """Undo the last take, which returned `data`."""
        self._before += self._position - len(data)
        self._buffer = data + self._buffer[self._position :]
        self._position = 0

    def copy(self, count: int, target: int) -> None:
        """Write `count` bytes to the descriptor `target`. Raises BadArchive, OSError."""
        while count:
            ready = len(self._buffer) - self._position
            if ready:
                start, self._position = self._position, self._position + min(count, ready)
                chunk: bytes | memoryview = self._buffer[start : self._position]
            elif self._file and count >= _LARGE and (sent := self._send(count, target)):
                count -= sent
                continue
            else:
                chunk = self._next_chunk(count)
                self._before += len(chunk)
            if not chunk:
                raise self.truncated(count)
            write_all(target, chunk)
            count -= len(chunk)

    def skip(self, count: int) -> None:
        """Read and skip `count` bytes. Raises BadArchive."""
        while count:
            dropped = len(self.take(min(count, _CHUNK_SIZE)))
            if not dropped:
                raise self.truncated(count)
            count -= dropped

    def truncated(self, missing: int) -> BadArchive:
        """Return the error for a stream that lacks `missing` bytes."""
        return BadArchive(
            f"the archive ends at byte {self.offset}, {missing} bytes too early",
            "it was cut short on its way here; send it again",
        )

    def _next_chunk(self, count: int) -> memoryview:
        """Read up to a chunk into the buffer, without creating a bytes object for it."""
        if self.readinto is None:
            return memoryview(self._read(min(count, _CHUNK_SIZE)))
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_SCRATCH))
        room = self._scratch[: min(count, _SCRATCH)]
        return room[: self.readinto(room) or 0]

    def _send(self, count: int, target: int) -> int:
        """Copy with sendfile(2); return the bytes copied, 0 at the end or where it fails to start.

        On ext4 it takes nine tenths of the processor time of read(2) and write(2).
        """
        file = self._file
        assert file
        start = position = file.tell()
        end = start + count
        try:
            while position < end:
                step = min(end - position, _STEP)
                sent = os.sendfile(target, file.fileno(), position, step)
                if not sent:
                    break
                position += sent
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self._file = None
        file.seek(position)
        self._before += position - start
        return position - start

    def _take_and_refill(self, count: int) -> bytes:
        self._before += self._position
        parts = [self._buffer[self._position :]]
        have = len(parts[0])
        self._buffer, self._position = b"", 0
        while have < count:
            chunk = self._read(max(_CHUNK_SIZE, count - have))
            if not chunk:
                self._before += have
                return b"".join(parts)
            parts.append(chunk)
            have += len(chunk)
        self._buffer, self._position = b"".join(parts), count
        return self._buffer[:count]


def _regular_file(stream: BinaryIO) -> io.BufferedReader | io.FileIO | None:
    """Return the stream if it is a seekable file, None for all others.

    A derived class may change the bytes that it reads, so only the two standard classes count.
    """
    raw = stream.raw if type(stream) is io.BufferedReader else stream
    if type(raw) is not io.FileIO or not raw.seekable():
        return None
    return stream if isinstance(stream, io.BufferedReader) else raw
