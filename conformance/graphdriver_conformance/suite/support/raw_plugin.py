"""Unusual and malformed requests to a plugin, for the requirements WIR."""

import http.client
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphdriver.contract import Driver
from graphdriver_conformance.drivers import deadline
from graphdriver_conformance.drivers.plugin.client import ACCEPT, Connection
from graphdriver_conformance.drivers.plugin.driver import PluginDriver
from graphdriver_conformance.fixture.program import Program
from graphdriver_conformance.fixture.subject import inner

__all__ = ["Raw", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The response of a plugin."""

    status: int
    data: bytes

    @property
    def json(self) -> dict[str, Any] | None:
        """The JSON object, None if it is not one."""
        try:
            found = json.loads(self.data)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def is_success(self) -> bool:
        """Status 200 and a JSON object without an error."""
        return self.status == 200 and self.json is not None and not self.json.get("Err")

    def __str__(self) -> str:
        return f"status {self.status}, {self.data[:200]!r}"


class Raw:
    """The plugin of `driver`, for raw requests; `program` records them."""

    def __init__(self, driver: Driver, program: Program) -> None:
        plugin = inner(driver)
        assert isinstance(plugin, PluginDriver), "the driver is not a plugin"
        self._driver = plugin
        self._program = program
        self.path = plugin.wire.path

    def forget_init(self) -> None:
        """Let the next verb of the driver send its Init again, because the test has sent
        another.
        """
        self._driver.wire.served = None

    def connection(self) -> Connection:
        """Return a connection of its own; the caller closes it."""
        return Connection(self.path, deadline())

    def call(
        self, method: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Post `body`, JSON unless it is bytes, on a connection of its own."""
        connection = self.connection()
        try:
            return self.ask(connection, method, body, headers)
        finally:
            connection.close()

    def ask(
        self,
        connection: Connection,
        method: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Post on an existing connection."""
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        extra = f", headers={dict(headers)}" if headers else ""
        step = self._program.line(f"post({method!r}, {data[:100]!r}{extra})")
        connection.renew(deadline())
        try:
            connection.request("POST", f"/{method}", data, {"Accept": ACCEPT, **(headers or {})})
            response = connection.getresponse()
            reply = Reply(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise self._driver.unreachable(method, error) from error
        step.result = str(reply)
        return reply

    def half_sent(self, data: bytes) -> bytes:
        """Send bytes, then no more, and return the response until the plugin closes the
        connection.
        """
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(deadline())
            self._program.line(f"send({data[:60]!r}... {len(data)} bytes in all, no more)")
            made.connect(os.fspath(self.path))
            try:
                made.sendall(data)
                made.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has closed the connection already; its earlier output is still to be read
            answer = bytearray()
            try:
                while chunk := made.recv(1 << 16):
                    answer += chunk
            except ConnectionResetError:
                pass
            return bytes(answer)
