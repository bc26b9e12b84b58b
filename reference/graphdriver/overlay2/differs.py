"""diff, changes, diff_size and apply_diff: natively where that is right, over two views elsewhere.

Native means reading or writing a layer's `diff` directory itself, which costs what the layer holds;
two views cost what both file systems hold.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from graphdriver.apply.target import Target, upper_target, view_target
from graphdriver.apply.unpack import unpack
from graphdriver.archive.stream import open_stream
from graphdriver.archive.writer import NotNative
from graphdriver.contract import Change
from graphdriver.differ.naive import NaiveDiffer
from graphdriver.differ.native import Upper
from graphdriver.errors import DriverError
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import RENAME_EXCHANGE, renameat2
from graphdriver.overlay2.layout import Home
from graphdriver.overlay2.mounts import Mounts
from graphdriver.overlay2.support import Support, is_native_diff_right
from graphdriver.overlayfs.lowers import LowerTree
from graphdriver.tree.copy import copy_tree
from graphdriver.tree.removal import remove_node

__all__ = ["Differ"]

_STAGE = ".applying"


class Views:
    """Lets the naive differ hold layers, whichever way their users get them."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts

    def get(self, id: str, mount_label: str = "") -> Path:
        """Hold a layer."""
        return self._mounts.get(id, mount_label)

    def put(self, id: str) -> None:
        """Give it back."""
        self._mounts.put(id)


class Differ:
    """The four verbs over one home."""

    def __init__(self, home: Home, mounts: Mounts, support: Support, ids: IDMapping) -> None:
        self._home = home
        self._mounts = mounts
        self._support = support
        self._ids = ids
        self._naive = NaiveDiffer(Views(mounts), ids)
        self._native: bool | None = None

    @property
    def is_native(self) -> bool:
        """Whether uppers can be read on their own; tried once, with the mounts of this home."""
        if self._native is None:
            self._native = is_native_diff_right(self._home.path, self._support)
        return self._native

    def diff(self, id: str, parent: str) -> BinaryIO:
        """Return the archive of what `id` has beyond `parent`."""
        upper = self._upper(id, parent)
        if upper is not None:
            # Meeting a redirect or metacopy half-way would be too late to start again.
            with suppress(NotNative):
                upper.check()
                return open_stream(upper.records())
        return self._naive.diff(id, parent)

    def changes(self, id: str, parent: str) -> list[Change]:
        """Return the paths that `id` changes in `parent`."""
        upper = self._upper(id, parent)
        if upper is not None:
            with suppress(NotNative):
                return upper.changes()
        return self._naive.changes(id, parent)

    def diff_size(self, id: str, parent: str) -> int:
        """Return the bytes that `id` adds to `parent`."""
        upper = self._upper(id, parent)
        if upper is not None:
            with suppress(NotNative):
                return upper.size()
        return self._naive.diff_size(id, parent)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Unpack an archive into a layer: wholly, or not at all."""
        layer = self._home.layer(id)
        if parent:
            self._home.layer(parent)
        with self._mounts.locked(id):
            if self._mounts.is_held(id):
                return self._apply_in_place(id, diff)
            return self._apply_aside(id, layer, diff)

    def _upper(self, id: str, parent: str) -> Upper | None:
        """Return the upper to read; None when two views have to be compared."""
        layer = self._home.layer(id)
        if parent:
            self._home.layer(parent)
        if parent != self._home.parent(id) or (parent and not self.is_native):
            return None
        lowers = LowerTree(self._home.lower_directories(id), self._support.xattr_prefix)
        return Upper(layer / "diff", lowers, self._support.xattr_prefix, self._ids)

    def _apply_in_place(self, id: str, diff: BinaryIO) -> int:
        """Apply through the view that someone holds: its directory cannot be exchanged."""
        view = self._mounts.get(id, "")
        try:
            return unpack(diff, view_target(view, self._ids.root), self._ids)
        except (OSError, DriverError) as error:
            error.add_note(f"layer {id} was held, so a part of the archive is in it: remove it")
            raise
        finally:
            self._mounts.put(id)

    def _apply_aside(self, id: str, layer: Path, diff: BinaryIO) -> int:
        """Unpack beside the layer's directory and exchange the two when all is there."""
        directory = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _discard(directory)
            stage = layer / _STAGE
            stage.mkdir(0o700)
            copy_tree(layer / "diff", stage / "diff", with_overlay_marks=True)
            if self.is_native or not self._home.lowers(id):
                size = unpack(diff, self._upper_target(id, stage / "diff"), self._ids)
            else:
                size = self._apply_to_staged_view(id, stage, diff)
            renameat2(_STAGE.encode() + b"/diff", b"diff", RENAME_EXCHANGE, directory)
            _forget_index(layer)
            return size
        finally:
            _discard(directory)
            os.close(directory)

    def _upper_target(self, id: str, upper: Path) -> Target:
        prefix = self._support.xattr_prefix
        lowers = LowerTree(self._home.lower_directories(id), prefix)
        return upper_target(upper, lowers, prefix, self._ids.root)

    def _apply_to_staged_view(self, id: str, stage: Path, diff: BinaryIO) -> int:
        """Let the kernel write the upper, where only it knows how."""
        for name in ("work", "merged"):
            (stage / name).mkdir(0o700)
        with self._mounts.staged(id, stage) as view:
            return unpack(diff, view_target(view, self._ids.root), self._ids)


def _forget_index(layer: Path) -> None:
    """Remove the index of the old upper: with index=on the kernel refuses it for another one."""
    work = layer / "work"
    if (work / "index").exists():
        directory = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_node(directory, b"index")
        finally:
            os.close(directory)


def _discard(layer: int) -> None:
    with suppress(FileNotFoundError):
        remove_node(layer, _STAGE.encode())
