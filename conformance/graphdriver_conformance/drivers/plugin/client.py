"""HTTP on a plugin's unix socket, as in Docker's client, with a deadline for every wait.

The requests are identical to Docker's (daemon/graphdriver/proxy.go and pkg/plugins of 1.12 to
20.10): POST, the Accept header of v1.2, no Content-Type. Unlike Docker's client this one never
sends a body twice, so that a dropped connection is detected.
"""

import contextlib
import errno
import http.client
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphdriver.errors import DriverError
from graphdriver_conformance.drivers import Cause, NoAnswer, deadline

__all__ = ["ACCEPT", "BodyBroke", "Connection", "PluginUnreachable", "Wire"]

ACCEPT = "application/vnd.docker.plugins.v1.2+json"
_CHUNK_SIZE = 1 << 20
# The changes of a million paths; a larger answer is refused.
_LARGEST_ANSWER = 256 << 20
# The number of seconds for a plugin to notice that its answer is no longer wanted.
_HANGING_UP = 5.0


class PluginUnreachable(NoAnswer):
    """The plugin did not answer within the deadline; the message names the call."""

    def __init__(self, *arguments: object, cause: Cause = Cause.BROKE_OFF) -> None:
        super().__init__(*arguments)
        self.cause = cause


class BodyBroke(Exception):
    """The body of a request could not be read; `__cause__` is the reason."""


class _DeadlineSocket(socket.socket):
    """A socket with one deadline for all waits: `timeout` is the rest, in seconds.

    With a timeout for each recv(2), a plugin that sends a byte a minute would never time out.
    """

    timeout = 0.0

    def recv_into(self, *arguments: Any) -> int:
        self._expect_more()
        begun = time.monotonic()
        try:
            return super().recv_into(*arguments)
        finally:
            self.timeout -= time.monotonic() - begun

    def sendall(self, *arguments: Any) -> None:
        self._expect_more()
        begun = time.monotonic()
        try:
            super().sendall(*arguments)
        finally:
            self.timeout -= time.monotonic() - begun

    def _expect_more(self) -> None:
        if self.timeout <= 0:
            raise TimeoutError("the call's time is used up")
        self.settimeout(self.timeout)


class Connection(http.client.HTTPConnection):
    """HTTP over the unix socket `path`; Host is a dummy, as Docker's is."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("plugin.moby.localhost")
        self._path = path
        self._timeout = timeout
        # http.client releases its socket at the last answer, which still uses it.
        self._made: _DeadlineSocket | None = None
        self.is_spent = False
        """Whether a request was interrupted on it, so that no other may follow."""

    def connect(self) -> None:
        """Connect; the kernel waits while the plugin's backlog is full."""
        made = _DeadlineSocket(socket.AF_UNIX)
        made.timeout = self._timeout
        made.settimeout(self._timeout)
        self.sock: socket.socket = made
        self._made = made
        made.connect(os.fspath(self._path))

    def renew(self, timeout: float) -> None:
        """Set the deadline of the next call."""
        self._timeout = timeout
        if isinstance(self.sock, _DeadlineSocket):
            self.sock.timeout = timeout

    def hang_up(self) -> bool:
        """End a call before the end of its answer; return whether the plugin closed the connection.

        After that it has released the resources of the answer. Before, only the reading side is
        closed: closing both would look the same to the plugin.
        """
        made = self._made
        if made is None or made.fileno() < 0:
            return True
        with contextlib.suppress(OSError):
            made.shutdown(socket.SHUT_RD)
            # Its data is read: otherwise a blocked writer would not notice the close.
            while made.recv(_CHUNK_SIZE):
                pass
        poll = select.poll()
        poll.register(made, 0)
        hung_up = bool(poll.poll(1000 * min(self._timeout, _HANGING_UP)))
        self.close()
        return hung_up

    def is_stale(self) -> bool:
        """Return whether the plugin has closed its end, or sent unexpected data."""
        return self.sock is None or bool(select.select([self.sock], [], [], 0)[0])


class Wire:
    """The calls of one plugin. Safe to use from several threads: each call has a connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[Connection] = []
        self.turn = threading.RLock()
        self.served: object = None
        """The driver of the last Init; read and set by the holder of `turn`."""
        self.failed = False
        """Whether a call was not answered: later errors may not be the plugin's fault."""

    def call(self, method: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        """Post JSON (no body if `body` is None) and return the JSON of the answer.

        Raises DriverError for refusals and malformed answers, PluginUnreachable.
        """
        data = b"" if body is None else json.dumps(body).encode()
        connection, response = self.post(method, data)
        return self.answer(method, connection, response)

    def post(
        self, path: str, body: bytes | Iterator[bytes], last: bool = False
    ) -> tuple[Connection, http.client.HTTPResponse]:
        """Send a request, an iterator in chunks, and return when the answer has begun.

        After the `last` request of a connection the plugin closes it.
        """
        method = path.partition("?")[0]
        chunked = not isinstance(body, bytes)
        headers = {"Accept": ACCEPT, **({"Transfer-Encoding": "chunked"} if chunked else {})}
        if last:
            headers["Connection"] = "close"
        connection = self._connection(method)
        with self._reaching(method, connection):
            try:
                connection.request("POST", f"/{path}", body, headers, encode_chunked=chunked)
            except (BrokenPipeError, ConnectionResetError):
                # A plugin may refuse before it has read everything, and close the connection; its
                # answer is still in the socket's buffer.
                connection.is_spent = True
            return connection, connection.getresponse()

    def answer(
        self, method: str, connection: Connection, response: http.client.HTTPResponse
    ) -> dict[str, Any]:
        """Read an answer to its end and return its JSON. Raises as `call`."""
        data = bytearray()
        with self._reaching(method, connection):
            while chunk := response.read(_CHUNK_SIZE):
                data += chunk
                if len(data) > _LARGEST_ANSWER:
                    raise http.client.HTTPException(f"more than {_LARGEST_ANSWER >> 20} MiB")
        self.done(connection, response)
        if response.status != 200:
            raise DriverError(_refusal(method, response.status, bytes(data)))
        return _object(method, bytes(data))

    def refuse(
        self, method: str, connection: Connection, response: http.client.HTTPResponse
    ) -> str:
        """Return the message of an answer other than 200. Raises PluginUnreachable."""
        with self._reaching(method, connection):
            data = response.read(_CHUNK_SIZE)
        connection.close()
        return _refusal(method, response.status, data)

    def done(self, connection: Connection, response: http.client.HTTPResponse) -> None:
        """Keep a connection for the next call if the plugin keeps it, too."""
        if response.will_close or connection.is_spent or not response.isclosed():
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that are kept open."""
        while self._idle:
            self._idle.pop().close()

    def unreachable(self, method: str, error: Exception) -> PluginUnreachable:
        """Return the error with the reason for a call without an answer."""
        self.failed = True
        if isinstance(error, TimeoutError):
            return PluginUnreachable(
                errno.ETIMEDOUT,
                f"{method}: no answer within {deadline():g} s",
                str(self.path),
                cause=Cause.HUNG,
            )
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return PluginUnreachable(
                error.errno, f"{method}: nothing listens there; start the plugin", str(self.path)
            )
        if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
            return PluginUnreachable(
                errno.EPROTO,
                f"{method}: the answer is not HTTP ({type(error).__name__}: {error})",
                str(self.path),
            )
        return PluginUnreachable(
            getattr(error, "errno", None) or errno.EPIPE,
            f"{method}: the plugin dropped the connection ({type(error).__name__}: {error})",
            str(self.path),
        )

    def listener(self) -> int:
        """Return the process that listens, 0 if it is not visible."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(deadline())
            probe.connect(os.fspath(self.path))
            row = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", row)[0])

    def _connection(self, method: str) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                connection.renew(deadline())
                return connection
            connection.close()
        return Connection(self.path, deadline())

    @contextmanager
    def _reaching(self, method: str, connection: Connection) -> Iterator[None]:
        """Turn transport errors into PluginUnreachable, and close the connection."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self.unreachable(method, error) from error
        except BaseException:
            connection.close()
            raise


def _object(method: str, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise DriverError(f"{method} answered with {data[:80]!r}", "answer with a JSON object")
    if answer.get("Err"):
        raise DriverError(str(answer["Err"]))
    return answer


def _refusal(method: str, status: int, data: bytes) -> str:
    try:
        text = json.loads(data)["Err"]
    except (ValueError, KeyError, TypeError, RecursionError):
        text = data.decode("utf-8", "replace").strip()
    return str(text or f"{method} answered with status {status} and no message")
