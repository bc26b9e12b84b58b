"""Mounting layers: the options, their length, the views.

All paths in the options are relative to the home and all lowers are given by their short links,
independent of the length of ids or the home's path: 128 of them fit the one page that mount(2)
copies. A base layer needs no mount, but its holds are counted, so that it is not removed while it
is used.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from graphdriver.errors import MountOptionsTooLong, PrerequisitesNotMet
from graphdriver.idmapping import IDMapping
from graphdriver.linux.mounts import (
    MountFlag,
    detach,
    is_mounted,
    mount,
    mountinfo,
    with_own_directory,
)
from graphdriver.overlay2.layers import LayerTable
from graphdriver.overlay2.layout import Home
from graphdriver.overlay2.recovery import APPLYING

__all__ = ["PAGE_SIZE", "MountPoints", "Mounts", "mount_data"]

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_HINTS = {
    errno.ELOOP: "ELOOP: two lowers are one directory; an emptied link file does that",
    errno.ENOENT: "ENOENT: a directory below is missing, or its name under l/",
    errno.EBUSY: "EBUSY: another mount uses the upper or work directory",
    errno.EROFS: "EROFS: the home's disk is mounted read-only, maybe after errors of the disk",
    errno.EINVAL: "EINVAL: the kernel log has the reason",
}


def mount_data(
    id: str, lowers: Sequence[str], label: str = "", prefix: str = "", *, read_only: bool = False
) -> bytes:
    """Return the options for mounting layer `id`, to be used from the home directory.

    `lowers` are entries of a lower file. Raises MountOptionsTooLong if they exceed a page: the
    kernel would truncate them and mount only some of the lowers (moby #41830). The last byte of the
    page is the terminating zero.
    """
    if '"' in label or "\0" in label:
        raise PrerequisitesNotMet(
            f"the mount label {label!r} of layer {id} holds a quote", "drop it"
        )
    if read_only:
        parts = [f"lowerdir={':'.join([f'{id}/diff', *lowers])}"]
    else:
        parts = [f"lowerdir={':'.join(lowers)}", f"upperdir={id}/diff", f"workdir={id}/work"]
    if label:
        # Quoted, because labels contain commas, for example SELinux's MCS labels.
        parts.append(f'context="{label}"')
    data = os.fsencode(prefix + ",".join(parts))
    if len(data) > PAGE_SIZE - 1:
        raise MountOptionsTooLong(
            f"cannot mount layer {id}: its options take {len(data)} bytes of {PAGE_SIZE - 1}",
            "mount label too large" if label else "use a shorter id, or fewer layers",
        )
    return data


class MountPoints:
    """The directories on which views are mounted."""

    def __init__(self, home: Path, ids: IDMapping) -> None:
        self._root = os.fspath(home)
        self._ids = ids

    def end_view(self, id: str) -> None:
        """Unmount a layer. Raises OSError.

        The mount point is recreated: since Linux 3.18 rmdir(2) detaches mounts on it in other mount
        namespaces, which would keep the upper in use (moby #34948).
        """
        merged = f"{self._root}/{id}/merged"
        detach(merged)
        with suppress(OSError):
            os.rmdir(merged)
            self.make(merged)

    def make(self, merged: str) -> None:
        """Create one. Raises OSError."""
        os.mkdir(merged, 0o700)
        if not self._ids.identity:
            os.chown(merged, *self._ids.root)


class Mounts:
    """The views of layers; `layers` counts their holds."""

    def __init__(
        self, home: Home, layers: LayerTable, points: MountPoints, prefix: str, ids: IDMapping
    ) -> None:
        self._home = home
        self._layers = layers
        self._points = points
        self._prefix = prefix
        self._ids = ids

    def get(self, id: str, label: str) -> Path:
        """Hold a layer; the first hold mounts it."""
        with self._layers.locked(id):
            self._home.require(id)
            lowers = self._home.lowers(id)
            view = self._home.view(id) if lowers else self._home.upper(id)
            if self._layers.is_held(id):
                self._layers.hold(id, lowers)
                return Path(view)
            with self._layers.mounting(id, lowers) as has_children:
                # An existing mount is another process's and is shared, or was left by a dead
                # process and is adopted.
                if lowers and not is_mounted(view):
                    self._mount(id, lowers, label, read_only=has_children)
            return Path(view)

    def put(self, id: str) -> None:
        """Release one hold; the last one unmounts. Without a hold this has no effect."""
        self._layers.put(id)

    def put_without_waiting(self, id: str) -> None:
        """Release without waiting, for streams that the garbage collector closes."""
        self._layers.put_without_waiting(id)

    def is_in_use(self, id: str) -> bool:
        """Return whether a layer is held, or mounted by another process. Call with its lock."""
        return (
            self._layers.is_held(id)
            or is_mounted(self._home.view(id))
            or self._layers.is_held_elsewhere(id)
        )

    def release_stale(self, id: str) -> None:
        """Unmount a layer that will be removed and is not held. Raises OSError.

        Other programs' mounts in it are unmounted when its tree is removed.
        """
        detach(self._home.view(id))

    def cleanup(self) -> None:
        """Unmount the views of all layers, and forget their holds.

        Other programs' mounts below the home are kept, except mounts inside a view; so are views
        that another process holds.
        """
        views: dict[str, list[Path]] = {id: [] for id in self._layers.held()}
        for entry in mountinfo(self._home.path):
            id, *inside = entry.point.relative_to(self._home.path).parts
            if entry.type == "overlay" and inside in (["merged"], [APPLYING, "merged"]):
                views.setdefault(id, []).append(entry.point)
        for id, points in views.items():
            # Serialized with get: otherwise a view that is mounted but not yet counted would be
            # unmounted.
            with self._layers.locked(id), self._layers.ending(id) as is_alone:
                if self._layers.is_held(id):
                    points.append(Path(self._home.view(id)))
                for point in reversed(points) if is_alone else ():
                    detach(point)

    @contextmanager
    def staged(self, id: str, stage: Path) -> Iterator[Path]:
        """Mount a layer with `stage`/diff as its upper, for the duration of the block."""
        lowers = ":".join(self._home.lowers(id))
        name = f"{id}/{stage.name}"
        data = f"{self._prefix}lowerdir={lowers},upperdir={name}/diff,workdir={name}/work"
        try:
            self._mount_relative(id, data.encode(), os.fsencode(f"{name}/merged"))
            self._require_writable(id, f"{stage}/merged", f"{stage}/work")
            yield stage / "merged"
        finally:
            detach(stage / "merged")

    def _mount(self, id: str, lowers: list[str], label: str, *, read_only: bool) -> None:
        # A layer with children is an image: its view is read-only, as in dockerd since 20.10.
        data = mount_data(id, lowers, label, self._prefix, read_only=read_only)
        view, work = self._home.view(id), self._home.work(id)
        target = os.fsencode(f"{id}/merged")
        try:
            try:
                self._mount_relative(id, data, target)
            except FileNotFoundError:
                # dockerd makes it on get and removes it on put since 17.12.
                if os.path.isdir(view):
                    raise
                self._points.make(view)
                self._mount_relative(id, data, target)
            if read_only:
                return
            self._require_writable(id, view, work)
            if not self._ids.identity:
                # The kernel creates work/work with owner root; a mapped root has to be able to use
                # it.
                os.chown(f"{work}/work", *self._ids.root)
        except BaseException:
            with suppress(OSError):
                detach(view)
            raise

    def _require_writable(self, id: str, view: str, work: str) -> None:
        """Refuse a read-only view: overlayfs could not create its directory in `work`.

        The kernel only logs the cause, which is almost always a full disk, so this is checked here.
        """
        if not os.statvfs(view).f_flag & os.ST_RDONLY:
            return
        os.mkdir(f"{work}/room")
        os.rmdir(f"{work}/room")
        raise OSError(
            errno.ENOSPC, f"the view of layer {id} is read-only, as on a full disk; try again"
        )

    def _mount_relative(self, id: str, data: bytes, target: bytes) -> None:
        try:
            with_own_directory(
                self._home.descriptor,
                lambda: mount("overlay", target, "overlay", MountFlag.NONE, data),
            )
        except OSError as error:
            if error.errno == errno.EINVAL and self._is_read_only():
                # overlayfs refuses an upper there by EINVAL, and logs the cause.
                error = OSError(errno.EROFS, os.strerror(errno.EROFS), str(self._home.path))
            error.add_note(f"mounting layer {id} with {len(data)} bytes of options")
            error.add_note(_HINTS.get(error.errno or 0, "see the kernel log"))
            raise error from None

    def _is_read_only(self) -> bool:
        return bool(os.fstatvfs(self._home.descriptor).f_flag & os.ST_RDONLY)
