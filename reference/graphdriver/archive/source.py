"""A byte stream with a position, read in large chunks and returned in small ones.

Supports streams that return fewer bytes than requested (pipes, sockets) and reports an early end.
"""

from collections.abc import Callable
from typing import BinaryIO

from graphdriver.errors import BadArchive
from graphdriver.tree.data import write_all

__all__ = ["Source"]

_PIECE = 1 << 20
# Copied data of this size stays in the processor's cache.
_SCRATCH = 1 << 17


class Source:
    """Reads `stream` through a buffer of one chunk."""

    __slots__ = ("_before", "_buffer", "_position", "_read", "_scratch", "readinto")

    def __init__(self, stream: BinaryIO) -> None:
        self._read: Callable[[int], bytes] = stream.read
        self.readinto: Callable[[memoryview], int] | None = getattr(stream, "readinto", None)
        self._buffer = b""
        self._position = 0
        self._scratch: memoryview | None = None
        self._before = 0  # position of the buffer's start in the stream

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
        return self._take_across(count)

    def exactly(self, count: int, padding: int = 0) -> bytes:
        """Return `count` bytes and skip the `padding` after them.

        Raises BadArchive if the stream ends earlier.
        """
        position = self._position
        end = position + count
        if end + padding <= len(self._buffer):
            self._position = end + padding
            return self._buffer[position:end]
        data = self._take_across(count + padding)
        if len(data) < count + padding:
            raise self.truncated(count + padding - len(data))
        return data[:count]

    def give_back(self, data: bytes) -> None:
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
                piece: bytes | memoryview = self._buffer[start : self._position]
            else:
                piece = self._piece(count)
                self._before += len(piece)
            if not piece:
                raise self.truncated(count)
            write_all(target, piece)
            count -= len(piece)

    def skip(self, count: int) -> None:
        """Read and skip `count` bytes. Raises BadArchive."""
        while count:
            dropped = len(self.take(min(count, _PIECE)))
            if not dropped:
                raise self.truncated(count)
            count -= dropped

    def truncated(self, missing: int) -> BadArchive:
        """Return the error for a stream that lacks `missing` bytes."""
        return BadArchive(
            f"the archive ends at byte {self.offset}, {missing} bytes too early",
            "it was cut short on its way here; send it again",
        )

    def _piece(self, count: int) -> memoryview:
        """Read up to a chunk into the buffer, without creating a bytes object for it."""
        if self.readinto is None:
            return memoryview(self._read(min(count, _PIECE)))
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_SCRATCH))
        room = self._scratch[: min(count, _SCRATCH)]
        return room[: self.readinto(room) or 0]

    def _take_across(self, count: int) -> bytes:
        self._before += self._position
        parts = [self._buffer[self._position :]]
        have = len(parts[0])
        self._buffer, self._position = b"", 0
        while have < count:
            piece = self._read(max(_PIECE, count - have))
            if not piece:
                self._before += have
                return b"".join(parts)
            parts.append(piece)
            have += len(piece)
        self._buffer, self._position = b"".join(parts), count
        return self._buffer[:count]
