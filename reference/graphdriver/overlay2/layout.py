"""On-disk layout. Layers are created and removed atomically.

A layer is created under a temporary name that no layer can have, made durable, and renamed. So a
crash leaves no layer, a complete one, or a remnant that the next start removes (recovery.py).
layers.py decides whether and when a layer may be created or removed.
"""

import base64
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from graphdriver import layerid
from graphdriver.errors import (
    DriverError,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    MaxDepthExceeded,
)
from graphdriver.homedir import HomeDirectory, lock, make_directory, unlock
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import RENAME_NOREPLACE, cleaning_up, renameat2
from graphdriver.overlay2.recovery import CREATING, REMOVED
from graphdriver.tree.inodes import Attributes, attributes_of, set_attributes
from graphdriver.tree.removal import remove_file_tree, remove_unmounted
from graphdriver.tree.xattrs import NO_XATTRS

__all__ = ["LINKS", "LINK_NAME", "MAX_LOWERS", "Draft", "Home", "is_read", "new_link"]

MAX_LOWERS = 128
"""overlay2's limit; 128 short links and the other options fit into one page of 4096 bytes."""

LINKS = "l"
LINK_NAME = re.compile(r"[A-Z2-7]{26}")
_TARGET = re.compile(r"\.\./([A-Za-z0-9][A-Za-z0-9_.-]*)/diff")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Errors of a path through a node that is no directory; ELOOP: a symlink to itself.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def new_link() -> str:
    """Return the name of a short link: 130 random bits as 26 characters of base32."""
    return base64.b32encode(os.urandom(17)).decode()[:26]


@dataclass(frozen=True, slots=True)
class Draft:
    """A layer that is complete and durable, but still has the name of its staging directory."""

    id: str
    parent: str
    link: str
    lowers: list[str]

    @property
    def stage(self) -> str:
        """The name of its directory in the home."""
        return f"{CREATING}{self.link}"


class Home:
    """The directory that contains the layers; `descriptor` stays open on it."""

    def __init__(self, directory: HomeDirectory, ids: IDMapping) -> None:
        """Create the directory of short links, and repair links after a crash."""
        self.path = directory.path
        self._root = os.fspath(directory.path)
        self.descriptor = directory.descriptor
        self._directory = directory
        self._ids = ids
        self._remnants: set[str] = set()
        directory.close_to_others()
        directory.make_closed(LINKS)
        with self.links() as links:
            self._repair_links(links, alone=directory.is_alone)

    def layer(self, id: str) -> Path:
        """Return the directory of a layer. Raises InvalidLayerId, LayerNotFound, OSError."""
        self.require(id)
        return self.path / id

    def require(self, id: str) -> None:
        """Raise LayerNotFound if there is no such layer. Raises InvalidLayerId, OSError."""
        layerid.check(id)
        if not self.is_layer(id):
            raise LayerNotFound(f"there is no layer {id}", "create it first")

    def is_layer(self, id: str) -> bool:
        """Return whether the layer `id` exists. Raises OSError if the disk reports an error."""
        try:
            found = os.stat(f"{id}/diff", dir_fd=self.descriptor)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return False
        return stat.S_ISDIR(found.st_mode)

    def exists(self, id: str) -> bool:
        """Return whether the layer `id` exists; False after an error."""
        with suppress(DriverError, OSError, ValueError):
            return self.is_layer(layerid.check(id))
        return False

    def lowers(self, id: str) -> list[str]:
        """Return the `lower` file: `l/A`, topmost first; [] for a base layer."""
        text = self._read(f"{id}/lower", 1 << 16)
        if text is None:
            return []
        lowers = text.split(":")
        if not all(one.startswith("l/") and LINK_NAME.fullmatch(one, 2) for one in lowers):
            raise DriverError(
                f"the lower file of layer {id} is damaged: {text[:80]!r}",
                "a power cut may have emptied it; `graphdriver fsck` reports the remedy",
            )
        return lowers

    def lower_directories(self, id: str) -> list[Path]:
        """Return the `diff` directories of the lowers, absolute, topmost first."""
        return [self.path / lower / "diff" for lower in self.lower_ids(id)]

    def lower_ids(self, id: str) -> list[str]:
        """Return the ids of the lowers, the parent first."""
        return [self._below(lower) for lower in self.lowers(id)]

    def parent(self, id: str) -> str:
        """Return the id of the parent, "" for a base layer."""
        lowers = self.lowers(id)
        return self._below(lowers[0]) if lowers else ""

    def first_lower(self, id: str) -> str:
        """Return the short link of a layer's parent, "" for a base layer or a damaged file."""
        with suppress(OSError, ValueError):
            text = self._read(f"{id}/lower", 64) or ""
            first = text.partition(":")[0].removeprefix(f"{LINKS}/")
            return first if LINK_NAME.fullmatch(first) else ""
        return ""

    def link(self, id: str) -> str:
        """Return a layer's short link, "" if the link file is missing or empty (moby #36161)."""
        link = self._read(f"{id}/link", 64) or ""
        return link if LINK_NAME.fullmatch(link) else ""

    # Paths of layers are text where each verb needs them: pathlib would take a tenth of the
    # processor time of create, get, put and remove together.

    def upper(self, id: str) -> str:
        """Return the path of a layer's own tree."""
        return f"{self._root}/{id}/diff"

    def work(self, id: str) -> str:
        """Return the path of a layer's work directory."""
        return f"{self._root}/{id}/work"

    def view(self, id: str) -> str:
        """Return the path on which a layer is mounted."""
        return f"{self._root}/{id}/merged"

    def link_file(self, id: str) -> str:
        """Return the path of the file that has a layer's short name; holders keep it locked."""
        return f"{self._root}/{id}/link"

    def layer_of(self, link: str) -> str:
        """Return the layer that a short link points to, "" if there is none."""
        match = _TARGET.fullmatch(self._target(link))
        return match[1] if match else ""

    def short_names(self, id: str) -> set[str]:
        """Return the short links of a layer, by the links' targets if its link file is damaged."""
        link = self.link(id)
        if link:
            return {link}
        return {name for name in os.listdir(self.path / LINKS) if self.layer_of(name) == id}

    def require_absent(self, id: str) -> None:
        """Raise LayerExists if a directory has the name, except for a remnant of dockerd."""
        if os.path.lexists(f"{self._root}/{id}") and not self._was_empty(id):
            raise _exists(id)

    @contextmanager
    def drafted(self, id: str, parent: str, prepare: Callable[[str], None]) -> Iterator[Draft]:
        """Create a layer in a staging directory; if the block fails, nothing of it is left.

        `prepare` gets the staging directory while it is empty. Raises LayerNotFound,
        MaxDepthExceeded, OSError.
        """
        draft = Draft(id, parent, new_link(), self._lowers_on(parent) if parent else [])
        try:
            self._build(draft, prepare)
            yield draft
        except BaseException:
            with suppress(OSError):
                cleaning_up(lambda: remove_file_tree(self.descriptor, os.fsencode(draft.stage)))
            raise

    def publish(self, draft: Draft, links: int, advance: Callable[[], None]) -> None:
        """Give the draft its final name and its short link, or undo everything.

        `links` is open on the directory of short names, and locked; `advance` is called when that
        directory has changed, and before the layer can be seen. The short name is not made durable
        by itself: the next start makes a lost one again from `link`. The parent is there: its
        directory is locked since before its files were read.
        """
        os.symlink(f"../{draft.id}/diff", draft.link, dir_fd=links)
        try:
            advance()
            try:
                self._rename(draft.stage, draft.id)
            except FileExistsError:  # another process was faster
                raise _exists(draft.id) from None
            try:
                os.fsync(self.descriptor)
            except BaseException:
                self._rename(draft.id, draft.stage)
                raise
        except BaseException:
            with suppress(OSError):
                os.unlink(draft.link, dir_fd=links)
            raise

    def remove_names(self, id: str, links: int, advance: Callable[[], None]) -> str:
        """Remove a layer's names and return the name of the remnant, for `discard`.

        See `publish`. A crash in between leaves a layer without its short link, which the next
        start recreates.
        """
        link = self.link(id)
        if link and self.layer_of(link) != id:
            link = ""  # damaged: it is the name of another layer
        gone = f"{REMOVED}{link or new_link()}"
        if link:
            os.unlink(link, dir_fd=links)
        try:
            advance()
            self._rename(id, gone)
        except BaseException:
            if link:
                with suppress(OSError):
                    os.symlink(f"../{id}/diff", link, dir_fd=links)
            raise
        return gone

    def discard(self, remnant: str) -> None:
        """Delete the remnant that `remove_names` has left.

        Raises nothing: the layer is already removed.
        The deletion of the rest is repeated with the next remnant, and by the next start.
        """
        self._remnants.add(remnant)
        for name in list(self._remnants):
            try:
                remove_unmounted(self.descriptor, name, self.path)
            except FileNotFoundError:
                self._remnants.discard(name)
            except OSError:
                continue
            else:
                self._remnants.discard(name)

    @contextmanager
    def links(self, operation: int = fcntl.LOCK_EX) -> Iterator[int]:
        """Lock the directory of short links for the block, which gets it open."""
        try:
            descriptor = lock(LINKS, self.descriptor, operation)
        except FileNotFoundError:  # another process has removed it
            self._directory.make_closed(LINKS)
            descriptor = lock(LINKS, self.descriptor, operation)
            self._repair_links(descriptor, alone=False)
        try:
            yield descriptor
        finally:
            unlock(descriptor)

    @contextmanager
    def locked_layer(self, id: str, operation: int) -> Iterator[int]:
        """Lock a layer's directory for the block, which gets it open.

        Raises LayerNotFound; with LOCK_NB LayerInUse, if another process has locked it.
        """
        try:
            descriptor = lock(id, self.descriptor, operation)
        except (FileNotFoundError, NotADirectoryError):
            raise LayerNotFound(f"layer {id} does not exist", "create it first") from None
        except BlockingIOError:
            raise is_read(id) from None
        try:
            yield descriptor
        finally:
            unlock(descriptor)

    def names(self) -> list[str]:
        """Return the names of all entries that may be layers."""
        return [name for name in os.listdir(self.descriptor) if name != LINKS and name[0] != "."]

    def _lowers_on(self, parent: str) -> list[str]:
        """Return the lowers of a new layer on `parent`."""
        self.require(parent)
        link = self.link(parent)
        if not link:
            raise DriverError(
                f"the link file of layer {parent} is missing or damaged",
                "a power cut may have emptied it; `graphdriver fsck` reports the remedy",
            )
        lowers = [f"l/{link}", *self.lowers(parent)]
        if len(lowers) > MAX_LOWERS:
            raise MaxDepthExceeded(
                f"max depth exceeded: on {parent} a layer would have {len(lowers)} lower layers",
                f"{MAX_LOWERS} are allowed; flatten the chain",
            )
        return lowers

    def _build(self, draft: Draft, prepare: Callable[[str], None]) -> None:
        written: list[int] = [make_directory(self.descriptor, draft.stage, self._ids)]
        try:
            stage = written[0]
            prepare(f"{self._root}/{draft.stage}")
            os.mkdir("diff", 0o700, dir_fd=stage)
            self._set_root_attributes(stage, draft.parent)
            written.append(_write(stage, "link", draft.link))
            if draft.lowers:
                written.append(_write(stage, "lower", ":".join(draft.lowers)))
                for name in ("work", "merged"):
                    os.mkdir(name, 0o700, dir_fd=stage)
                    if not self._ids.identity:
                        os.chown(name, *self._ids.root, dir_fd=stage)
            # A power cut must not leave one of them empty (moby #42964). Last, and one after the
            # other: with its data on the way to the disk before the first fsync(2), the second
            # file is in the same commit of the journal, as are the directories.
            if draft.lowers:
                with suppress(OSError):
                    os.posix_fadvise(written[-1], 0, 0, os.POSIX_FADV_DONTNEED)
            for descriptor in (*written[1:], stage):
                os.fsync(descriptor)
        finally:
            for descriptor in written:
                os.close(descriptor)

    def _set_root_attributes(self, stage: int, parent: str) -> None:
        """Give the layer's root its parent's metadata: the merged root shows the upper's.

        It has just been created in a staging directory without default ACL and setgid, so it has no
        xattrs, and the owner of this process.
        """
        attributes = Attributes(0o755, *self._ids.root, 0, NO_XATTRS)
        if parent:
            above = os.fsencode(self.upper(parent))
            attributes = attributes_of(above, os.lstat(above))
        if attributes.xattrs:
            set_attributes(stage, b"diff", attributes)
            return
        if (attributes.uid, attributes.gid) != (os.geteuid(), os.getegid()):
            os.chown("diff", attributes.uid, attributes.gid, dir_fd=stage, follow_symlinks=False)
        os.chmod("diff", attributes.mode, dir_fd=stage)

    def _rename(self, old: str, new: str) -> None:
        renameat2(os.fsencode(old), os.fsencode(new), RENAME_NOREPLACE, self.descriptor)

    def _read(self, name: str, size: int) -> str | None:
        """Return a small file of a layer, None if it is missing. Raises OSError."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return None
        try:
            return os.fsdecode(os.read(descriptor, size))
        finally:
            os.close(descriptor)

    def _below(self, lower: str) -> str:
        """Return the id of a lower layer from its entry in a lower file."""
        # Otherwise a process that can write to l/ could make the driver read or mount any
        # directory.
        if not (id := self.layer_of(lower[2:])):
            raise DriverError(
                f"{lower} points to {self._target(lower[2:])!r} instead of a layer",
                "a lower layer was removed or damaged; remove its descendants",
            )
        return id

    def _target(self, link: str) -> str:
        """Return the target of a short link, "" if there is no such symlink. Raises OSError."""
        try:
            return os.readlink(f"{LINKS}/{link}", dir_fd=self.descriptor)
        except OSError as error:
            # Any other error is a disk error, and layers must not be removed because of it.
            if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
                raise
            return ""

    def _was_empty(self, id: str) -> bool:
        """Remove the empty directory that a dockerd leaves when it is killed early in create."""
        with suppress(OSError):
            os.rmdir(self.path / id)
            return True
        return False

    def _repair_links(self, links: int, *, alone: bool) -> None:
        """Make short names again that a power cut has lost, and remove those of no layer if alone.

        `links` is open on their directory. A home has thousands of layers: one readlink(2) for each
        short name is all that a whole layer costs, only those are looked into that none points to.
        """
        lost = {f"../{name}/diff": name for name in self.names()}
        dangling = []
        for link in os.listdir(links):
            try:
                found = lost.pop(os.readlink(link, dir_fd=links), None)
            except OSError:
                found = None
            if found is None:
                dangling.append(self.path / LINKS / link)
        for one in dangling if alone else ():
            _remove_dangling(one)
        for name in lost.values():
            if (link := self.link(name)) and self.is_layer(name):
                with suppress(FileExistsError):
                    os.symlink(f"../{name}/diff", link, dir_fd=links)


def _remove_dangling(link: Path) -> None:
    """Remove a short link that points to no layer. A link that cannot be read stays."""
    with suppress(OSError):
        if not link.is_symlink():
            return
        try:
            os.stat(link)
        except FileNotFoundError:
            link.unlink()


def is_read(id: str) -> LayerInUse:
    """Return the error for a layer that is locked by a reader, or by the creation of a child."""
    return LayerInUse(
        f"layer {id} is in use: it is read, changed, or gets a child, possibly by another process",
        "end diffs of it, and try again",
    )


def _exists(id: str) -> LayerExists:
    return LayerExists(f"layer {id} exists already", "choose another id, or remove it")


def _write(directory: int, name: str, text: str) -> int:
    """Write a file and return it open, for fsync(2)."""
    descriptor = os.open(name, _CREATE, 0o644, dir_fd=directory)
    try:
        data = text.encode()
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
