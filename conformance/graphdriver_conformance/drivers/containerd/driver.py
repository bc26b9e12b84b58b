"""A snapshotter of containerd as a `Driver`.

A layer is an active snapshot of its id until it becomes a parent; then it is committed, because
only committed snapshots have children, and is read-only from then on. The adapter performs the
tasks of a containerd client: mounting, counting holds, and keeping a lease.

containerd has no verb for changes and none for the size of a diff. An emulation would test the
adapter, so neither is claimed.
"""

import contextlib
import hashlib
import io
import itertools
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from graphdriver.contract import Capability, Change
from graphdriver.errors import (
    DriverError,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    NotSupported,
)
from graphdriver_conformance.drivers import deadline
from graphdriver_conformance.drivers.containerd.api import (
    diff_pb2,
    introspection_pb2,
    snapshots_pb2,
)
from graphdriver_conformance.drivers.containerd.api.types_pb2 import Mount
from graphdriver_conformance.drivers.containerd.client import LAYER, Containerd
from graphdriver_conformance.drivers.containerd.mounting import Sources, mount_all, unmount_all
from graphdriver_conformance.host.mountinfo import mounts_at
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file

__all__ = ["ContainerdDriver"]

_SNAPSHOTTER = "io.containerd.snapshotter.v1"
_COMMITTED, _VIEW = "/committed", "/view"


class ContainerdDriver:
    """The layers of `home` in the snapshotter `name`; only mounts are below the home."""

    def __init__(
        self, socket: Path, name: str, home: Path | str, claims: frozenset[Capability]
    ) -> None:
        """Check that the snapshotter exists. Raises NotSupported, ContainerdUnreachable."""
        self._name = name
        self._home = Path(home)
        self.capabilities = claims
        namespace = "graphdriver-" + hashlib.sha256(os.fsencode(home)).hexdigest()[:32]
        self._containerd = Containerd(socket, namespace, deadline())
        self._snapshots = self._containerd.snapshots
        self._sources = Sources(self._containerd.process())
        self._held: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._gone = False
        self._root = self._find()
        self._containerd.open()
        self._views = self._home / "views"
        for directory in (self._home, self._views):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __str__(self) -> str:
        """Return the snapshotter's name."""
        return self._name

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; committed when it becomes a parent, because docker writes into it until then."""
        self._prepare(id, parent, mount_label, storage_opt)

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare."""
        self._prepare(id, parent, mount_label, storage_opt)

    def remove(self, id: str) -> None:
        """Remove; a client has to unmount first, also the mount of a process that died."""
        with self._lock:
            if self._held.pop(id, 0) or mounts_at(self._view_of(id)):
                self._release(id)
            try:
                self._remove(_encoded(id))
            except LayerNotFound:
                self._remove(id + _COMMITTED)

    def get(self, id: str, mount_label: str = "") -> Path:
        """Mount what Mounts says, or a View of a committed snapshot."""
        if mount_label:
            raise NotSupported(f"get of {id!r} with a label", "containerd mounts have none")
        view = self._view_of(id)
        with self._lock:
            if not self._held[id] and not mounts_at(view):
                mounts = self._mounts(id, id + _VIEW)
                self._sources.check(mounts)
                view.mkdir(mode=0o700, exist_ok=True)
                mount_all(mounts, view)
            self._held[id] += 1
        return view

    def put(self, id: str) -> None:
        """Unmount after the last one."""
        with self._lock:
            if self._held[id]:
                self._held[id] -= 1
                if not self._held[id]:
                    self._release(id)

    def exists(self, id: str) -> bool:
        """Stat."""
        return self._stat(id) is not None

    def status(self) -> list[tuple[str, str]]:
        """Return the snapshotter, its root, and containerd's version."""
        return [
            ("Snapshotter", self._name),
            ("Root", self._root),
            ("containerd", self._containerd.version_number()),
        ]

    def get_metadata(self, id: str) -> dict[str, str]:
        """Return the result of Stat. Raises LayerNotFound."""
        info = self._stat(id)
        if info is None:
            raise LayerNotFound(f"there is no snapshot {id!r}")
        kind = snapshots_pb2.Kind.Name(info.kind).capitalize()
        return {"Name": info.name, "Parent": info.parent, "Kind": kind}

    def cleanup(self) -> None:
        """Unmount everything below the home, and delete the content of diffs."""
        with self._lock:
            self._held.clear()
            for view in self._views.iterdir() if self._views.is_dir() else ():
                unmount_all(view)
            for info in self._infos():
                if info.name.endswith(_VIEW):
                    self._drop(info.name)
            self._containerd.drop_content()

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Diff of two sets of mounts into the content store, then read from there."""
        number = next(self._numbers)
        views = [f"{one}/diff-{os.getpid()}-{number}" for one in ("left", "right")]
        try:
            left = self._mounts(parent, views[0]) if parent else ()
            right = self._mounts(id, views[1])
            request = diff_pb2.DiffRequest(left=left, right=right, media_type=LAYER)
            taken = self._containerd.call(self._containerd.differ.Diff, request)
        finally:
            for view in views:
                self._drop(view)
        return self._containerd.read(taken.diff.digest)

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Raise NotSupported."""
        raise NotSupported("changes", "containerd has no such verb")

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Write the archive to the content store and Apply it; return its length."""
        info = self._stat(id)
        if info is None:
            raise LayerNotFound(f"there is no snapshot {id!r}")
        if info.name != id:
            raise LayerInUse(f"snapshot {id!r} is committed, as it has children")
        content = self._containerd.write(diff)
        mounts = self._mounts(id, "")
        request = diff_pb2.ApplyRequest(diff=content, mounts=mounts)
        applied = self._containerd.call(self._containerd.differ.Apply, request)
        return applied.applied.size

    def diff_size(self, id: str, parent: str = "") -> int:
        """Raise NotSupported."""
        raise NotSupported("diff_size", "containerd has no such verb")

    def probe(self) -> frozenset[Capability]:
        """Probe the differences between snapshotters; return the capabilities found.

        Some unpack archives into the upper directory, where symlinks of lowers are not visible,
        others into a mount of all layers. Raises NotSupported, PrerequisitesNotMet if this process
        cannot mount the snapshotter's mounts.
        """
        archive = build_archive([entry_of("link/file", file(b"x"))])
        try:
            self.create("base")
            root = self.get("base")
            (root / "real").mkdir()
            (root / "link").symlink_to("real")
            self.put("base")
            self.create("layer", "base")
            self.create("above", "layer")
            for id in ("base", "layer", "above"):  # a view of one, a view of two, an active one
                self.get(id)
                self.put(id)
            self.create("other", "base")
            try:
                self.apply_diff("other", "base", io.BytesIO(archive))
                root = self.get("other")
                follows = (root / "link").is_symlink() and (root / "real" / "file").is_file()
            except (DriverError, OSError):
                follows = False
        finally:
            self.cleanup()
        return frozenset({Capability.LOWER_SYMLINKS} if follows else ())

    def forget(self) -> None:
        """Remove all snapshots of the home, its lease and its namespace; no verb may follow.

        A second call has no effect.
        """
        if self._gone:
            return
        self._gone = True
        while infos := self._infos():
            # Children are removed before their parents, independent of the order of the list.
            parents = {info.parent for info in infos}
            leaves = [info.name for info in infos if info.name not in parents]
            for name in leaves:
                self._drop(name)
            if not leaves:
                break
        self._containerd.drop_content()
        self._containerd.drop_namespace()
        self._containerd.close()

    def disconnect(self) -> None:
        """Close the connection; no verb may follow."""
        self._containerd.close()

    def _find(self) -> str:
        """Return the root of the snapshotter. Raises NotSupported."""
        request = introspection_pb2.PluginsRequest(filters=[f"type=={_SNAPSHOTTER}"])
        answer = self._containerd.call(self._containerd.introspection.Plugins, request)
        known = {plugin.id: plugin for plugin in answer.plugins}
        usable = ", ".join(sorted(id for id, one in known.items() if not one.HasField("init_err")))
        if self._name not in known:
            raise NotSupported(f"there is no snapshotter {self._name}", f"there are {usable}")
        plugin = known[self._name]
        if plugin.HasField("init_err"):
            message = plugin.init_err.message
            raise NotSupported(
                f"the snapshotter {self._name} does not run: {message}", f"{usable} do"
            )
        return plugin.exports.get("root", "")

    def _prepare(
        self, id: str, parent: str, mount_label: str, storage_opt: Mapping[str, str] | None
    ) -> None:
        if storage_opt or mount_label:
            raise NotSupported(f"create of {id!r} with options", "Prepare has none")
        with self._lock:
            if self._stat(id) is not None:
                raise LayerExists(f"there is a snapshot {id!r}")
            name = self._committed(parent) if parent else ""
            request = snapshots_pb2.PrepareSnapshotRequest(
                snapshotter=self._name, key=_encoded(id), parent=name
            )
            self._containerd.call(self._snapshots.Prepare, request)

    def _committed(self, id: str) -> str:
        """Commit a layer unless it is committed, and return its name. Raises LayerNotFound."""
        info = self._stat(id)
        if info is None:
            raise LayerNotFound(f"there is no parent {id!r}")
        name = id + _COMMITTED
        if info.name == id:
            # Another process may have committed it; otherwise Prepare reports the error.
            with contextlib.suppress(LayerExists, LayerNotFound):
                request = snapshots_pb2.CommitSnapshotRequest(
                    snapshotter=self._name, name=name, key=id
                )
                self._containerd.call(self._snapshots.Commit, request)
            if self._held[id]:
                self._mount_again(id)
        return name

    def _mount_again(self, id: str) -> None:
        """Mount the view of a layer that was committed while it is held: btrfs moves it."""
        mounts, view = self._mounts(id, id + _VIEW), self._view_of(id)
        try:
            mount_all(mounts, view)
        except (NotSupported, OSError):
            # The subvolume at the mount point is deleted: nothing can be mounted over it (ENOENT).
            unmount_all(view)
            mount_all(mounts, view)

    def _mounts(self, id: str, view: str) -> Sequence[Mount]:
        """Return the mounts of a layer, for a committed one of its `view`. Raises LayerNotFound."""
        try:
            return self._mounts_of(_encoded(id))
        except LayerNotFound:
            request = snapshots_pb2.ViewSnapshotRequest(
                snapshotter=self._name, key=view, parent=id + _COMMITTED
            )
        try:
            return self._containerd.call(self._snapshots.View, request).mounts
        except LayerExists:  # of a dead process
            return self._mounts_of(view)

    def _mounts_of(self, key: str) -> Sequence[Mount]:
        request = snapshots_pb2.MountsRequest(snapshotter=self._name, key=key)
        return self._containerd.call(self._snapshots.Mounts, request).mounts

    def _stat(self, id: str) -> snapshots_pb2.Info | None:
        for key in (id, id + _COMMITTED):
            with contextlib.suppress(DriverError):
                request = snapshots_pb2.StatSnapshotRequest(
                    snapshotter=self._name, key=_encoded(key)
                )
                return self._containerd.call(self._snapshots.Stat, request).info
        return None

    def _infos(self) -> list[snapshots_pb2.Info]:
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=self._name)
        rows = self._containerd.listing(self._snapshots.List, request)
        return [info for row in rows for info in row.info]

    def _drop(self, key: str) -> None:
        with contextlib.suppress(DriverError):
            self._remove(key)

    def _remove(self, key: str) -> None:
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self._name, key=key)
        self._containerd.call(self._snapshots.Remove, request)

    def _view_of(self, id: str) -> Path:
        """Return the mount point of a layer: a valid file name for every id."""
        return self._views / hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _release(self, id: str) -> None:
        view = self._view_of(id)
        unmount_all(view)
        with contextlib.suppress(FileNotFoundError):
            view.rmdir()
        self._drop(id + _VIEW)


def _encoded(id: str) -> str:
    """Return an id as a protocol buffers string. Raises InvalidLayerId."""
    try:
        id.encode()
    except UnicodeEncodeError:
        raise InvalidLayerId(f"{id!r} is not UTF-8", "protocol buffers hold nothing else") from None
    return id
