"""Mounting layers: the options, their length, and who holds which mount.

All paths in the options are relative to the home and all lowers go by their short names, whatever
the length of ids or home: 128 of them then fit the one page that mount(2) copies. A base layer
needs no mount, but is counted all the same, so that nobody removes it under its user.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from graphdriver.errors import LayerInUse, MountOptionsTooLong, PrerequisitesNotMet
from graphdriver.idmapping import IDMapping
from graphdriver.linux.mounts import (
    MountFlag,
    UnmountFlag,
    mount,
    mountinfo,
    umount2,
    with_own_directory,
)
from graphdriver.overlay2.layout import Home

__all__ = ["PAGE_SIZE", "Mounts", "mount_data"]

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_HINTS = {
    40: "ELOOP: two lowers are the same directory; an empty link file after a power cut does that",
    2: "ENOENT: a directory below is missing, or its name under l/",
    16: "EBUSY: another mount uses the upper or work directory",
    22: "EINVAL: the kernel log has the reason",
}


def mount_data(
    id: str, lowers: Sequence[str], label: str = "", prefix: str = "", *, read_only: bool = False
) -> bytes:
    """Return the options for mounting layer `id`, to be used from the home directory.

    `lowers` are entries of a lower file. Raises MountOptionsTooLong when a page would not hold
    them: the kernel would cut them off and mount what is left (moby #41830). The page's last byte
    is the string's zero.
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
        # Quoted, because a label has commas of its own, as SELinux's MCS labels have.
        parts.append(f'context="{label}"')
    data = (prefix + ",".join(parts)).encode()
    if len(data) > PAGE_SIZE - 1:
        raise MountOptionsTooLong(
            f"cannot mount layer {id}: its options take {len(data)} bytes of {PAGE_SIZE - 1}",
            "mount label too large" if label else "use a shorter id, or fewer layers",
        )
    return data


class _LayerLock:
    """A layer's lock, kept while anyone holds or awaits it, also when the layer is removed:

    a second lock for the same id would let two threads in.
    """

    __slots__ = ("held", "users")

    def __init__(self) -> None:
        self.held = threading.RLock()
        self.users = 0


class Mounts:
    """The layers that are held, and by how many."""

    def __init__(self, home: Home, prefix: str, ids: IDMapping) -> None:
        self._home = home
        self._prefix = prefix
        self._ids = ids
        self._holders: dict[str, int] = {}
        self._locks: dict[str, _LayerLock] = {}
        self._guard = threading.Lock()

    def get(self, id: str, label: str) -> Path:
        """Hold a layer; the first holder mounts it."""
        with self.locked(id):
            layer = self._home.layer(id)
            lowers = self._home.lowers(id)
            view = layer / "merged" if lowers else layer / "diff"
            # A mount that is there without a holder was left by a process that died: it is taken
            # over.
            if lowers and not self._holders.get(id) and not _is_mounted(view):
                self._mount(id, lowers, label, view)
            self._holders[id] = self._holders.get(id, 0) + 1
            return view

    def put(self, id: str) -> None:
        """Give back one hold; the last one unmounts. Without a hold nothing happens."""
        with self.locked(id):
            holders = self._holders.get(id, 0)
            if holders > 1:
                self._holders[id] = holders - 1
            elif holders:
                del self._holders[id]
                merged = self._home.path / id / "merged"
                self._unmount(merged)
                self._renew(merged)

    def is_held(self, id: str) -> bool:
        """Say whether someone holds the layer. Ask with its lock."""
        return bool(self._holders.get(id))

    def release_stale(self, id: str) -> None:
        """Unmount what a dead process has left in an unheld layer. Raises LayerInUse when held."""
        if self.is_held(id):
            raise LayerInUse(
                f"layer {id} is held by {self._holders[id]} get(s)", "put it first, then remove it"
            )
        for entry in reversed(mountinfo(self._home.path / id)):
            self._unmount(entry.point)

    def cleanup(self) -> None:
        """Unmount everything below the home and forget who held it."""
        with self._guard:
            for entry in reversed(mountinfo(self._home.path)):
                self._unmount(entry.point)
            self._holders.clear()

    @contextmanager
    def locked(self, id: str) -> Iterator[None]:
        """Do something with a layer while nobody mounts, unmounts or removes it."""
        with self._guard:
            lock = self._locks.setdefault(id, _LayerLock())
            lock.users += 1
        try:
            with lock.held:
                yield
        finally:
            with self._guard:
                lock.users -= 1
                if not lock.users:
                    del self._locks[id]

    @contextmanager
    def staged(self, id: str, stage: Path) -> Iterator[Path]:
        """Mount a layer with `stage`/diff for its upper, for as long as the block runs."""
        lowers = ":".join(self._home.lowers(id))
        name = f"{id}/{stage.name}"
        data = f"{self._prefix}lowerdir={lowers},upperdir={name}/diff,workdir={name}/work"
        self._mount_relative(id, data.encode(), os.fsencode(f"{name}/merged"))
        try:
            yield stage / "merged"
        finally:
            umount2(stage / "merged", UnmountFlag.DETACH)

    def _mount(self, id: str, lowers: list[str], label: str, view: Path) -> None:
        # What has children is an image: it is shown read-only, as dockerd does since 20.10.
        read_only = self._home.has_children(id)
        data = mount_data(id, lowers, label, self._prefix, read_only=read_only)
        if not view.is_dir():  # dockerd makes it on get and removes it on put since 17.12
            self._make_mount_point(view)
        self._mount_relative(id, data, os.fsencode(f"{id}/merged"))
        if not read_only and not self._ids.identity:
            # The kernel makes work/work root's; a mapped root has to be able to use it.
            os.chown(self._home.path / id / "work" / "work", *self._ids.root)

    def _mount_relative(self, id: str, data: bytes, target: bytes) -> None:
        try:
            with_own_directory(
                self._home.descriptor,
                lambda: mount("overlay", target, "overlay", MountFlag.NONE, data),
            )
        except OSError as error:
            error.add_note(f"mounting layer {id} with {len(data)} bytes of options")
            error.add_note(_HINTS.get(error.errno or 0, "see the kernel log"))
            raise

    def _renew(self, merged: Path) -> None:
        """Make the mount point anew: with the old one go its copies in other mount namespaces.

        They would keep the upper in use (moby #34948; rmdir(2) does this since Linux 3.18).
        """
        with suppress(OSError):
            merged.rmdir()
            self._make_mount_point(merged)

    def _make_mount_point(self, merged: Path) -> None:
        merged.mkdir(0o700)
        if not self._ids.identity:
            os.chown(merged, *self._ids.root)

    def _unmount(self, point: Path) -> None:
        """Take a mount out of the tree, even while files in it are open (moby #33638)."""
        with suppress(FileNotFoundError):
            try:
                umount2(point, UnmountFlag.DETACH | UnmountFlag.NOFOLLOW)
            except OSError as error:
                if error.errno != 22:  # EINVAL: not a mount, someone else was faster
                    raise


def _is_mounted(view: Path) -> bool:
    """Say whether something is mounted at `view`: it is on another device than its parent."""
    try:
        return view.lstat().st_dev != view.parent.lstat().st_dev
    except FileNotFoundError:
        return False
