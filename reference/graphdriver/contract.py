"""The contract between drivers, which store layers, and their callers.

A *layer* is a directory tree that records changes against its *parent*; a chain of layers,
topmost first, is a file system. A driver stores layers under one directory, its *home*:

    driver = init(home)                       # a factory; a driver class can be one
    driver.create("base")                     # an empty layer
    driver.apply_diff("base", "", archive)    # filled from a tar stream
    driver.create_read_write("work", "base")  # a child to write into
    view = driver.get("work")                 # mounts; counted
    (view / "etc").mkdir()                    # copy-up and whiteouts are handled by the driver
    driver.put("work")                        # one put for each get
    driver.changes("work", "base")            # [Change(b"/etc", ChangeKind.ADD)]
    driver.diff("work", "base")               # the same as a tar stream (image-spec, layer.md)

Names inside layers are `bytes`, as in the kernel, because a layer may contain any of them.
The verbs are those of Docker's graphdriver (daemon/graphdriver/driver.go, 1.12), in snake case.
This module imports only the standard library, so that a driver can implement the contract, and a
suite can test it, without a dependency on each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

__all__ = ["Capability", "Change", "ChangeKind", "Driver", "DriverFactory", "IDMap"]


class ChangeKind(IntEnum):
    """The kind of a change to a path; the values are those of the plugin protocol."""

    MODIFY = 0
    ADD = 1
    DELETE = 2

    @property
    def letter(self) -> str:
        """The letter `docker diff` prints: C, A or D."""
        return "CAD"[self.value]


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One path that differs between a layer and its parent.

    `path` is absolute within the layer and has no trailing slash; a deleted directory is one
    change, its children are not listed.
    """

    path: bytes
    kind: ChangeKind

    def __str__(self) -> str:
        # A driver may return an invalid kind; the caller has to check it.
        kind = self.kind.letter if isinstance(self.kind, ChangeKind) else self.kind
        return f"{kind} {self.path.decode('utf-8', 'backslashreplace')}"


@dataclass(frozen=True, slots=True)
class IDMap:
    """Maps the `size` ids from `container_id` inside to the ids from `host_id` outside."""

    container_id: int
    host_id: int
    size: int


class Capability(StrEnum):
    """Optional features. A driver that lacks some lists the ones it supports in `capabilities`.

    A driver without that attribute claims all of them. `meaning` is one sentence that describes the
    feature.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> "Capability":
        """Create a member from its name and its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    MOUNTING = (
        "mounting",
        "get() of a layer with a parent mounts; such mounts are to be counted and released.",
    )
    OVERLAY2_LAYOUT = (
        "overlay2_layout",
        "The home looks as the overlay2 package documentation says: diff, link, lower, l/.",
    )
    LAYER_LIMIT = (
        "layer_limit",
        "At most `layer_limit` lowers (an attribute of the driver; 128 without one).",
    )
    MOUNT_LABEL = "mount_label", "mount_label becomes the context= option of the mount."
    IDMAP = "idmap", "uid_maps and gid_maps are honoured."
    QUOTA = "quota", "storage_opt size= limits a layer; claimed on homes whose file system can."
    RESTARTABLE = "restartable", "A second driver on the same home finds the layers of the first."
    CONTENT_EXACT_CHANGES = (
        "content_exact_changes",
        "An edit that keeps size and mtime is still seen by changes and diff.",
    )
    USER_XATTRS = "user_xattrs", "user.* attributes survive diff and apply_diff."
    ACLS = "acls", "POSIX ACLs survive diff and apply_diff."
    ROOT_METADATA = (
        "root_metadata",
        "Mode, owner and attributes of the layer's root survive diff and apply_diff.",
    )
    HARDLINK_IDENTITY = (
        "hardlink_identity",
        "Hard links within one layer are hard links after apply_diff.",
    )
    LOWER_SYMLINKS = (
        "lower_symlinks",
        "apply_diff resolves a path through a symlink of a lower layer, inside the root.",
    )
    MTIME_NS = "mtime_ns", "mtimes survive diff and apply_diff to the nanosecond."
    EXACT_DIFFS = "exact_diffs", "diff of an unchanged layer gives the same bytes every time."
    LONG_NAMES = (
        "long_names",
        "Names of files may have 255 bytes; without it, 250 (fuse-overlayfs: `.wh.` goes before).",
    )
    SPARSE_FILES = "sparse_files", "Holes of files stay holes in diff and apply_diff."
    FLATTENED_DIFF = (
        "flattened_diff",
        "diff and changes without a parent give the whole tree of a layer that has one, too.",
    )
    CHANGES = "changes", "changes is a verb of the driver."
    DIFF_SIZE = "diff_size", "diff_size is a verb of the driver."
    DURABLE = (
        "durable",
        "What apply_diff has written is on the disk when it returns: a power cut loses none of it.",
    )
    HOME = "home", "All that the driver keeps is below its home, and nothing else is there."


@runtime_checkable
class Driver(Protocol):
    """A store of layers. Safe to call from several threads.

    Verbs raise `graphdriver.errors.DriverError` for a refusal by the driver and `OSError` for an
    error of the kernel. A failed verb leaves no new layer, mount or file.
    """

    def __str__(self) -> str:
        """Return the driver's name (Docker: String)."""

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Create an empty layer on `parent` ("" for none) that is read-only, such as an image's
        layer.

        Raises InvalidLayerId, LayerExists, LayerNotFound (the parent), MaxDepthExceeded,
        QuotaNotSupported, PrerequisitesNotMet (an unknown storage option).
        """

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Create an empty layer on `parent` that is writable, such as a container's; see create."""

    def remove(self, id: str) -> None:
        """Delete a layer. An unknown id is not an error.

        Raises LayerInUse when the layer has children or is held by a get.
        """

    def get(self, id: str, mount_label: str = "") -> Path:
        """Mount a layer on its ancestors and return the path of the view; every get needs one put.

        Raises LayerNotFound, MountOptionsTooLong.
        """

    def put(self, id: str) -> None:
        """Release one get; the last put unmounts the view. Without a get this has no effect."""

    def exists(self, id: str) -> bool:
        """Return whether a layer has that id; never raises."""

    def status(self) -> list[tuple[str, str]]:
        """Return information about this driver for administrators, as labels and values."""

    def get_metadata(self, id: str) -> dict[str, str]:
        """Return the paths of a layer's directories. Raises LayerNotFound."""

    def cleanup(self) -> None:
        """Unmount everything that the driver has mounted; layers stay."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Return the changes of `id` to `parent` as a tar stream; "" means the complete tree.

        The caller closes the stream; closing it early releases all resources immediately. A file
        that cannot be read makes the stream raise. Raises LayerNotFound.
        """

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Return the paths that differ between `id` and `parent`. Raises LayerNotFound."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Unpack an uncompressed layer archive into `id`; return its diff_size in bytes.

        A failed apply leaves the layer unchanged. Raises BadArchive, LayerNotFound, and LayerInUse
        when a descendant of `id` is held, read or being created.
        """

    def diff_size(self, id: str, parent: str = "") -> int:
        """Return the bytes of added and modified non-directories; hard links count once."""


DriverFactory = Callable[..., Driver]
"""Creates a driver: `init(home, options=(), uid_maps=(), gid_maps=())`.

`home` is a path that need not exist, `options` are `key=value` strings, the maps `Sequence[IDMap]`.
"""
