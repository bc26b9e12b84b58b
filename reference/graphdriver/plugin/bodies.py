"""Request bodies as streams that report an early end.

`http.server` does not read bodies and does not support chunks. An interrupted body must not look
complete: Docker's retries resend a half-consumed archive, and half an archive that looks complete
is a layer with missing files.
"""

import io

__all__ = ["Body", "ChunkedBody", "SizedBody", "TruncatedBody"]

# A chunk header is a hexadecimal size and rarely an extension; a longer one is not HTTP.
_LONGEST_LINE = 4096


class TruncatedBody(OSError):
    """The connection ended, or became invalid, before the end of the body."""


class Body(io.RawIOBase):
    """A request body; `drain` reads the rest after a verb, so that the connection can be reused."""

    def readable(self) -> bool:
        """Return True: a body is there to be read."""
        return True

    def drain(self) -> None:
        """Read and drop the rest."""
        while self.read(1 << 16):
            pass


class SizedBody(Body):
    """A body of `Content-Length` bytes."""

    def __init__(self, source: io.BufferedIOBase, length: int) -> None:
        super().__init__()
        self._source = source
        self._left = length

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into `buffer`; 0 at the end. Raises TruncatedBody."""
        wanted = min(len(buffer), self._left)
        if not wanted:
            return 0
        data = self._source.read(wanted)
        if len(data) < wanted:
            raise TruncatedBody(f"the request body lacks {self._left - len(data)} bytes")
        buffer[:wanted] = data
        self._left -= wanted
        return wanted


class ChunkedBody(Body):
    """A body in chunks (RFC 9112, 7.1), as Docker sends the archive of ApplyDiff."""

    def __init__(self, source: io.BufferedIOBase) -> None:
        super().__init__()
        self._source = source
        self._left = 0
        self._done = False

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into `buffer`; 0 after the last chunk. Raises TruncatedBody."""
        if not self._left and not self._done:
            self._next_chunk()
        wanted = min(len(buffer), self._left)
        if not wanted:
            return 0
        data = self._source.read(wanted)
        if len(data) < wanted:
            raise TruncatedBody("the request body ended inside a chunk")
        buffer[:wanted] = data
        self._left -= wanted
        if not self._left:
            self._end_of_chunk()
        return wanted

    def _next_chunk(self) -> None:
        line = self._source.readline(_LONGEST_LINE)
        try:
            size = int(line.partition(b";")[0].strip(), 16)
        except ValueError:
            raise TruncatedBody(f"expected the size of a chunk, found {line[:40]!r}") from None
        if size < 0 or not line.endswith(b"\n"):
            raise TruncatedBody(f"expected the size of a chunk, found {line[:40]!r}")
        self._left = size
        if not size:
            self._skip_trailers()
            self._done = True

    def _end_of_chunk(self) -> None:
        if self._source.readline(_LONGEST_LINE) not in (b"\r\n", b"\n"):
            raise TruncatedBody("a chunk does not end where its size says")

    def _skip_trailers(self) -> None:
        while (line := self._source.readline(_LONGEST_LINE)) not in (b"\r\n", b"\n"):
            if not line:
                raise TruncatedBody("the request body ended before its last line")
