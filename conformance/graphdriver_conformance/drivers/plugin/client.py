"""HTTP on a plugin's unix socket, as Docker's client speaks it, with an end to every wait.

The requests are Docker's to the letter (daemon/graphdriver/proxy.go and pkg/plugins of 1.12 to
20.10): POST, the Accept header of v1.2, no Content-Type. Unlike Docker's client this one never
sends a body twice, so a plugin that drops a connection is seen to do so.
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
from graphdriver_conformance.drivers import Fate, NoAnswer, deadline

__all__ = ["ACCEPT", "BodyBroke", "Connection", "PluginUnreachable", "Wire"]

ACCEPT = "application/vnd.docker.plugins.v1.2+json"
_PIECE = 1 << 20
# The changes of a million paths; more is no answer.
_LARGEST_ANSWER = 256 << 20
# How long a plugin may take, in seconds, to see that its answer is not wanted any more.
_HANGING_UP = 5.0


class PluginUnreachable(NoAnswer):
    """The plugin did not answer, or not in its time; the message names the call."""

    def __init__(self, *arguments: object, fate: Fate = Fate.BROKE_OFF) -> None:
        super().__init__(*arguments)
        self.fate = fate


class BodyBroke(Exception):
    """What a request was to carry could not be read; `__cause__` says why."""


class _PatientSocket(socket.socket):
    """A socket whose waits add up: what is left of them is `patience`, in seconds.

    A timeout for each recv(2) would let a plugin that sends a byte a minute go on for ever.
    """

    patience = 0.0

    def recv_into(self, *arguments: Any) -> int:
        self._expect_more()
        begun = time.monotonic()
        try:
            return super().recv_into(*arguments)
        finally:
            self.patience -= time.monotonic() - begun

    def sendall(self, *arguments: Any) -> None:
        self._expect_more()
        begun = time.monotonic()
        try:
            super().sendall(*arguments)
        finally:
            self.patience -= time.monotonic() - begun

    def _expect_more(self) -> None:
        if self.patience <= 0:
            raise TimeoutError("the call's time is used up")
        self.settimeout(self.patience)


class Connection(http.client.HTTPConnection):
    """HTTP over the unix socket `path`; Host is a dummy, as Docker's is."""

    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("plugin.moby.localhost")
        self._path = path
        self._patience = patience
        # http.client lets go of its socket when an answer is the last one; the answer still has it.
        self._made: _PatientSocket | None = None
        self.is_spent = False
        """Whether a request broke off on it, so that no other may follow."""

    def connect(self) -> None:
        """Connect; the kernel makes it wait while the plugin's backlog is full."""
        made = _PatientSocket(socket.AF_UNIX)
        made.patience = self._patience
        made.settimeout(self._patience)
        self.sock: socket.socket = made
        self._made = made
        made.connect(os.fspath(self._path))

    def renew(self, patience: float) -> None:
        """Give the next call its time."""
        self._patience = patience
        if isinstance(self.sock, _PatientSocket):
            self.sock.patience = patience

    def hang_up(self) -> bool:
        """End a call before its answer has ended; say whether the plugin hung up, too, in time.

        Once it has, it has released what the answer held. Only our reading end is shut before
        that: a whole end would look like both at once.
        """
        made = self._made
        if made is None or made.fileno() < 0:
            return True
        with contextlib.suppress(OSError):
            made.shutdown(socket.SHUT_RD)
            # What it has sent is read: a writer that waits for room would not hear of it otherwise.
            while made.recv(_PIECE):
                pass
        poll = select.poll()
        poll.register(made, 0)
        hung_up = bool(poll.poll(1000 * min(self._patience, _HANGING_UP)))
        self.close()
        return hung_up

    def is_stale(self) -> bool:
        """Say whether the plugin has closed its end, or said something that nobody asked for."""
        return self.sock is None or bool(select.select([self.sock], [], [], 0)[0])


class Wire:
    """The calls of one plugin. Safe to use from several threads: each call has a connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[Connection] = []
        self.turn = threading.RLock()
        self.served: object = None
        """Whose Init was the last; to be read and set by who holds `turn`."""
        self.failed = False
        """Whether a call did not get an answer: what comes next may not be the plugin's fault."""

    def call(self, method: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        """Post JSON (nothing, where `body` is None) and return the JSON of the answer.

        Raises DriverError for what the plugin refuses or answers wrongly, PluginUnreachable.
        """
        data = b"" if body is None else json.dumps(body).encode()
        connection, response = self.post(method, data)
        return self.answer(method, connection, response)

    def post(
        self, path: str, body: bytes | Iterator[bytes], last: bool = False
    ) -> tuple[Connection, http.client.HTTPResponse]:
        """Send a request, an iterator in chunks, and return when the answer has begun.

        The `last` request of a connection is followed by the plugin's hanging up.
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
                # A plugin may refuse before it has read everything, and hang up; what it said
                # is still in our end of the socket.
                connection.is_spent = True
            return connection, connection.getresponse()

    def answer(
        self, method: str, connection: Connection, response: http.client.HTTPResponse
    ) -> dict[str, Any]:
        """Read an answer to its end and return its JSON. Raises as `call`."""
        data = bytearray()
        with self._reaching(method, connection):
            while piece := response.read(_PIECE):
                data += piece
                if len(data) > _LARGEST_ANSWER:
                    raise http.client.HTTPException(f"more than {_LARGEST_ANSWER >> 20} MiB")
        self.done(connection, response)
        if response.status != 200:
            raise DriverError(_refusal(method, response.status, bytes(data)))
        return _object(method, bytes(data))

    def refuse(
        self, method: str, connection: Connection, response: http.client.HTTPResponse
    ) -> str:
        """Return what an answer that is no 200 says. Raises PluginUnreachable."""
        with self._reaching(method, connection):
            data = response.read(_PIECE)
        connection.close()
        return _refusal(method, response.status, data)

    def done(self, connection: Connection, response: http.client.HTTPResponse) -> None:
        """Keep a connection for the next call where the plugin keeps it, too."""
        if response.will_close or connection.is_spent or not response.isclosed():
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close what is kept open."""
        while self._idle:
            self._idle.pop().close()

    def unreachable(self, method: str, error: Exception) -> PluginUnreachable:
        """Return the error that says what became of a call."""
        self.failed = True
        if isinstance(error, TimeoutError):
            return PluginUnreachable(
                errno.ETIMEDOUT,
                f"{method}: no answer within {deadline():g} s",
                str(self.path),
                fate=Fate.HUNG,
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
        """Return the process that listens, 0 when it cannot be seen from here."""
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
        """Turn what goes wrong on the way into PluginUnreachable, and hang up."""
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
