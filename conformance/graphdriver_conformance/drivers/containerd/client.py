"""Calls to a containerd, each with a deadline, in one namespace and under one lease."""

import contextlib
import errno
import hashlib
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import grpc

from graphdriver.errors import (
    DriverError,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    NotSupported,
)
from graphdriver_conformance.drivers import Fate, NoAnswer
from graphdriver_conformance.drivers.containerd import messages as m
from graphdriver_conformance.drivers.containerd.wire import Message
from graphdriver_conformance.drivers.refusals import refusal

__all__ = ["Containerd", "ContainerdUnreachable"]

LAYER = "application/vnd.oci.image.layer.v1.tar"
_LEASE = "graphdriver"
_PIECE = 1 << 20
_LARGEST_ANSWER = 16 << 20  # containerd's own client's
_Answer = TypeVar("_Answer", bound=Message)
_CLASSES: dict[grpc.StatusCode, type[DriverError]] = {
    grpc.StatusCode.NOT_FOUND: LayerNotFound,
    grpc.StatusCode.ALREADY_EXISTS: LayerExists,
    grpc.StatusCode.FAILED_PRECONDITION: LayerInUse,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidLayerId,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
}


class ContainerdUnreachable(NoAnswer):
    """containerd did not answer, or not in its time; the message names the call."""

    def __init__(self, *arguments: object, fate: Fate = Fate.BROKE_OFF) -> None:
        super().__init__(*arguments)
        self.fate = fate


class Containerd:
    """The containerd that listens on `socket`; `deadline` in seconds bounds each call.

    All is done in `namespace` and kept by a lease of it: what no lease or label holds, the garbage
    collector takes.
    """

    def __init__(self, socket: Path, namespace: str, deadline: float) -> None:
        self._socket = socket
        self._deadline = deadline
        self._namespace = namespace
        self._metadata = (
            ("containerd-namespace", namespace),
            ("containerd-lease", _LEASE),
        )
        self._channel = grpc.insecure_channel(
            f"unix:{socket}",
            options=[
                ("grpc.max_receive_message_length", _LARGEST_ANSWER),
                # Channels to one address share a connection otherwise, also a broken one.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.default_authority", "localhost"),
            ],
        )

    def open(self) -> None:
        """Make the namespace and its lease, unless they are there."""
        with contextlib.suppress(LayerExists):
            request = m.CreateNamespace(m.Namespace(self._namespace))
            self.call("namespaces.v1.Namespaces/Create", request, m.Empty)
        with contextlib.suppress(LayerExists):
            self.call("leases.v1.Leases/Create", m.CreateLease(_LEASE), m.Empty)

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()

    def call(self, method: str, request: Message, answer: type[_Answer]) -> _Answer:
        """Call `services.METHOD`. Raises DriverError, ContainerdUnreachable."""
        stub = self._channel.unary_unary(
            f"/containerd.services.{method}",
            request_serializer=_bytes,
            response_deserializer=answer.decode,
        )
        with self._errors(method):
            return stub(request, timeout=self._deadline, metadata=self._metadata)

    def listing(self, method: str, request: Message, answer: type[_Answer]) -> list[_Answer]:
        """Call a method that answers with a stream, and return all of it."""
        with self._errors(method):
            return list(self._stream(method, request, answer))

    def read(self, digest: str) -> BinaryIO:
        """Return a piece of content; closing it early ends the transfer."""
        return cast(BinaryIO, io.BufferedReader(_Content(self, digest), _PIECE))

    def write(self, data: BinaryIO) -> m.Descriptor:
        """Store content and return what it is called; an error while reading `data` is raised."""
        method = "content.v1.Content/Write"
        stub = self._channel.stream_stream(
            f"/containerd.services.{method}",
            request_serializer=_bytes,
            response_deserializer=m.WriteAnswer.decode,
        )
        upload = _Upload(data)
        try:
            with contextlib.suppress(LayerExists), self._errors(method):
                pieces = upload.pieces()
                for _ in stub(pieces, timeout=self._deadline, metadata=self._metadata):
                    pass
        finally:
            if upload.error:
                raise upload.error
        return m.Descriptor(LAYER, upload.digest, upload.size)

    def drop_content(self) -> None:
        """Delete all content of the namespace."""
        for rows in self.listing("content.v1.Content/List", m.Empty(), m.ContentInfos):
            for row in rows.info:
                with contextlib.suppress(LayerNotFound):
                    self.call("content.v1.Content/Delete", row, m.Empty)

    def drop_namespace(self) -> None:
        """Delete the lease and the namespace, which has to be empty."""
        with contextlib.suppress(DriverError):
            self.call("leases.v1.Leases/Delete", m.Name(_LEASE), m.Empty)
            self.call("namespaces.v1.Namespaces/Delete", m.Name(self._namespace), m.Empty)

    def _stream(self, method: str, request: Message, answer: type[_Answer]) -> Any:
        stub = self._channel.unary_stream(
            f"/containerd.services.{method}",
            request_serializer=_bytes,
            response_deserializer=answer.decode,
        )
        return stub(request, timeout=self._deadline, metadata=self._metadata)

    def pieces(self, digest: str) -> Any:
        """Return the call that sends the content `digest`."""
        return self._stream("content.v1.Content/Read", m.Digest(digest), m.Piece)

    @contextlib.contextmanager
    def _errors(self, method: str) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self.meant(method, error) from None

    def meant(self, method: str, error: Any) -> DriverError | ContainerdUnreachable:
        """Return the error that a failed call stands for."""
        code, said = error.code(), str(error.details())
        name = method.rpartition("/")[2]
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ContainerdUnreachable(
                errno.ETIMEDOUT,
                f"{name}: no answer within {self._deadline:g} s",
                str(self._socket),
                fate=Fate.HUNG,
            )
        if code is grpc.StatusCode.UNAVAILABLE:
            return ContainerdUnreachable(
                errno.ECONNREFUSED,
                f"{name}: no containerd answers there ({said})",
                str(self._socket),
            )
        if code in _CLASSES:
            return _CLASSES[code](f"{name}: {said}")
        return refusal(f"{name}: {said}")


class _Upload:
    """Content on its way in; gRPC asks for its pieces from a thread of its own."""

    def __init__(self, data: BinaryIO) -> None:
        self._data = data
        self._ref = str(uuid.uuid4())
        self._hash = hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def pieces(self) -> Iterator[m.WritePiece]:
        try:
            while piece := self._data.read(_PIECE):
                yield m.WritePiece(action=1, ref=self._ref, offset=self.size, data=piece)
                self.size += len(piece)
                self._hash.update(piece)
        except BaseException as error:
            self.error = error
            raise
        yield m.WritePiece(
            action=2, ref=self._ref, total=self.size, offset=self.size, expected=self.digest
        )


class _Content(io.RawIOBase):
    """A piece of content as it comes in."""

    def __init__(self, containerd: Containerd, digest: str) -> None:
        super().__init__()
        self._containerd = containerd
        self._call = containerd.pieces(digest)
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
            raise self._containerd.meant("content.v1.Content/Read", error) from None
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._call.cancel()
        super().close()


def _bytes(message: Message) -> bytes:
    return message.encode()
