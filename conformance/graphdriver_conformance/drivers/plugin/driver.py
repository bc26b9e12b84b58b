"""A Docker graphdriver plugin as a `Driver`: each verb a call on its unix socket."""

import contextlib
import errno
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote

from graphdriver.contract import Capability, Change, ChangeKind, IDMap
from graphdriver.errors import DriverError, NotSupported
from graphdriver_conformance.drivers import Cause, NotRepresentable
from graphdriver_conformance.drivers.plugin.client import (
    BodyBroke,
    Connection,
    PluginUnreachable,
    Wire,
)
from graphdriver_conformance.drivers.plugin.process import PluginProcess
from graphdriver_conformance.drivers.refusals import refusal

__all__ = ["PluginDriver"]

_CHUNK_SIZE = 1 << 20
# Go, among others, encodes bytes that are not UTF-8 as this character.
_UNKNOWN = "\ufffd"
_Kind = TypeVar("_Kind")

_NOT_UTF8 = re.compile(r"not (valid )?utf-?8|invalid utf-?8", re.IGNORECASE)

# The claims of a plugin without Claims: all except those of overlay2's layout.
_UNDECLARED = frozenset(Capability) - {
    Capability.OVERLAY2_LAYOUT,
    Capability.LAYER_LIMIT,
    Capability.EXACT_DIFFS,
    Capability.MTIME_NS,
    Capability.DURABLE,
}


class PluginDriver:
    """The driver of the plugin on `wire` for `home`.

    A plugin has one driver at a time, that of the last Init. If several of these use one wire, the
    next one that is used sends its Init again; the holds of the others are lost then.
    """

    def __init__(
        self,
        wire: Wire,
        home: Path | str,
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
        process: PluginProcess | None = None,
    ) -> None:
        """Activate the plugin and Init it. Raises PluginUnreachable, DriverError."""
        self.wire = wire
        self.process = process
        self._init = {
            "Home": str(home),
            "Opts": list(options) or None,
            "UIDMaps": _wire_maps(uid_maps),
            "GIDMaps": _wire_maps(gid_maps),
        }
        with self._with_classes():
            answer = wire.call("Plugin.Activate", None)
        implements = _typed("Plugin.Activate", answer, "Implements", list)
        if "GraphDriver" not in implements:
            raise NotSupported(
                f"the plugin at {wire.path} implements {implements}", "it must be a GraphDriver"
            )
        self.init()
        self.capabilities, self.layer_limit = self._declared()

    def init(self) -> None:
        """GraphDriver.Init, as at the start."""
        # Before the call: a failed one may have changed the plugin's home, too.
        self.wire.served = self
        with self._with_classes():
            self.wire.call("GraphDriver.Init", self._init)

    def __str__(self) -> str:
        """Return the name by which Docker would know the driver, from its socket."""
        return self.process.name if self.process else self.wire.path.stem

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
        """GraphDriver.Get; raises if the plugin's directory is not visible to the suite."""
        body = {"ID": id, **({"MountLabel": mount_label} if mount_label else {})}
        shown = _typed("GraphDriver.Get", self._call("GraphDriver.Get", body), "Dir", str)
        if not shown:
            raise DriverError("GraphDriver.Get answered without Dir", "name the directory")
        view = Path(shown)
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
        """GraphDriver.Exists; an empty object means false."""
        answer = self._call("GraphDriver.Exists", {"ID": id})
        return _typed("GraphDriver.Exists", answer, "Exists", bool)

    def status(self) -> list[tuple[str, str]]:
        """GraphDriver.Status."""
        rows = _typed("GraphDriver.Status", self._call("GraphDriver.Status", {}), "Status", list)
        with _reading("GraphDriver.Status", rows):
            return [(str(label), str(value)) for label, value in rows]

    def get_metadata(self, id: str) -> dict[str, str]:
        """GraphDriver.GetMetadata."""
        answer = self._call("GraphDriver.GetMetadata", {"ID": id})
        found = _typed("GraphDriver.GetMetadata", answer, "Metadata", dict)
        return {str(key): str(value) for key, value in found.items()}

    def cleanup(self) -> None:
        """GraphDriver.Cleanup."""
        self._call("GraphDriver.Cleanup", {})

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """GraphDriver.Changes."""
        answer = self._call("GraphDriver.Changes", {"ID": id, "Parent": parent})
        rows = _typed("GraphDriver.Changes", answer, "Changes", list)
        with _reading("GraphDriver.Changes", rows):
            if any(_UNKNOWN in row["Path"] for row in rows):
                raise NotRepresentable(f"GraphDriver.Changes has a path with {_UNKNOWN} in it")
            return [Change(row["Path"].encode(), ChangeKind(row["Kind"])) for row in rows]

    def diff_size(self, id: str, parent: str = "") -> int:
        """GraphDriver.DiffSize."""
        answer = self._call("GraphDriver.DiffSize", {"ID": id, "Parent": parent})
        return _typed("GraphDriver.DiffSize", answer, "Size", int)

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """GraphDriver.Diff; a truncated archive raises PluginUnreachable."""
        body = json.dumps({"ID": id, "Parent": parent}).encode()
        with self._with_classes():
            self._acquire()
            connection, response = self.wire.post("GraphDriver.Diff", body, last=True)
            if response.status != 200:
                raise DriverError(self.wire.refuse("GraphDriver.Diff", connection, response))
        return cast(BinaryIO, _Archive(self, connection, response))

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """GraphDriver.ApplyDiff: the archive is sent in chunks, once."""
        method = "GraphDriver.ApplyDiff"
        path = f"{method}?id={quote(id, safe='')}&parent={quote(parent, safe='')}"
        with self._with_classes():
            self._acquire()
            answer = self.wire.answer(method, *self.wire.post(path, _chunks(diff)))
        return _typed(method, answer, "Size", int)

    def unreachable(self, method: str, error: Exception) -> PluginUnreachable:
        """Return the error with the reason for a call without an answer, and the exit."""
        return self._with_exit(self.wire.unreachable(method, error))

    def _call(self, method: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        with self._with_classes():
            self._acquire()
            return self.wire.call(method, body)

    def _acquire(self) -> None:
        with self.wire.turn:
            if self.wire.served is not self:
                self.init()

    def _declared(self) -> tuple[frozenset[str], int]:
        """Return the plugin's claims: `Claims` and `LayerLimit` beside Docker's Capabilities."""
        try:
            answer = self._call("GraphDriver.Capabilities", {})
        except PluginUnreachable:
            raise
        except DriverError:
            answer = {}  # Docker before 17.06 did not call it
        claims = _typed("GraphDriver.Capabilities", answer, "Claims", list)
        own = _typed("GraphDriver.Capabilities", answer, "Capabilities", dict)
        exact = {Capability.EXACT_DIFFS.value} if own.get("ReproducesExactDiffs") else set()
        limit = _typed("GraphDriver.Capabilities", answer, "LayerLimit", int)
        return frozenset(map(str, claims or _UNDECLARED)) | exact, limit

    @contextlib.contextmanager
    def _with_classes(self) -> Iterator[None]:
        """Raise errors with their class, and report a process that died."""
        try:
            yield
        except DriverError as error:
            text = str(error)
            raise (NotRepresentable(text) if _NOT_UTF8.search(text) else refusal(text)) from None
        except PluginUnreachable as error:
            raise self._with_exit(error) from error.__cause__
        except BodyBroke as error:
            raise error.__cause__ or error from None

    def _with_exit(self, error: PluginUnreachable) -> PluginUnreachable:
        exit_message = (
            self.process.exit_message() if self.process and error.errno != errno.ETIMEDOUT else ""
        )
        if not exit_message:
            return error
        return PluginUnreachable(error.errno, f"{error.strerror}; {exit_message}", cause=Cause.DIED)


class _Archive(io.RawIOBase):
    """The body of a Diff answer; closing it early closes the connection, as a client may."""

    def __init__(
        self, driver: PluginDriver, connection: Connection, response: HTTPResponse
    ) -> None:
        super().__init__()
        self._driver = driver
        self._connection = connection
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return self._response.readinto(buffer)
        except (OSError, HTTPException) as error:
            raise self._driver.unreachable("GraphDriver.Diff", error) from error

    def close(self) -> None:
        if not self.closed:
            self._connection.hang_up()
            self._response.close()
        super().close()


@contextlib.contextmanager
def _reading(method: str, found: object) -> Iterator[None]:
    """Raise an error for an answer with the wrong form."""
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError):
        raise DriverError(
            f"{method} answered with {str(found)[:200]}", "see docs/extend/plugins_graphdriver.md"
        ) from None


def _typed(method: str, answer: Mapping[str, object], key: str, kind: type[_Kind]) -> _Kind:
    """Return a field of an answer; Go omits zero values, and encodes an empty list as null."""
    value = answer.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DriverError(
            f"{method} answered with {key} = {str(value)[:80]}", f"it has to be a {kind.__name__}"
        )
    return value


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


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a stream in chunks. Raises BodyBroke: its errors are not the plugin's fault."""
    try:
        while chunk := stream.read(_CHUNK_SIZE):
            yield chunk
    except Exception as error:
        raise BodyBroke from error
