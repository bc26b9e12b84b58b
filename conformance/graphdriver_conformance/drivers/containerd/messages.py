"""containerd's messages, of api/services/*/v1 and api/types (the same in 1.6 to 2.x)."""

from dataclasses import dataclass

from graphdriver_conformance.drivers.containerd.wire import (
    Message,
    blob,
    message,
    messages,
    number,
    text,
    texts,
)

__all__ = [
    "Applied",
    "Apply",
    "CommitSnapshot",
    "ContentInfos",
    "CreateLease",
    "CreateNamespace",
    "Descriptor",
    "Diffed",
    "Digest",
    "Empty",
    "Mount",
    "Mounts",
    "Name",
    "Namespace",
    "Pair",
    "Piece",
    "Plugin",
    "Plugins",
    "PluginsFilter",
    "PrepareSnapshot",
    "SnapshotInfo",
    "SnapshotInfos",
    "SnapshotKey",
    "SnapshotStat",
    "Snapshotter",
    "Status",
    "TakeDiff",
    "Version",
    "WriteAnswer",
    "WritePiece",
]


@dataclass(frozen=True)
class Empty(Message):
    """google.protobuf.Empty."""


@dataclass(frozen=True)
class Pair(Message):
    """An entry of a map of strings."""

    key: str = text(1)
    value: str = text(2)


@dataclass(frozen=True)
class Mount(Message):
    """types.Mount: what mount(2) is to be called with."""

    type: str = text(1)
    source: str = text(2)
    target: str = text(3)
    options: tuple[str, ...] = texts(4)


@dataclass(frozen=True)
class Descriptor(Message):
    """types.Descriptor: a piece of content."""

    media_type: str = text(1)
    digest: str = text(2)
    size: int = number(3)


@dataclass(frozen=True)
class PrepareSnapshot(Message):
    """snapshots.PrepareSnapshotRequest and ViewSnapshotRequest."""

    snapshotter: str = text(1)
    key: str = text(2)
    parent: str = text(3)


@dataclass(frozen=True)
class Mounts(Message):
    """The answer to Prepare, View and Mounts."""

    mounts: tuple[Mount, ...] = messages(1, Mount)


@dataclass(frozen=True)
class SnapshotKey(Message):
    """snapshots.MountsRequest, RemoveSnapshotRequest and StatSnapshotRequest."""

    snapshotter: str = text(1)
    key: str = text(2)


@dataclass(frozen=True)
class CommitSnapshot(Message):
    """snapshots.CommitSnapshotRequest."""

    snapshotter: str = text(1)
    name: str = text(2)
    key: str = text(3)


@dataclass(frozen=True)
class SnapshotInfo(Message):
    """snapshots.Info; `kind` is 1 for a view, 2 for an active and 3 for a committed snapshot."""

    name: str = text(1)
    parent: str = text(2)
    kind: int = number(3)


@dataclass(frozen=True)
class SnapshotStat(Message):
    """snapshots.StatSnapshotResponse."""

    info: SnapshotInfo = message(1, SnapshotInfo)


@dataclass(frozen=True)
class Snapshotter(Message):
    """snapshots.ListSnapshotsRequest."""

    snapshotter: str = text(1)


@dataclass(frozen=True)
class SnapshotInfos(Message):
    """snapshots.ListSnapshotsResponse."""

    info: tuple[SnapshotInfo, ...] = messages(1, SnapshotInfo)


@dataclass(frozen=True)
class TakeDiff(Message):
    """diff.DiffRequest."""

    left: tuple[Mount, ...] = messages(1, Mount)
    right: tuple[Mount, ...] = messages(2, Mount)
    media_type: str = text(3)


@dataclass(frozen=True)
class Diffed(Message):
    """diff.DiffResponse."""

    diff: Descriptor = message(3, Descriptor)


@dataclass(frozen=True)
class Apply(Message):
    """diff.ApplyRequest."""

    diff: Descriptor = message(1, Descriptor)
    mounts: tuple[Mount, ...] = messages(2, Mount)


@dataclass(frozen=True)
class Applied(Message):
    """diff.ApplyResponse."""

    applied: Descriptor = message(1, Descriptor)


@dataclass(frozen=True)
class Digest(Message):
    """content.ReadContentRequest and DeleteContentRequest."""

    digest: str = text(1)


@dataclass(frozen=True)
class Piece(Message):
    """content.ReadContentResponse."""

    offset: int = number(1)
    data: bytes = blob(2)


@dataclass(frozen=True)
class WritePiece(Message):
    """content.WriteContentRequest; `action` is 1 to write and 2 to commit."""

    action: int = number(1)
    ref: str = text(2)
    total: int = number(3)
    expected: str = text(4)
    offset: int = number(5)
    data: bytes = blob(6)


@dataclass(frozen=True)
class WriteAnswer(Message):
    """content.WriteContentResponse."""

    action: int = number(1)
    offset: int = number(4)


@dataclass(frozen=True)
class ContentInfos(Message):
    """content.ListContentResponse, of which the digests are needed."""

    info: tuple[Digest, ...] = messages(1, Digest)


@dataclass(frozen=True)
class Namespace(Message):
    """namespaces.Namespace."""

    name: str = text(1)


@dataclass(frozen=True)
class CreateNamespace(Message):
    """namespaces.CreateNamespaceRequest."""

    namespace: Namespace = message(1, Namespace)


@dataclass(frozen=True)
class Name(Message):
    """namespaces.DeleteNamespaceRequest, leases.DeleteRequest."""

    name: str = text(1)


@dataclass(frozen=True)
class CreateLease(Message):
    """leases.CreateRequest."""

    id: str = text(1)


@dataclass(frozen=True)
class PluginsFilter(Message):
    """introspection.PluginsRequest."""

    filters: tuple[str, ...] = texts(1)


@dataclass(frozen=True)
class Status(Message):
    """google.rpc.Status."""

    code: int = number(1)
    message: str = text(2)


@dataclass(frozen=True)
class Plugin(Message):
    """introspection.Plugin."""

    type: str = text(1)
    id: str = text(2)
    exports: tuple[Pair, ...] = messages(5, Pair)
    init_err: Status | None = message(7, Status)


@dataclass(frozen=True)
class Plugins(Message):
    """introspection.PluginsResponse."""

    plugins: tuple[Plugin, ...] = messages(1, Plugin)


@dataclass(frozen=True)
class Version(Message):
    """version.VersionResponse."""

    version: str = text(1)
