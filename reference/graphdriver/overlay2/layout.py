"""Layers on disk: the files of a layer, made whole or not at all, and removed the same way.

A layer is built beside its place under a name that no layer can have, made durable, and renamed. So
a crash leaves no layer, a whole one, or a remnant that the next start removes (recovery.py).
layers.py decides who may make or remove a layer, and when.
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
from graphdriver.tree.inodes import attributes_of, set_attributes
from graphdriver.tree.removal import remove_node, remove_unmounted

__all__ = ["LINKS", "LINK_NAME", "MAX_LOWERS", "Draft", "Home", "is_read", "new_link"]

MAX_LOWERS = 128
"""overlay2's limit; 128 short names and the rest of the options fit one page of 4096 bytes."""

LINKS = "l"
LINK_NAME = re.compile(r"[A-Z2-7]{26}")
_TARGET = re.compile(r"\.\./([A-Za-z0-9][A-Za-z0-9_.-]*)/diff")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Of a path through what is no directory; the last one is a symlink that points to itself.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def new_link() -> str:
    """Return a short name: 130 random bits as 26 characters of base32."""
    return base64.b32encode(os.urandom(17)).decode()[:26]


@dataclass(frozen=True, slots=True)
class Draft:
    """A layer that is whole and durable, but still under the name of its stage."""

    id: str
    parent: str
    link: str
    lowers: list[str]

    @property
    def stage(self) -> str:
        """The name of its directory in the home."""
        return f"{CREATING}{self.link}"


class Home:
    """The directory that holds the layers; `descriptor` stays open on it."""

    def __init__(self, directory: HomeDirectory, ids: IDMapping) -> None:
        """Make the directory of short names, and mend those that a crash has left or lost."""
        self.path = directory.path
        self.descriptor = directory.descriptor
        self._directory = directory
        self._ids = ids
        self._remnants: set[str] = set()
        directory.close_to_others()
        directory.make_closed(LINKS)
        with self.links():
            self._mend_links(alone=directory.is_alone)

    def layer(self, id: str) -> Path:
        """Return the directory of a layer. Raises InvalidLayerId, LayerNotFound, OSError."""
        layerid.check(id)
        if not self.is_layer(id):
            raise LayerNotFound(f"there is no layer {id}", "create it first")
        return self.path / id

    def is_layer(self, id: str) -> bool:
        """Say whether there is a layer `id`. Raises OSError where the disk does not tell."""
        try:
            found = os.stat(f"{id}/diff", dir_fd=self.descriptor)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return False
        return stat.S_ISDIR(found.st_mode)

    def exists(self, id: str) -> bool:
        """Say whether there is a layer `id`; False where that cannot be told."""
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
                "a power cut may have emptied it; `graphdriver fsck` says what mends the home",
            )
        return lowers

    def lower_directories(self, id: str) -> list[Path]:
        """Return the `diff` directories below, absolute, topmost first."""
        return [self.path / lower / "diff" for lower in self.lower_ids(id)]

    def lower_ids(self, id: str) -> list[str]:
        """Return the ids of the layers below, the parent first."""
        return [self._below(lower) for lower in self.lowers(id)]

    def parent(self, id: str) -> str:
        """Return the id of the parent, "" for a base layer."""
        lowers = self.lowers(id)
        return self._below(lowers[0]) if lowers else ""

    def first_lower(self, id: str) -> str:
        """Return the short name of a layer's parent, "" for a base layer or a damaged file."""
        with suppress(OSError, ValueError):
            text = self._read(f"{id}/lower", 64) or ""
            first = text.partition(":")[0].removeprefix(f"{LINKS}/")
            return first if LINK_NAME.fullmatch(first) else ""
        return ""

    def link(self, id: str) -> str:
        """Return a layer's short name, "" when its file is missing or holds none (moby #36161)."""
        link = self._read(f"{id}/link", 64) or ""
        return link if LINK_NAME.fullmatch(link) else ""

    def link_file(self, id: str) -> str:
        """Return the path of the file that has a layer's short name; holders keep it locked."""
        return f"{self.path}/{id}/link"

    def layer_of(self, link: str) -> str:
        """Return the layer that a short name points to, "" where it points to none."""
        match = _TARGET.fullmatch(self._target(link))
        return match[1] if match else ""

    def short_names(self, id: str) -> set[str]:
        """Return the short names of a layer; from the other side where its link file is damaged."""
        link = self.link(id)
        if link:
            return {link}
        return {name for name in os.listdir(self.path / LINKS) if self.layer_of(name) == id}

    def require_absent(self, id: str) -> None:
        """Raise LayerExists when a directory has the name, but for the remnant of a dockerd."""
        if os.path.lexists(self.path / id) and not self._was_empty(id):
            raise _exists(id)

    @contextmanager
    def drafted(self, id: str, parent: str, prepare: Callable[[Path], None]) -> Iterator[Draft]:
        """Build a layer in a stage; when the block fails, nothing of it is left.

        `prepare` gets the stage before there is anything in it. Raises LayerNotFound,
        MaxDepthExceeded, OSError.
        """
        draft = Draft(id, parent, new_link(), self._lowers_on(parent) if parent else [])
        try:
            self._build(draft, prepare)
            yield draft
        except BaseException:
            with suppress(OSError):
                cleaning_up(lambda: remove_node(self.descriptor, os.fsencode(draft.stage)))
            raise

    def publish(self, draft: Draft, links: int, advance: Callable[[], None]) -> None:
        """Give the draft its names; all that may fail is done before, or undone.

        `links` is open on the directory of short names, and locked; `advance` is called when that
        directory has changed, and before the layer can be seen. The short name is not made durable
        by itself: the next start makes a lost one again from `link`.
        """
        if draft.parent and self.link(draft.parent) != draft.lowers[0][2:]:
            raise LayerNotFound(f"there is no layer {draft.parent} any more", "create it first")
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

    def withdraw(self, id: str, links: int, advance: Callable[[], None]) -> str:
        """Take a layer's names from it and return the name of the remnant, for `discard`.

        See `publish`. A crash in between leaves a layer that lacks its short name, which the next
        start makes again.
        """
        link = self.link(id)
        if link and self.layer_of(link) != id:
            link = ""  # damaged: it is the name of another layer
        gone = f"{REMOVED}{new_link()}"
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
        """Delete what `withdraw` has left. The layer is gone already, so nothing is raised.

        What could not be deleted is tried again with the next one, and by the next start.
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
        """Keep the directory of short names locked for the block, which gets it open."""
        try:
            descriptor = lock(LINKS, self.descriptor, operation)
        except FileNotFoundError:  # somebody has removed it
            self._directory.make_closed(LINKS)
            self._mend_links(alone=False)
            descriptor = lock(LINKS, self.descriptor, operation)
        try:
            yield descriptor
        finally:
            unlock(descriptor)

    @contextmanager
    def locked_layer(self, id: str, operation: int) -> Iterator[int]:
        """Keep a layer's directory locked for the block, which gets it open.

        Raises LayerNotFound; with LOCK_NB LayerInUse, when another has it.
        """
        try:
            descriptor = lock(id, self.descriptor, operation)
        except (FileNotFoundError, NotADirectoryError):
            raise LayerNotFound(f"there is no layer {id} any more", "create it first") from None
        except BlockingIOError:
            raise is_read(id) from None
        try:
            yield descriptor
        finally:
            unlock(descriptor)

    def names(self) -> list[str]:
        """Return the names of everything that may be a layer."""
        return [name for name in os.listdir(self.descriptor) if name != LINKS and name[0] != "."]

    def _lowers_on(self, parent: str) -> list[str]:
        """Return the lowers of a layer that is to stand on `parent`."""
        self.layer(parent)
        link = self.link(parent)
        if not link:
            raise DriverError(
                f"the link file of layer {parent} is missing or damaged",
                "a power cut may have emptied it; `graphdriver fsck` says what mends the home",
            )
        lowers = [f"l/{link}", *self.lowers(parent)]
        if len(lowers) > MAX_LOWERS:
            raise MaxDepthExceeded(
                f"max depth exceeded: on {parent} a layer would have {len(lowers)} lower layers",
                f"{MAX_LOWERS} are allowed; flatten the chain",
            )
        return lowers

    def _build(self, draft: Draft, prepare: Callable[[Path], None]) -> None:
        written: list[int] = [make_directory(self.descriptor, draft.stage, self._ids)]
        try:
            stage = written[0]
            prepare(self.path / draft.stage)
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
            # other: the first takes most of the others into the same commit of the disk's journal.
            for descriptor in (*written[1:], stage):
                os.fsync(descriptor)
        finally:
            for descriptor in written:
                os.close(descriptor)

    def _set_root_attributes(self, stage: int, parent: str) -> None:
        """Give the layer's root its parent's metadata: the merged root shows the upper's."""
        if parent:
            above = os.fsencode(self.path / parent / "diff")
            set_attributes(stage, b"diff", attributes_of(above, os.lstat(above)))
        else:
            os.chown("diff", *self._ids.root, dir_fd=stage, follow_symlinks=False)
            os.chmod("diff", 0o755, dir_fd=stage)

    def _rename(self, old: str, new: str) -> None:
        renameat2(os.fsencode(old), os.fsencode(new), RENAME_NOREPLACE, self.descriptor)

    def _read(self, name: str, size: int) -> str | None:
        """Return a small file of a layer, None when it is missing. Raises OSError."""
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
        """Return the id of a lower layer, named as in a lower file."""
        # Whoever can write to l/ could otherwise make us read, or mount, anything.
        if not (id := self.layer_of(lower[2:])):
            raise DriverError(
                f"{lower} points to {self._target(lower[2:])!r} instead of a layer",
                "a layer below was removed or damaged; remove those that stand on it",
            )
        return id

    def _target(self, link: str) -> str:
        """Return the target of a short name, "" when there is no such symlink. Raises OSError."""
        try:
            return os.readlink(f"{LINKS}/{link}", dir_fd=self.descriptor)
        except OSError as error:
            # Any other error is the disk's, and no reason to remove layers.
            if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
                raise
            return ""

    def _was_empty(self, id: str) -> bool:
        """Remove the empty directory that dockerd leaves when it is killed early in create."""
        with suppress(OSError):
            os.rmdir(self.path / id)
            return True
        return False

    def _mend_links(self, *, alone: bool) -> None:
        """Make short names again that a power cut has lost, and remove those of no layer if alone.

        A home has thousands of layers: only those are looked into that no short name points to.
        """
        lost = set(self.names())
        dangling = []
        for link in os.listdir(self.path / LINKS):
            id = ""
            with suppress(OSError):
                match = _TARGET.fullmatch(os.readlink(f"{LINKS}/{link}", dir_fd=self.descriptor))
                id = match[1] if match else ""
            if id in lost:
                lost.discard(id)
            else:
                dangling.append(self.path / LINKS / link)
        for one in dangling if alone else ():
            _remove_dangling(one)
        for name in lost:
            if (link := self.link(name)) and self.is_layer(name):
                with suppress(FileExistsError):
                    os.symlink(f"../{name}/diff", self.path / LINKS / link)


def _remove_dangling(link: Path) -> None:
    """Remove a short name that points to no layer. One that cannot be looked at stays."""
    with suppress(OSError):
        if not link.is_symlink():
            return
        try:
            os.stat(link)
        except FileNotFoundError:
            link.unlink()


def is_read(id: str) -> LayerInUse:
    """Return the error for a layer that is locked by who reads it, or makes a child."""
    return LayerInUse(
        f"layer {id} is in use: it is read, changed, or gets a child, maybe by another process",
        "end diffs of it, and try again",
    )


def _exists(id: str) -> LayerExists:
    return LayerExists(f"there is a layer {id} already", "choose another id, or remove it")


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
