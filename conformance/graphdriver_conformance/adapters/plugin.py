"""A Docker graphdriver plugin as a `Driver`: JSON over HTTP on its unix socket.

The requests are Docker's to the letter (daemon/graphdriver/proxy.go of 1.12 to 20.10): POST, the
Accept header of v1.2, fields left out when empty. Unlike Docker's client this one never sends a
body twice, so a plugin that drops a connection is seen to do so, and every call has a deadline, so
a plugin that hangs is a failed call and not a hanging run.
"""

import errno
import http.client
import io
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from graphdriver.contract import Change, ChangeKind, Driver, IDMap
from graphdriver.errors import (
    DriverError,
    IncompatibleFS,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    MaxDepthExceeded,
    MountOptionsTooLong,
    NotSupported,
    QuotaNotSupported,
)
from graphdriver_conformance.drivers import DriverSource

__all__ = ["PluginDriver", "PluginUnreachable", "source"]

_ACCEPT = "application/vnd.docker.plugins.v1.2+json"
_PIECE = 1 << 20

# The wire carries no error classes, only text. Each pattern is looked for in order; what matches
# none stays a DriverError, which every requirement accepts where it asks for "an error".
_CLASSES: tuple[tuple[str, type[DriverError]], ...] = (
    (r"max depth|too many l(ower|ayer)", MaxDepthExceeded),
    (r"too large|too long", MountOptionsTooLong),
    (r"quota|pquota", QuotaNotSupported),
    (r"incompatible", IncompatibleFS),
    (r"not supported|unsupported", NotSupported),
    (r"invalid (layer )?id|may become a directory name", InvalidLayerId),
    (r"already exists|file exists", LayerExists),
    (r"in use|has child|busy|is held", LayerInUse),
    (
        r"not found|no such (file|layer|id)|does not exist|not known|no layer|unknown layer",
        LayerNotFound,
    ),
)


class PluginUnreachable(OSError):
    """The plugin did not answer, or not in its time; the message names the call."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket; Host is a dummy, as Docker's is."""

    def __init__(self, path: Path, deadline: float) -> None:
        super().__init__("plugin.moby.localhost", timeout=deadline)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class PluginDriver:
    """The driver behind the plugin socket `path`; `deadline` in seconds bounds each wait for it."""

    def __init__(
        self,
        path: Path,
        home: Path | str,
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
        deadline: float = 60.0,
    ) -> None:
        """Activate the plugin and Init it. Raises PluginUnreachable, DriverError."""
        self._path = path
        self._deadline = deadline
        implements = self._call("Plugin.Activate", None).get("Implements") or []
        if "GraphDriver" not in implements:
            raise NotSupported(
                f"the plugin at {path} implements {implements}", "it must be a GraphDriver"
            )
        self._call(
            "GraphDriver.Init",
            {
                "Home": str(home),
                "Opts": list(options) or None,
                "UIDMaps": _wire_maps(uid_maps),
                "GIDMaps": _wire_maps(gid_maps),
            },
        )

    def __str__(self) -> str:
        """Return the socket's name, by which Docker would know the driver."""
        return self._path.stem

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """GraphDriver.Create."""
        self._call("GraphDriver.Create", _creation(id, parent, mount_label, storage_opt))

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """GraphDriver.CreateReadWrite."""
        self._call("GraphDriver.CreateReadWrite", _creation(id, parent, mount_label, storage_opt))

    def remove(self, id: str) -> None:
        """GraphDriver.Remove."""
        self._call("GraphDriver.Remove", {"ID": id})

    def get(self, id: str, mount_label: str = "") -> Path:
        """GraphDriver.Get; raises when the plugin's directory cannot be seen from here."""
        body = {"ID": id, **({"MountLabel": mount_label} if mount_label else {})}
        view = Path(self._call("GraphDriver.Get", body).get("Dir") or "/nowhere")
        if not view.is_dir():
            raise FileNotFoundError(
                errno.ENOENT,
                "the plugin answered Get with a directory that is not here; it may have mounted it "
                "in a mount namespace of its own: run plugin and suite in the same one",
                str(view),
            )
        return view

    def put(self, id: str) -> None:
        """GraphDriver.Put."""
        self._call("GraphDriver.Put", {"ID": id})

    def exists(self, id: str) -> bool:
        """GraphDriver.Exists; false may be an empty object."""
        return bool(self._call("GraphDriver.Exists", {"ID": id}).get("Exists"))

    def status(self) -> list[tuple[str, str]]:
        """GraphDriver.Status."""
        rows = self._call("GraphDriver.Status", {}).get("Status") or []
        return [(str(label), str(value)) for label, value in rows]

    def get_metadata(self, id: str) -> dict[str, str]:
        """GraphDriver.GetMetadata."""
        return dict(self._call("GraphDriver.GetMetadata", {"ID": id}).get("Metadata") or {})

    def cleanup(self) -> None:
        """GraphDriver.Cleanup."""
        self._call("GraphDriver.Cleanup", {})

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """GraphDriver.Changes."""
        rows = self._call("GraphDriver.Changes", {"ID": id, "Parent": parent}).get("Changes") or []
        return [Change(row["Path"].encode(), ChangeKind(row["Kind"])) for row in rows]

    def diff_size(self, id: str, parent: str = "") -> int:
        """GraphDriver.DiffSize."""
        answer = self._call("GraphDriver.DiffSize", {"ID": id, "Parent": parent})
        return int(answer.get("Size") or 0)  # zero is left out, as Go does

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """GraphDriver.Diff; an archive cut short raises http.client.IncompleteRead as OSError."""
        connection, response = self._post(
            "GraphDriver.Diff", json.dumps({"ID": id, "Parent": parent}).encode()
        )
        if response.status != 200:
            with connection_closing(connection):
                raise _refusal("GraphDriver.Diff", response.status, response.read())
        return cast(BinaryIO, _Archive(connection, response))

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """GraphDriver.ApplyDiff: the archive goes out in chunks, once."""
        path = f"GraphDriver.ApplyDiff?id={quote(id, safe='')}&parent={quote(parent, safe='')}"
        answer = self._decoded("GraphDriver.ApplyDiff", *self._post(path, _pieces(diff)))
        return int(answer.get("Size") or 0)  # zero is left out, as Go does

    def _call(self, method: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        return self._decoded(method, *self._post(method, data))

    def _post(
        self, path: str, body: bytes | Iterator[bytes]
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        connection = _Connection(self._path, self._deadline)
        chunked = not isinstance(body, bytes)
        headers = {"Accept": _ACCEPT, **({"Transfer-Encoding": "chunked"} if chunked else {})}
        try:
            connection.request("POST", f"/{path}", body, headers, encode_chunked=chunked)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _unreachable(self._path, path, self._deadline, error) from error

    def _decoded(
        self, method: str, connection: _Connection, response: http.client.HTTPResponse
    ) -> dict[str, Any]:
        with connection_closing(connection):
            try:
                data = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise _unreachable(self._path, method, self._deadline, error) from error
        if response.status != 200:
            raise _refusal(method, response.status, data)
        try:
            answer = json.loads(data)
        except ValueError:
            raise DriverError(f"{method} answered with {data[:80]!r}", "answer with JSON") from None
        if not isinstance(answer, dict):
            raise DriverError(f"{method} answered with {data[:80]!r}", "answer with a JSON object")
        if answer.get("Err"):
            raise _classified(str(answer["Err"]))
        return answer


class _Archive(io.RawIOBase):
    """The body of a Diff answer; closing it early drops the connection, as a client may."""

    def __init__(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        super().__init__()
        self._connection = connection
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return self._response.readinto(buffer)
        except http.client.HTTPException as error:
            raise OSError(errno.EIO, f"the archive was cut short: {error}") from error

    def close(self) -> None:
        if not self.closed:
            self._response.close()
            self._connection.close()
        super().close()


def source(spec: str) -> DriverSource:
    """Return the plugin that listens on the socket which `spec` names."""
    path = Path(spec.removeprefix("plugin+unix://"))

    def plugin(
        home: Path,
        options: tuple[str, ...] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> Driver:
        return PluginDriver(path, home, options, uid_maps, gid_maps)

    return DriverSource(spec, plugin, in_process=False)


@contextmanager
def connection_closing(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Close `connection` at the end of the block."""
    try:
        yield
    finally:
        connection.close()


def _creation(
    id: str, parent: str, mount_label: str, storage_opt: Mapping[str, str] | None
) -> dict[str, object]:
    optional = {"Parent": parent, "MountLabel": mount_label, "StorageOpt": dict(storage_opt or {})}
    return {"ID": id, **{key: value for key, value in optional.items() if value}}


def _wire_maps(maps: Sequence[IDMap]) -> list[dict[str, int]] | None:
    rows = [
        {"container_id": one.container_id, "host_id": one.host_id, "size": one.size} for one in maps
    ]
    return rows or None


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _refusal(method: str, status: int, data: bytes) -> DriverError:
    try:
        text = json.loads(data)["Err"]
    except (ValueError, KeyError, TypeError):
        text = data.decode("utf-8", "replace").strip()
    return _classified(text or f"{method} answered with status {status} and no message")


def _classified(text: str) -> DriverError:
    found = next((kind for words, kind in _CLASSES if re.search(words, text, re.I)), DriverError)
    return found(text)


def _unreachable(path: Path, call: str, deadline: float, error: Exception) -> PluginUnreachable:
    name = call.partition("?")[0]
    if isinstance(error, TimeoutError):
        return PluginUnreachable(
            errno.ETIMEDOUT, f"{name}: no answer within {deadline:g} s", str(path)
        )
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return PluginUnreachable(
            error.errno, f"{name}: nothing listens there; start the plugin", str(path)
        )
    return PluginUnreachable(
        getattr(error, "errno", None) or errno.EPIPE,
        f"{name}: the plugin dropped the connection ({type(error).__name__}: {error})",
        str(path),
    )
