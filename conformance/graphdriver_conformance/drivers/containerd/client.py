"""Calls to a containerd, each with a deadline, in one namespace and under one lease."""

import contextlib
import errno
import hashlib
import io
import os
import socket as sockets
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from graphdriver.errors import (
    DriverError,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    NotSupported,
)
from graphdriver_conformance.drivers import Cause, NoAnswer
from graphdriver_conformance.drivers.containerd.api import (
    content_pb2,
    leases_pb2,
    namespaces_pb2,
    types_pb2,
)
from graphdriver_conformance.drivers.containerd.api.content_pb2_grpc import ContentStub
from graphdriver_conformance.drivers.containerd.api.diff_pb2_grpc import DiffStub
from graphdriver_conformance.drivers.containerd.api.introspection_pb2_grpc import IntrospectionStub
from graphdriver_conformance.drivers.containerd.api.leases_pb2_grpc import LeasesStub
from graphdriver_conformance.drivers.containerd.api.namespaces_pb2_grpc import NamespacesStub
from graphdriver_conformance.drivers.containerd.api.snapshots_pb2_grpc import SnapshotsStub
from graphdriver_conformance.drivers.containerd.api.version_pb2_grpc import VersionStub
from graphdriver_conformance.drivers.refusals import refusal

__all__ = ["LAYER", "Containerd", "ContainerdUnreachable"]

LAYER = "application/vnd.oci.image.layer.v1.tar"
_LEASE = "graphdriver"
_CHUNK_SIZE = 1 << 20
_LARGEST_ANSWER = 16 << 20  # as in containerd's own client
_Request = TypeVar("_Request", bound=Message)
_Answer = TypeVar("_Answer", bound=Message)
_CLASSES: dict[grpc.StatusCode, type[DriverError]] = {
    grpc.StatusCode.NOT_FOUND: LayerNotFound,
    grpc.StatusCode.ALREADY_EXISTS: LayerExists,
    grpc.StatusCode.FAILED_PRECONDITION: LayerInUse,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidLayerId,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
}


class ContainerdUnreachable(NoAnswer):
    """containerd did not answer within the deadline; the message names the call."""

    def __init__(self, *arguments: object, cause: Cause = Cause.BROKE_OFF) -> None:
        super().__init__(*arguments)
        self.cause = cause


class Containerd:
    """The containerd that listens on `socket`; `deadline` in seconds limits each call.

    All data is in `namespace` and kept by its lease: the garbage collector removes data without a
    lease or label. The stubs have the names of containerd's services; their methods are called
    through `call` and `listing`.
    """

    def __init__(self, socket: Path, namespace: str, deadline: float) -> None:
        self._socket = socket
        self._deadline = deadline
        self._namespace = namespace
        self._metadata = (
            ("containerd-namespace", namespace),
            ("containerd-lease", _LEASE),
        )
        channel = grpc.insecure_channel(
            f"unix:{socket}",
            options=[
                ("grpc.max_receive_message_length", _LARGEST_ANSWER),
                # Otherwise channels to one address share a connection, also a broken one.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.default_authority", "localhost"),
            ],
        )
        self._channel = channel
        self.snapshots = SnapshotsStub(channel)
        self.differ = DiffStub(channel)
        self.content = ContentStub(channel)
        self.introspection = IntrospectionStub(channel)
        self.version = VersionStub(channel)
        self._leases = LeasesStub(channel)
        self._namespaces = NamespacesStub(channel)

    def open(self) -> None:
        """Create the namespace and its lease, unless they exist."""
        with contextlib.suppress(LayerExists):
            namespace = namespaces_pb2.Namespace(name=self._namespace)
            request = namespaces_pb2.CreateNamespaceRequest(namespace=namespace)
            self.call(self._namespaces.Create, request)
        with contextlib.suppress(LayerExists):
            self.call(self._leases.Create, leases_pb2.CreateRequest(id=_LEASE))

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()

    def process(self) -> int:
        """Return the id of the process that listens on the socket, 0 if it is not visible."""
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as connection:
            connection.settimeout(self._deadline)
            try:
                connection.connect(os.fspath(self._socket))
                size = struct.calcsize("3i")
                peer = connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, size)
            except OSError:
                return 0
        return int(struct.unpack("3i", peer)[0])

    def call(
        self, method: "grpc.UnaryUnaryMultiCallable[_Request, _Answer]", request: _Request
    ) -> _Answer:
        """Call a method. Raises DriverError, ContainerdUnreachable."""
        with self._errors(_shown(request)):
            return method(request, timeout=self._deadline, metadata=self._metadata)

    def listing(
        self, method: "grpc.UnaryStreamMultiCallable[_Request, _Answer]", request: _Request
    ) -> list[_Answer]:
        """Call a method that returns a stream, and return the complete result."""
        with self._errors(_shown(request)):
            return list(method(request, timeout=self._deadline, metadata=self._metadata))

    def read(self, digest: str) -> BinaryIO:
        """Return content as a stream; closing it early ends the transfer."""
        return cast(BinaryIO, io.BufferedReader(_Content(self, digest), _CHUNK_SIZE))

    def write(self, data: BinaryIO) -> types_pb2.Descriptor:
        """Store content and return its descriptor; an error while reading `data` is raised."""
        upload = _Upload(data)
        try:
            with contextlib.suppress(LayerExists), self._errors("WriteContent"):
                call = self.content.Write(
                    upload.requests(), timeout=self._deadline, metadata=self._metadata
                )
                for _ in call:
                    pass
        finally:
            if upload.error:
                raise upload.error
        return types_pb2.Descriptor(media_type=LAYER, digest=upload.digest, size=upload.size)

    def drop_content(self) -> None:
        """Delete all content of the namespace."""
        for rows in self.listing(self.content.List, content_pb2.ListContentRequest()):
            for row in rows.info:
                with contextlib.suppress(LayerNotFound):
                    request = content_pb2.DeleteContentRequest(digest=row.digest)
                    self.call(self.content.Delete, request)

    def drop_namespace(self) -> None:
        """Delete the lease and the namespace, which has to be empty."""
        with contextlib.suppress(DriverError):
            self.call(self._leases.Delete, leases_pb2.DeleteRequest(id=_LEASE))
            request = namespaces_pb2.DeleteNamespaceRequest(name=self._namespace)
            self.call(self._namespaces.Delete, request)

    def version_number(self) -> str:
        """Return containerd's version."""
        return self.call(self.version.Version, Empty()).version

    def reading(self, digest: str) -> Any:
        """Return the call that sends the content `digest`."""
        request = content_pb2.ReadContentRequest(digest=digest)
        return self.content.Read(request, timeout=self._deadline, metadata=self._metadata)

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self.meant(name, error) from None

    def meant(self, name: str, error: Any) -> DriverError | ContainerdUnreachable:
        """Return the error for a failed call."""
        code, details = error.code(), str(error.details())
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ContainerdUnreachable(
                errno.ETIMEDOUT,
                f"{name}: no answer within {self._deadline:g} s",
                str(self._socket),
                cause=Cause.HUNG,
            )
        if code is grpc.StatusCode.UNAVAILABLE:
            return ContainerdUnreachable(
                errno.ECONNREFUSED,
                f"{name}: no containerd answers there ({details})",
                str(self._socket),
            )
        if code in _CLASSES:
            return _CLASSES[code](f"{name}: {details}")
        return refusal(f"{name}: {details}")


class _Upload:
    """Content that is being uploaded; gRPC reads its chunks in a thread of its own."""

    def __init__(self, data: BinaryIO) -> None:
        self._data = data
        self._ref = str(uuid.uuid4())
        self._hash = hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def requests(self) -> Iterator[content_pb2.WriteContentRequest]:
        try:
            while chunk := self._data.read(_CHUNK_SIZE):
                yield content_pb2.WriteContentRequest(
                    action=content_pb2.WRITE, ref=self._ref, offset=self.size, data=chunk
                )
                self.size += len(chunk)
                self._hash.update(chunk)
        except BaseException as error:
            self.error = error
            raise
        yield content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT,
            ref=self._ref,
            total=self.size,
            offset=self.size,
            expected=self.digest,
        )


class _Content(io.RawIOBase):
    """Content that is being downloaded."""

    def __init__(self, containerd: Containerd, digest: str) -> None:
        super().__init__()
        self._containerd = containerd
        self._call = containerd.reading(digest)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            while not self._left:
                self._left = next(self._call).data
        except StopIteration:
            return 0
        except grpc.RpcError as error:
            raise self._containerd.meant("ReadContent", error) from None
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._call.cancel()
        super().close()


def _shown(request: Message) -> str:
    """Return the verb of a request's class: PrepareSnapshot, Mounts, Diff."""
    return type(request).__name__.removesuffix("Request")
