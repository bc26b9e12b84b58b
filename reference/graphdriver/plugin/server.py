"""HTTP/1.1 on a unix socket, one thread a connection, archives streamed both ways.

Errors are status 500 with `{"Err": text}`, a form every Docker accepts for every verb; for Diff it
is the only one, because a 200 begins an archive. A failure in the middle of an archive breaks the
connection without the last chunk, so that half an archive never looks whole.
"""

import errno
import json
import logging
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, urlsplit

from graphdriver.errors import DriverError
from graphdriver.plugin.bodies import Body, ChunkedBody, SizedBody, TruncatedBody
from graphdriver.plugin.calls import BadRequest, Calls

__all__ = ["PluginServer"]

_CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
# What is copied through stays in the processor's cache.
_PIECE = 1 << 18
# No verb's JSON comes near this; an archive is not read into memory.
_LARGEST_JSON = 1 << 20
# How long running calls may take to end when the server is stopped, in seconds.
_GRACE = 10.0

_log = logging.getLogger(__name__)


class PluginServer(ThreadingMixIn, UnixStreamServer):
    """Serves `calls` on `path` until `shutdown`.

    Raises OSError when another server still listens there; a socket that nobody listens on, left by
    a killed one, is replaced.
    """

    daemon_threads = True
    # Docker opens a connection for each call that overlaps another; the default of 5 drops some.
    request_queue_size = 128

    def __init__(self, path: Path, calls: Calls) -> None:
        _forget_dead_socket(path)
        self.calls = calls
        self._path = path
        self._running = 0
        self._calling = threading.Condition()
        # Whoever can write to the socket is root in all but name. The mask is set only around
        # bind(2), which makes the file, before any thread of ours runs.
        mask = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        finally:
            os.umask(mask)

    def server_close(self) -> None:
        """Stop listening, take the socket's name away, and let running calls end.

        A client that does not read its archive is not waited for longer than `_GRACE` seconds, and
        idle connections are not waited for.
        """
        super().server_close()
        self._path.unlink(missing_ok=True)
        with self._calling:
            self._calling.wait_for(lambda: not self._running, _GRACE)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the block as a running call."""
        with self._calling:
            self._running += 1
        try:
            yield
        finally:
            with self._calling:
                self._running -= 1
                self._calling.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what broke a connection; the server goes on."""
        _log.info("connection ended", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PluginServer
    # Unbuffered, a chunk of 1 MiB is one send; buffered, it would be copied first.
    wbufsize = 0

    def do_POST(self) -> None:
        """Answer one call."""
        with self.server.running():
            self._call()

    def _call(self) -> None:
        self._in_archive = False
        try:
            body = self._body()
        except BadRequest as error:
            # Where the next request begins cannot be told.
            self.close_connection = True
            self._fail(HTTPStatus.BAD_REQUEST, error, None)
            return
        try:
            self._answer(body)
        except BadRequest as error:
            self._fail(HTTPStatus.BAD_REQUEST, error, body)
        except TruncatedBody as error:
            self.close_connection = True
            self._fail(HTTPStatus.BAD_REQUEST, error, None)
        except Exception as error:
            if not isinstance(error, DriverError | OSError):
                _log.exception("%s failed", self.path)
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, error, body)

    def _answer(self, body: Body) -> None:
        calls, url = self.server.calls, urlsplit(self.path)
        method = url.path.removeprefix("/")
        if method == "GraphDriver.ApplyDiff":
            query = parse_qs(url.query, keep_blank_values=True)
            layer, parent = query.get("id", [""])[0], query.get("parent", [""])[0]
            answer = calls.apply_diff(layer, parent, cast(BinaryIO, body))
            body.drain()
            self._send_json(HTTPStatus.OK, answer)
        elif method == "GraphDriver.Diff":
            self._stream(self._json(body))
        elif method in calls.json:
            self._send_json(HTTPStatus.OK, calls.json[method](self._json(body)))
        else:
            body.drain()
            self._send_json(HTTPStatus.NOT_FOUND, {"Err": f"no such call: {method}"})

    def _body(self) -> Body:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return ChunkedBody(self.rfile)
        lengths = {length.strip() for length in self.headers.get_all("Content-Length", ["0"])}
        length = lengths.pop()
        if lengths or not re.fullmatch("[0-9]{1,18}", length):
            raise BadRequest(f"Content-Length {length:.40} is not one number")
        return SizedBody(self.rfile, int(length))

    def _json(self, body: Body) -> dict[str, Any]:
        data = bytearray()
        while piece := body.read(_PIECE):
            data += piece
            if len(data) > _LARGEST_JSON:
                raise BadRequest(f"more than {_LARGEST_JSON} bytes of JSON")
        try:
            # Plugin.Activate comes with no body at all.
            parsed = json.loads(bytes(data) or b"{}")
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"not JSON: {error}") from None
        if parsed is not None and not isinstance(parsed, dict):
            raise BadRequest("the body is not a JSON object")
        return parsed or {}

    def _stream(self, request: dict[str, Any]) -> None:
        try:
            with self.server.calls.diff(request) as archive:
                # Read before the status is sent: what fails early is a clean 500.
                room = memoryview(bytearray(_PIECE))
                count = _read_into(archive, room)
                self._begin_archive()
                while count:
                    self._send_all(b"%x\r\n" % count, room[:count], b"\r\n")
                    count = _read_into(archive, room)
            # The archive is closed by now: who has seen its end may remove the layer.
            self._send_all(b"0\r\n\r\n")
        except Exception:
            if not self._in_archive:
                raise
            self.close_connection = True
            _log.warning("diff %s broke off", request, exc_info=True)

    def _begin_archive(self) -> None:
        self._in_archive = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_all(self, *pieces: bytes | memoryview) -> None:
        """Send the pieces, nearly always with one system call."""
        sent = self.connection.sendmsg(pieces)
        for piece in pieces:
            if sent < len(piece):
                self.connection.sendall(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def _send_json(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._send_all(data)

    def _fail(self, status: HTTPStatus, error: Exception, body: Body | None) -> None:
        """Answer with an error, after the rest of the request was read.

        Dropping the connection instead would make Docker send again what is left of the archive.
        """
        try:
            if body is not None:
                body.drain()
        except OSError:
            self.close_connection = True
        self._send_json(status, {"Err": str(error) or type(error).__name__})

    def address_string(self) -> str:
        """Return what the log calls the client; a unix socket's has no address."""
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        """Send what http.server prints to the log instead."""
        _log.debug(format, *args)


def _read_into(archive: BinaryIO, room: memoryview) -> int:
    """Read into `room`; return how much, 0 at the end. A driver's stream may have no readinto."""
    if (readinto := getattr(archive, "readinto", None)) is not None:
        return int(readinto(room) or 0)
    piece = archive.read(len(room))
    room[: len(piece)] = piece
    return len(piece)


def _forget_dead_socket(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket; choose another path", str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "a server listens there already", str(path))
