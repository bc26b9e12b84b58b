"""HTTP/1.1 on a unix socket, one thread a connection, archives streamed both ways.

Errors are status 500 with `{"Err": text}`, which every Docker accepts for every verb; for Diff it
is the only possible one, because a 200 starts an archive. A failure within an archive closes the
connection without the last chunk, so that a partial archive never looks complete.
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
_CHUNK_SIZE = 1 << 20
# No verb's JSON is nearly as large; an archive is not read into memory.
_LARGEST_JSON = 1 << 20
# The time for running calls to end when the server is stopped, in seconds.
_GRACE = 10.0

_log = logging.getLogger(__name__)


class PluginServer(ThreadingMixIn, UnixStreamServer):
    """Serves `calls` on `path` until `shutdown`.

    Raises OSError if another server still listens there; a stale socket of a killed server is
    replaced.
    """

    daemon_threads = True
    # Docker opens a connection for each concurrent call; the default of 5 drops some.
    request_queue_size = 128

    def __init__(self, path: Path, calls: Calls) -> None:
        _forget_dead_socket(path)
        self.calls = calls
        self._path = path
        self._running = 0
        self._calling = threading.Condition()
        # A process that can write to the socket is effectively root. The umask is set only around
        # bind(2), which creates the file, before this process has other threads.
        mask = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        finally:
            os.umask(mask)

    def server_close(self) -> None:
        """Stop listening, remove the socket, and let running calls end.

        A client that does not read its archive is not awaited for longer than `_GRACE` seconds, and
        idle connections are not awaited.
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
        """Log the error of a connection; the server continues."""
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
            # The start of the next request is unknown.
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
        while chunk := body.read(_CHUNK_SIZE):
            data += chunk
            if len(data) > _LARGEST_JSON:
                raise BadRequest(f"more than {_LARGEST_JSON} bytes of JSON")
        try:
            # Plugin.Activate has no body.
            parsed = json.loads(bytes(data) or b"{}")
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"not JSON: {error}") from None
        if parsed is not None and not isinstance(parsed, dict):
            raise BadRequest("the body is not a JSON object")
        return parsed or {}

    def _stream(self, request: dict[str, Any]) -> None:
        try:
            with self.server.calls.diff(request) as archive:
                # Read before the status is sent: an early failure is a clean 500.
                chunk = archive.read(_CHUNK_SIZE)
                self._begin_archive()
                while chunk:
                    self._send_all(b"%x\r\n" % len(chunk), chunk, b"\r\n")
                    chunk = archive.read(_CHUNK_SIZE)
            # The archive is closed by now: a client that has read its end may remove the layer.
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

    def _send_all(self, *buffers: bytes) -> None:
        for buffer in buffers:
            self.connection.sendall(buffer)

    def _send_json(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._send_all(data)

    def _fail(self, status: HTTPStatus, error: Exception, body: Body | None) -> None:
        """Answer with an error, after the rest of the request was read.

        If the connection were closed instead, Docker would resend the rest of the archive.
        """
        try:
            if body is not None:
                body.drain()
        except OSError:
            self.close_connection = True
        self._send_json(status, {"Err": str(error) or type(error).__name__})

    def address_string(self) -> str:
        """Return the client's name for the log; a unix socket's has no address."""
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        """Send the output of http.server to the log instead."""
        _log.debug(format, *args)


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
