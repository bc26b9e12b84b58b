"""The stream that `Driver.diff` returns.

It creates the archive while it is read, holds the resources of the archive (mounts, descriptors)
until it is closed, and stores an error: a further read raises it again instead of returning the
end.
"""

import errno
import io
import os
import threading
from collections.abc import Callable, Generator, Iterator
from copy import copy
from typing import BinaryIO, cast

from graphdriver.archive.writer import FileData, Record, pack

__all__ = ["DiffStream", "open_stream"]


def open_stream(records: Iterator[Record], release: Callable[[], None] = lambda: None) -> BinaryIO:
    """Return the archive of `records` as a stream; `release` runs once, when it is closed."""
    return cast(BinaryIO, DiffStream(pack(records), records, release))


class DiffStream(io.RawIOBase):
    """Reads the chunks of `pack`; bytes of large files are read directly into the reader's
    buffer.
    """

    def __init__(
        self,
        chunks: Iterator[bytes | FileData],
        records: Iterator[Record],
        release: Callable[[], None],
    ) -> None:
        super().__init__()
        self._chunks = chunks
        self._records = records
        self._release: Callable[[], None] | None = release
        self._bytes = memoryview(b"")
        self._file: FileData | None = None
        self._failed: BaseException | None = None
        # Another thread that closes the stream waits for the end of a read.
        self._lock = threading.RLock()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from the next chunk; 0 at the end. Raises what reading a file raised."""
        with self._lock:
            if not self._advance():
                return 0
            view = memoryview(buffer).cast("B")
            if self._file:
                return self._took(
                    os.preadv(self._file.descriptor, [view[: self._file.length]], self._file.offset)
                )
            count = min(len(view), len(self._bytes))
            view[:count] = self._bytes[:count]
            self._bytes = self._bytes[count:]
            return count

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, or everything; b"" at the end."""
        if size is None or size < 0:
            return self.readall()
        with self._lock:
            if not size or not self._advance():
                return b""
            if self._file:
                count = min(size, self._file.length)
                data = os.pread(self._file.descriptor, count, self._file.offset)
                self._took(len(data))
                return data
            data = bytes(self._bytes[:size])
            self._bytes = self._bytes[size:]
            return data

    def close(self) -> None:
        """Release everything the archive was made of; early, twice or amid a read is no error."""
        with self._lock:
            if not self.closed:
                self._close()

    def _close(self) -> None:
        release, self._release = self._release, None
        try:
            # An unfinished generator holds descriptors; closing it runs its `finally`.
            for generator in (self._chunks, self._records):
                if isinstance(generator, Generator):
                    generator.close()
        finally:
            super().close()
            if release:
                release()

    def _advance(self) -> bool:
        """Ensure that there are bytes to return; False at the end."""
        if self.closed:
            raise ValueError("read of a closed diff")
        if self._failed:
            raise _untraced(self._failed)
        while not self._bytes and not self._file:
            try:
                chunk = next(self._chunks, None)
            except BaseException as error:
                self._failed = _untraced(error)
                raise
            if chunk is None:
                return False
            if isinstance(chunk, FileData):
                self._file = chunk if chunk.length else None
            else:
                self._bytes = memoryview(chunk)
        return True

    def _took(self, count: int) -> int:
        """Record that `count` bytes of the current file were returned."""
        assert self._file
        if not count:
            self._failed = self._file.changed(0)
            raise self._file.changed(0)
        left = self._file.length - count
        self._file = (
            self._file._replace(offset=self._file.offset + count, length=left) if left else None
        )
        return count


def _untraced(error: BaseException) -> BaseException:
    """Return a copy of `error` without its traceback.

    A traceback would reference the frames, and these the stream: a cycle that only the garbage
    collector ends. It may run at any point, also in a thread that holds the lock which closing
    needs.
    """
    try:
        made = copy(error)
    except Exception:  # an exception that cannot be created from its arguments
        made = OSError(errno.EIO, f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", ()):
        if note not in getattr(made, "__notes__", ()):
            made.add_note(note)
    return made
