"""Request bodies as streams that cannot end early without saying so.

`http.server` leaves bodies to its user and knows no chunked ones. A client that dies in the middle
must not look like one that was done: Docker's retries resend a half-consumed archive, and half an
archive that looks whole is a layer with files missing.
"""

import io

__all__ = ["Body", "ChunkedBody", "SizedBody", "TruncatedBody"]

# A chunk header is a hexadecimal size and rarely an extension; longer is not HTTP.
_LONGEST_LINE = 4096


class TruncatedBody(OSError):
    """The connection ended, or stopped making sense, before the body did."""


class Body(io.RawIOBase):
    """A request body; `drain` reads what the verb left, so that the connection can go on."""

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
        # Past the connection's own buffer, without a copy.
        count = self._source.readinto(memoryview(buffer)[:wanted])
        if count < wanted:
            raise TruncatedBody(f"the request body lacks {self._left - count} bytes")
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
        # Past the connection's own buffer, without a copy.
        count = self._source.readinto(memoryview(buffer)[:wanted])
        if count < wanted:
            raise TruncatedBody("the request body ended inside a chunk")
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
