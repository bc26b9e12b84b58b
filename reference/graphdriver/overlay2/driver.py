"""The graphdriver interface: each verb validates its arguments and delegates."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from graphdriver import layerid
from graphdriver.contract import Capability, Change, IDMap
from graphdriver.errors import PrerequisitesNotMet
from graphdriver.homedir import HomeDirectory
from graphdriver.idmapping import IDMapping
from graphdriver.overlay2.differs import Differ
from graphdriver.overlay2.layers import LayerTable
from graphdriver.overlay2.layout import MAX_LOWERS, Home
from graphdriver.overlay2.mounts import MountPoints, Mounts
from graphdriver.overlay2.options import parse_options, parse_storage_opt
from graphdriver.overlay2.quota import Quota
from graphdriver.overlay2.recovery import recover
from graphdriver.overlay2.support import check_host, probe

__all__ = ["Driver"]


class Driver:
    """overlay2 on the home directory `home`, which is created if it is missing.

    `options` are `overlay2.override_kernel_check=BOOL`, `overlay2.size=SIZE` and, in addition to
    Docker's:

    * `overlay2.sync=BOOL`: the files written by apply_diff are on the disk when it returns. This
      syncs the whole file system of the layer, including other users' files.
    * `overlay2.mountopt=LIST`: redirect_dir, metacopy, index, xino for every mount, to test
      features that some kernels enable by default.

    Raises NotSupported, IncompatibleFS, PrerequisitesNotMet; nothing is changed in that case.
    """

    # Archives contain whole seconds, as those of Docker and containerd: other engines read no more.
    layer_limit = MAX_LOWERS

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        self._options = parse_options(options)
        ids = IDMapping(uid_maps, gid_maps)
        path = _real_home(home)
        wanted = self._options
        backing = check_host(path, wanted.override_kernel_check)
        directory = HomeDirectory(path, ids)
        try:
            if directory.is_alone:
                recover(path)
            # From now on, other drivers that start on this home do not remove our staging
            # directories.
            directory.share()
            self._support = probe(path, backing, wanted.mountopt)
            self._home = Home(directory, ids)
            points = MountPoints(path, ids)
            self._layers = LayerTable(self._home, points.end_view)
        except BaseException:
            directory.undo()
            raise
        self._mounts = Mounts(self._home, self._layers, points, self._support.prefix, ids)
        self._differ = Differ(
            self._home, self._layers, self._mounts, self._support, ids, sync=wanted.sync
        )
        self._quota = Quota(path, self._support.backing)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The claims: sizes if the file system enforces them, durability with the option."""
        unclaimed = {Capability.MTIME_NS}
        if not self._options.sync:
            unclaimed.add(Capability.DURABLE)
        if not self._quota.is_kept():
            unclaimed.add(Capability.QUOTA)
        return frozenset(Capability) - unclaimed

    def __str__(self) -> str:
        """Return `overlay2`."""
        return "overlay2"

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Create a layer for an image; see the contract. Sizes apply to writable layers only."""
        layerid.check(id)
        if parse_storage_opt(storage_opt):
            raise PrerequisitesNotMet(
                f"layer {id} is read-only, and sizes apply to writable layers only",
                "use create_read_write",
            )
        self._create(id, parent, 0)

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Create a layer for a container; see the contract. `storage_opt` may contain a size."""
        layerid.check(id)
        self._create(id, parent, parse_storage_opt(storage_opt) or self._options.size)

    def remove(self, id: str) -> None:
        """Delete a layer; see the contract."""
        layerid.check(id)
        self._layers.remove(id, lambda: self._mounts.release_stale(id))

    def get(self, id: str, mount_label: str = "") -> Path:
        """Mount a layer; the view of a base layer is its own directory. See the contract."""
        return self._mounts.get(layerid.check(id), mount_label)

    def put(self, id: str) -> None:
        """Release one get; see the contract."""
        self._mounts.put(layerid.check(id))

    def exists(self, id: str) -> bool:
        """Return whether the layer exists."""
        return self._home.exists(id)

    def status(self) -> list[tuple[str, str]]:
        """Return the rows that `docker info` shows."""
        return [
            ("Backing Filesystem", self._support.backing),
            ("Supports d_type", "true"),
            ("Native Overlay Diff", str(self._differ.is_native).lower()),
            ("userxattr", str(self._support.userxattr).lower()),
        ]

    def get_metadata(self, id: str) -> dict[str, str]:
        """Return UpperDir, WorkDir and MergedDir, and LowerDir if there are lowers."""
        layer = self._home.layer(id)
        metadata = {
            "WorkDir": str(layer / "work"),
            "MergedDir": str(layer / "merged"),
            "UpperDir": str(layer / "diff"),
        }
        below = [str(self._home.path / one / "diff") for one in self._home.lower_ids(id)]
        return metadata | ({"LowerDir": ":".join(below)} if below else {})

    def cleanup(self) -> None:
        """Unmount everything; layers stay."""
        self._mounts.cleanup()

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Return an archive; see the contract."""
        return self._differ.diff(id, parent)

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Return changed paths; see the contract."""
        return self._differ.changes(id, parent)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Unpack an archive; see the contract."""
        return self._differ.apply_diff(id, parent, diff)

    def diff_size(self, id: str, parent: str = "") -> int:
        """Return the size of the changes in bytes."""
        return self._differ.diff_size(id, parent)

    def _create(self, id: str, parent: str, size: int) -> None:
        if parent:
            layerid.check(parent)

        def prepare(directory: str) -> None:
            if size:
                self._quota.limit(Path(directory), size)

        self._layers.create(id, parent, prepare)


def _real_home(home: str | os.PathLike[str]) -> Path:
    """Return the home's path without symlinks, as in the mount table."""
    path = Path(os.path.realpath(os.fspath(home)))
    if not os.fspath(home) or (path.exists() and not path.is_dir()):
        raise PrerequisitesNotMet(f"the home {str(home)!r} is not a directory", "name one")
    return path
