"""A proxy between the suite and a correct plugin, in which a mutant can change each call.

`python -m graphdriver_mutants.wire_server NAME` starts the correct plugin, which is
`graphdriver serve`, listens on $GRAPHDRIVER_SOCKET and forwards every request, archives in pieces.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, ClassVar, cast

from graphdriver_conformance.drivers import deadline
from graphdriver_conformance.drivers.plugin.client import Connection
from graphdriver_mutants.registry import Broken

__all__ = ["Answer", "Request", "Truncated", "WireMutant", "main"]

_PIECE = 1 << 20
_TYPE = "application/vnd.docker.plugins.v1.2+json"


class Truncated(Exception):
    """The client's body ended before its end."""


@dataclass
class Request:
    """A call: its name, its query, and its body, which for ApplyDiff comes in pieces."""

    call: str
    query: str
    headers: dict[str, str]
    pieces: Iterator[bytes]
    data: bytes = b""

    @property
    def body(self) -> dict[str, Any]:
        """The JSON; empty where it is none."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.data or b"{}")
            if isinstance(found, dict):
                return found
        return {}

    def with_body(self, **changes: object) -> "Request":
        """Return it with some fields replaced."""
        return Request(
            self.call, self.query, self.headers, self.pieces,
            json.dumps({**self.body, **changes}).encode(),
        )  # fmt: skip


@dataclass
class Answer:
    """A status and JSON, or an archive in pieces."""

    status: int = 200
    data: bytes = b"{}"
    pieces: Iterator[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON; empty where it is none."""
        try:
            return dict(json.loads(self.data))
        except (ValueError, TypeError):
            return {}

    @classmethod
    def of(cls, status: int = 200, **body: object) -> "Answer":
        """Return an answer in JSON."""
        return cls(status, json.dumps(body).encode())


class WireMutant(Broken):
    """Forwards every call to a correct plugin; subclasses break one thing."""

    wrapped_name: ClassVar[str] = "overlay2"

    def __init__(self, wrapped: Path) -> None:
        self.wrapped = wrapped

    @classmethod
    def spec(cls) -> str:
        """Return the SPEC that starts it."""
        return f"plugin+exec:python -m {__name__} {cls.__name__}"

    @classmethod
    def prepare(cls) -> None:
        """Do something in the plugin's process before it listens."""

    def answer(self, request: Request) -> Answer:
        """Answer a call, by default with the correct plugin's response."""
        return self.forward(request)

    def forward(self, request: Request) -> Answer:
        """Return the correct plugin's response."""
        connection = Connection(self.wrapped, deadline())
        path = f"/{request.call}{'?' + request.query if request.query else ''}"
        if "Transfer-Encoding" in request.headers or request.call == "GraphDriver.ApplyDiff":
            headers = {"Accept": _TYPE, "Transfer-Encoding": "chunked"}
            try:
                connection.request("POST", path, request.pieces, headers, encode_chunked=True)
            except Truncated:
                connection.sock.shutdown(socket.SHUT_WR)
        else:
            connection.request("POST", path, request.data, {"Accept": _TYPE})
        response = connection.getresponse()
        if request.call == "GraphDriver.Diff" and response.status == 200:
            return Answer(200, b"", _pieces_of(connection, response))
        with contextlib.closing(connection):
            return Answer(response.status, response.read())


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    mutant: WireMutant

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: some tests disconnect deliberately."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def do_POST(self) -> None:
        """Answer one call."""
        mutant = cast(_Server, self.server).mutant
        answer = mutant.answer(self._request())
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.headers.get("Connection") == "close":
            self.close_connection = True
        if answer.pieces is None:
            self.send_header("Content-Length", str(len(answer.data)))
            self.end_headers()
            self.connection.sendall(answer.data)
        else:
            self._send_archive(answer.pieces)

    def _send_archive(self, pieces: Iterator[bytes]) -> None:
        self.close_connection = True
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.closing(cast(Any, pieces)):
            for piece in pieces:
                self.connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.connection.sendall(b"0\r\n\r\n")

    def _request(self) -> Request:
        call, _, query = self.path.removeprefix("/").partition("?")
        headers = dict(self.headers)
        pieces = self._chunks() if "Transfer-Encoding" in headers else self._sized()
        if call == "GraphDriver.ApplyDiff":
            return Request(call, query, headers, pieces)
        headers.pop("Transfer-Encoding", None)
        return Request(call, query, headers, iter(()), b"".join(pieces))

    def _sized(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                raise Truncated
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                size = int(self.rfile.readline().partition(b";")[0], 16)
            except ValueError:
                raise Truncated from None
            piece = self.rfile.read(size)
            if len(piece) < size or self.rfile.readline() != b"\r\n":
                raise Truncated
            if not size:
                return
            yield piece

    def address_string(self) -> str:
        """Return the name of the client for the log: a unix socket has no peer address."""
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _pieces_of(connection: Connection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    has_ended = False
    try:
        while piece := response.read1(_PIECE):
            yield piece
        has_ended = True
    finally:
        # A client that disconnects waits for the end of the connection; no hold may be left then.
        if not has_ended:
            connection.hang_up()
        # Close both: the response keeps the socket open too.
        response.close()
        connection.close()


def main(name: str) -> None:
    """Serve the mutant `name` until SIGTERM."""
    from graphdriver_mutants import MUTANTS

    kind = cast(type[WireMutant], MUTANTS[name])
    kind.prepare()
    # Beside the socket of the proxy: the suite removes both, also after a kill.
    inner = Path(os.environ["GRAPHDRIVER_SOCKET"]).with_name("correct.sock")
    command = [sys.executable, "-m", "graphdriver_conformance", "serve", kind.wrapped_name]
    with subprocess.Popen([*command, "--socket", str(inner)]) as process:
        try:
            while process.poll() is None and not inner.exists():
                time.sleep(0.005)
            with _Server(os.environ["GRAPHDRIVER_SOCKET"], _Handler) as server:
                server.mutant = kind(inner)
                signal.signal(
                    signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start()
                )
                server.serve_forever(poll_interval=0.05)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    # Imported by name, because run as __main__ the module would define a second WireMutant.
    from graphdriver_mutants import wire_server

    wire_server.main(sys.argv[1])
