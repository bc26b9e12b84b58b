"""diff, changes, diff_size and apply_diff: native where this is correct, otherwise with two views.

Native means to read or write a layer's `diff` directory directly, at a cost that depends on the
size of the layer; a comparison of two views depends on the size of both trees.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from graphdriver.apply.target import Target, upper_target, view_target
from graphdriver.apply.unpack import unpack
from graphdriver.archive.stream import open_stream
from graphdriver.archive.writer import NotNative, Record
from graphdriver.contract import Change
from graphdriver.differ.naive import NaiveDiffer
from graphdriver.differ.native import Upper
from graphdriver.errors import LayerInUse, LayerNotFound
from graphdriver.homedir import DIRECTORY, make_directory
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import RENAME_EXCHANGE, cleaning_up, renameat2, syncfs
from graphdriver.overlay2.layers import LayerTable
from graphdriver.overlay2.layout import Home, new_link
from graphdriver.overlay2.mounts import Mounts
from graphdriver.overlay2.recovery import APPLYING, UNDO, forget_index, repair_layer, stage_link
from graphdriver.overlay2.support import Support, is_native_diff_right
from graphdriver.overlayfs.lowers import LowerTree
from graphdriver.tree.copy import copy_tree
from graphdriver.tree.removal import remove_unmounted

__all__ = ["Differ"]


class Views:
    """Lets the naive differ hold layers, for both ways in which their views are provided."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts

    def get(self, id: str, mount_label: str = "") -> Path:
        """Hold a layer."""
        return self._mounts.get(id, mount_label)

    def put(self, id: str) -> None:
        """Release the layer, also where the garbage collector closes a stream."""
        self._mounts.put_without_waiting(id)


class Differ:
    """The four verbs over one home."""

    def __init__(
        self,
        home: Home,
        layers: LayerTable,
        mounts: Mounts,
        support: Support,
        ids: IDMapping,
        *,
        sync: bool = False,
    ) -> None:
        """With `sync`, apply_diff syncs the files that it has written before it returns."""
        self._sync = sync
        self._home = home
        self._layers = layers
        self._mounts = mounts
        self._support = support
        self._ids = ids
        self._naive = NaiveDiffer(Views(mounts), ids)
        self._native: bool | None = None

    @property
    def is_native(self) -> bool:
        """Whether upper directories can be read directly; probed once, with the mounts of this
        home.

        Two views are correct as well, so a failed probe is not an error and is repeated later.
        """
        if self._native is None:
            with suppress(OSError):
                self._native = is_native_diff_right(self._home.path, self._support)
        return bool(self._native)

    def diff(self, id: str, parent: str) -> BinaryIO:
        """Return the archive of the changes of `id` to `parent`."""
        with ExitStack() as undo:
            upper = self._read(undo, id, parent)
            if upper is not None:
                # The archive cannot be restarted if a redirect or metacopy is found in the middle.
                with suppress(NotNative):
                    upper.check()
                    reading = undo.pop_all()
                    return open_stream(_records(upper, reading), reading.close)
            return self._naive.diff(id, parent, undo.pop_all().close)

    def changes(self, id: str, parent: str) -> list[Change]:
        """Return the paths that `id` changes in `parent`."""
        with ExitStack() as reading:
            upper = self._read(reading, id, parent)
            if upper is not None:
                with suppress(NotNative):
                    return upper.changes()
            return self._naive.changes(id, parent)

    def diff_size(self, id: str, parent: str) -> int:
        """Return the bytes that `id` adds to `parent`."""
        with ExitStack() as reading:
            upper = self._read(reading, id, parent)
            if upper is not None:
                with suppress(NotNative):
                    return upper.size()
            return self._naive.diff_size(id, parent)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Unpack an archive into a layer, completely or not at all."""
        layer = self._home.layer(id)
        if parent:
            self._home.layer(parent)
        with self._layers.locked(id):
            self._layers.require_unused_above(id)
            with self._layers.reading(id) as directory, self._stage(layer) as stage:
                if self._mounts.is_in_use(id):
                    # An archive that is being read would be a mixture of two trees.
                    with self._layers.writing(id, directory):
                        return self._apply_in_place(id, layer, stage, diff)
                return self._apply_aside(id, layer, directory, stage, diff)

    def _read(self, reading: ExitStack, id: str, parent: str) -> Upper | None:
        """Keep both layers unchanged until `reading` is closed; return the upper directory to read.

        Returns None if two views have to be compared; a base layer is held without a mount, which
        other processes would not notice. Raises LayerNotFound.
        """
        layer = self._home.layer(id)
        if parent:
            self._home.layer(parent)
        reading.enter_context(self._layers.reading(id))
        if parent != self._home.parent(id) or (parent and not self.is_native):
            if parent:
                reading.enter_context(self._layers.reading(parent))
            return None
        lowers = LowerTree(self._home.lower_directories(id), self._support.xattr_prefix)
        return Upper(layer / "diff", lowers, self._support.xattr_prefix, self._ids)

    @contextmanager
    def _stage(self, layer: Path) -> Iterator[Path]:
        """Create a staging directory in a layer for unpacking, and remove it after the block.

        At that point the block has succeeded, so an error of the removal is ignored; the next
        apply_diff or start removes the rest.
        """
        with ExitStack() as opened:
            with self._home.links():  # another process makes no stage, nor removes the layer
                try:
                    directory = os.open(layer, DIRECTORY)
                except FileNotFoundError:
                    raise LayerNotFound(f"layer {layer.name} does not exist") from None
                opened.callback(os.close, directory)
                repair_layer(layer)
                name, target = stage_link(new_link(), layer.name)
                os.symlink(target, name, dir_fd=self._home.descriptor)
                try:
                    stage = make_directory(directory, APPLYING)
                except BaseException:
                    with suppress(OSError):
                        os.unlink(name, dir_fd=self._home.descriptor)
                    raise
                opened.callback(os.close, stage)
                # The lock distinguishes a staging directory in use from the remnant of a crash.
                fcntl.flock(stage, fcntl.LOCK_EX)
            try:
                yield layer / APPLYING
            finally:
                with suppress(OSError):
                    cleaning_up(lambda: remove_unmounted(directory, APPLYING, layer))
                    os.unlink(name, dir_fd=self._home.descriptor)

    def _apply_in_place(self, id: str, layer: Path, stage: Path, diff: BinaryIO) -> int:
        """Apply through the view that someone holds: its directory cannot be exchanged."""
        with self._view_of_others(id, layer) as view:
            return self._apply_to_view(id, layer, stage, diff, view)

    @contextmanager
    def _view_of_others(self, id: str, layer: Path) -> Iterator[Path]:
        """Open the view of a held layer; its path stays valid in the block after a put.

        The layer is not held again: the last put would end the mount of another process.
        Raises LayerInUse.
        """
        is_base = not self._home.lowers(id)
        opened = os.open(layer / ("diff" if is_base else "merged"), DIRECTORY)
        try:
            if not is_base and os.fstat(opened).st_dev == os.stat(layer).st_dev:
                raise LayerInUse(f"layer {id} is held in another mount namespace", "put it first")
            if os.fstatvfs(opened).f_flag & os.ST_RDONLY:
                raise LayerInUse(f"layer {id} is held and shown read-only", "put it first")
            yield Path(f"/proc/self/fd/{opened}")
        finally:
            os.close(opened)

    def _apply_to_view(self, id: str, layer: Path, stage: Path, diff: BinaryIO, view: Path) -> int:
        """Unpack into a view.

        Until the archive is applied, the staging directory contains a copy of the old tree, for
        recovery after a crash.
        """
        copy_tree(layer / "diff", stage / "copy", with_overlay_xattrs=True)
        # Recovery uses the copy as the tree, so its content must be on the disk before a power cut.
        syncfs(self._home.descriptor)
        os.rename(stage / "copy", stage / UNDO)
        try:
            size = unpack(diff, view_target(view, self._ids.root), self._ids)
            self._write_back()
            os.rename(stage / UNDO, stage / "done")
            self._make_durable(stage)
        except BaseException as error:
            # Otherwise the next start would restore the old tree while the layer is in use.
            with suppress(OSError):
                os.rename(stage / UNDO, stage / "done")
            error.add_note(
                f"layer {id} was held, so a part of the archive may be in it: "
                "try again, or remove it"
            )
            raise
        return size

    def _apply_aside(
        self, id: str, layer: Path, directory: int, stage: Path, diff: BinaryIO
    ) -> int:
        """Unpack into the staging directory, then exchange it with the layer's directory."""
        # Unpacking replaces files; a view may write to them, for example in a copy-up.
        is_native = self.is_native or not self._home.lowers(id)
        copy_tree(layer / "diff", stage / "diff", with_overlay_xattrs=True, share=is_native)
        if is_native:
            size = unpack(diff, self._upper_target(id, stage / "diff"), self._ids)
        else:
            size = self._apply_to_staged_view(id, stage, diff)
        self._write_back()
        with self._layers.exchanging(id, directory):
            if self._mounts.is_in_use(id):
                raise LayerInUse(f"layer {id} was mounted meanwhile", "put it, and try again")
            forget_index(layer)
            new, old = os.fsencode(stage / "diff"), os.fsencode(layer / "diff")
            renameat2(new, old, RENAME_EXCHANGE)
            try:
                self._make_durable(layer)
            except BaseException:
                renameat2(new, old, RENAME_EXCHANGE)
                raise
        return size

    def _write_back(self) -> None:
        """Sync the files before the directory gets its final name. Raises OSError."""
        if self._sync:
            syncfs(self._home.descriptor)

    def _make_durable(self, directory: Path) -> None:
        """Sync the names in a directory. Raises OSError."""
        if self._sync:
            descriptor = os.open(directory, DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _upper_target(self, id: str, upper: Path) -> Target:
        prefix = self._support.xattr_prefix
        lowers = LowerTree(self._home.lower_directories(id), prefix)
        return upper_target(upper, lowers, prefix, self._ids.root)

    def _apply_to_staged_view(self, id: str, stage: Path, diff: BinaryIO) -> int:
        """Let the kernel write the upper directory in cases that only the kernel supports."""
        for name in ("work", "merged"):
            (stage / name).mkdir(0o700)
        with self._mounts.staged(id, stage) as view:
            return unpack(diff, view_target(view, self._ids.root), self._ids)


def _records(upper: Upper, reading: ExitStack) -> Iterator[Record]:
    with reading:
        yield from upper.records()
