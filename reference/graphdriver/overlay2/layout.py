"""Layers on disk: what is where, made whole or not at all, and taken away the same way.

A layer is built beside its place under a name that no layer can have, made durable, and renamed. So
a crash leaves no layer, a whole one, or a remnant whose name says so and which the next start
removes.
"""

import base64
import fcntl
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from graphdriver import layerid
from graphdriver.errors import DriverError, LayerExists, LayerNotFound, MaxDepthExceeded
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import RENAME_NOREPLACE, renameat2
from graphdriver.overlay2.support import PROBE_PREFIX, is_abandoned
from graphdriver.tree.inodes import attributes_of, set_attributes
from graphdriver.tree.removal import remove_node

__all__ = ["LINKS", "LINK_NAME", "MAX_LOWERS", "REMNANTS", "Home", "new_link"]

MAX_LOWERS = 128
"""overlay2's limit; 128 short names and the rest of the options fit one page of 4096 bytes."""

LINKS = "l"
LINK_NAME = re.compile(r"[A-Z2-7]{26}")
_STAGING, _REMOVED = ".creating-", ".removed-"
REMNANTS = (_STAGING, _REMOVED, PROBE_PREFIX)


def new_link() -> str:
    """Return a short name: 130 random bits as 26 characters of base32."""
    return base64.b32encode(os.urandom(17)).decode()[:26]


class Home:
    """The directory that holds the layers; `descriptor` stays open on it."""

    def __init__(self, path: Path, ids: IDMapping) -> None:
        """Make what is missing, take remnants away, and read who is whose child."""
        self.path = path
        self._ids = ids
        self._lock = threading.RLock()
        self._first_lower: dict[str, str] = {}
        self._scanned = 0
        _make_closed(path, ids)
        _make_closed(path / LINKS, ids)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if _is_ours_alone(self.descriptor):
            self._sweep()
        # Kept while we live: another driver that starts on this home leaves our stages alone.
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)
        self._restore_links()
        self._scan()

    def __del__(self) -> None:
        """Close the descriptor; there is no verb that ends a driver."""
        if getattr(self, "descriptor", -1) >= 0:
            os.close(self.descriptor)

    def layer(self, id: str) -> Path:
        """Return the directory of a layer. Raises InvalidLayerId, LayerNotFound."""
        layerid.check(id)
        directory = self.path / id
        if not os.path.isdir(directory / "diff"):
            raise LayerNotFound(f"there is no layer {id}", "create it first")
        return directory

    def exists(self, id: str) -> bool:
        """Say whether there is a layer `id`."""
        with suppress(DriverError, OSError, ValueError):
            return bool(self.layer(id))
        return False

    def lowers(self, id: str) -> list[str]:
        """Return the `lower` file: `l/A`, topmost first; [] for a base layer."""
        try:
            text = (self.path / id / "lower").read_text()
        except FileNotFoundError:
            return []
        lowers = text.split(":")
        if not all(one.startswith("l/") and LINK_NAME.fullmatch(one[2:]) for one in lowers):
            raise DriverError(
                f"the lower file of layer {id} is damaged: {text[:80]!r}",
                "a power cut may have emptied it; `graphdriver fsck` says what mends the home",
            )
        return lowers

    def lower_directories(self, id: str) -> list[Path]:
        """Return the `diff` directories below, absolute, topmost first."""
        return [self.path / LINKS / self._target(lower) for lower in self.lowers(id)]

    def lower_ids(self, id: str) -> list[str]:
        """Return the ids of the layers below, the parent first."""
        return [Path(self._target(lower)).parent.name for lower in self.lowers(id)]

    def parent(self, id: str) -> str:
        """Return the id of the parent, "" for a base layer."""
        lowers = self.lowers(id)
        return Path(self._target(lowers[0])).parent.name if lowers else ""

    def has_children(self, id: str) -> bool:
        """Say whether a layer stands directly on `id`."""
        with self._lock:
            self._scan()
            return f"l/{self._link(id)}" in self._first_lower.values()

    def create(self, id: str, parent: str, prepare: Callable[[Path], None]) -> None:
        """Make a layer; `prepare` gets its directory before there is anything in it.

        Raises LayerExists, LayerNotFound, MaxDepthExceeded, OSError; nothing is left then.
        """
        with self._lock:
            if os.path.lexists(self.path / id) and not self._is_taken_away(id):
                raise LayerExists(
                    f"there is a layer {id} already", "choose another id, or remove it"
                )
            lowers = self._lowers_on(parent) if parent else []
            self._scan()
            link = new_link()
            stage = self.path / f"{_STAGING}{link}"
            try:
                self._build(stage, link, lowers, parent, prepare)
                # Not made durable by itself: the next start makes a lost one anew from `link`.
                os.symlink(f"../{id}/diff", self.path / LINKS / link)
                renameat2(os.fsencode(stage), os.fsencode(self.path / id), RENAME_NOREPLACE)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(self.path / LINKS / link)
                self._remove_tree(stage.name)
                raise
            os.fsync(self.descriptor)
            if lowers:
                self._first_lower[id] = lowers[0]
            self._scanned = self._changed()

    def remove(self, id: str) -> None:
        """Take a layer away: its name first, so that a crash leaves a remnant and no half layer."""
        with self._lock:
            self._scan()
            link = self._link(id)
            gone = f"{_REMOVED}{new_link()}"
            os.rename(self.path / id, self.path / gone)
            if link and self._target_or_none(link) == f"../{id}/diff":
                with suppress(FileNotFoundError):
                    os.unlink(self.path / LINKS / link)
            self._first_lower.pop(id, None)
            self._remove_tree(gone)
            self._scanned = self._changed()

    def ids(self) -> Iterator[str]:
        """Yield the ids of all layers."""
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries]
        return (name for name in names if self.exists(name))

    def _lowers_on(self, parent: str) -> list[str]:
        """Return the lowers of a layer that is to stand on `parent`."""
        self.layer(parent)
        link = self._link(parent)
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

    def _build(
        self,
        stage: Path,
        link: str,
        lowers: list[str],
        parent: str,
        prepare: Callable[[Path], None],
    ) -> None:
        stage.mkdir(0o700)
        _close_to_others(stage, self._ids)
        prepare(stage)
        diff = stage / "diff"
        diff.mkdir(0o700)
        self._set_root_attributes(stage, parent)
        written = [_write(stage / "link", link)]
        if lowers:
            written.append(_write(stage / "lower", ":".join(lowers)))
            for name in ("work", "merged"):
                directory = stage / name
                directory.mkdir(0o700)
                if not self._ids.identity:
                    os.chown(directory, *self._ids.root)
        # A power cut must not leave one of them empty (moby #42964). Last, and one after the other:
        # the first takes most of the others into the same commit of the disk's journal.
        for path in (*written, stage):
            _fsync(path)

    def _set_root_attributes(self, stage: Path, parent: str) -> None:
        """Give the layer's root its parent's metadata: the merged root shows the upper's."""
        descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if parent:
                above = os.fsencode(self.path / parent / "diff")
                set_attributes(descriptor, b"diff", attributes_of(above, os.lstat(above)))
            else:
                os.chown("diff", *self._ids.root, dir_fd=descriptor, follow_symlinks=False)
                os.chmod("diff", 0o755, dir_fd=descriptor)
        finally:
            os.close(descriptor)

    def _link(self, id: str) -> str:
        """Return a layer's short name, "" when its file is missing or holds none (moby #36161)."""
        try:
            descriptor = os.open(f"{id}/link", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        try:
            link = os.fsdecode(os.read(descriptor, 64))
        finally:
            os.close(descriptor)
        return link if LINK_NAME.fullmatch(link) else ""

    def _target(self, lower: str) -> str:
        target = self._target_or_none(lower[2:])
        # Whoever can write to l/ could otherwise make us read, or mount, anything.
        if target is None or not re.fullmatch(r"\.\./[A-Za-z0-9][A-Za-z0-9_.-]*/diff", target):
            raise DriverError(
                f"{lower} leads to {target!r} instead of a layer",
                "a layer below was removed or damaged; remove those that stand on it",
            )
        return target

    def _target_or_none(self, link: str) -> str | None:
        try:
            return os.readlink(self.path / LINKS / link)
        except OSError:
            return None

    def _is_taken_away(self, id: str) -> bool:
        """Remove the empty directory that dockerd leaves when it is killed early in create."""
        with suppress(OSError):
            os.rmdir(self.path / id)
            return True
        return False

    def _remove_tree(self, name: str) -> None:
        with suppress(FileNotFoundError):
            remove_node(self.descriptor, os.fsencode(name))

    def _changed(self) -> int:
        return os.fstat(self.descriptor).st_mtime_ns

    def _scan(self) -> None:
        """Read who is whose child, if the home is not as we left it: others may use it, too."""
        now = self._changed()
        if now == self._scanned:
            return
        self._first_lower = {}
        for name in os.listdir(self.descriptor):
            with suppress(OSError, ValueError):
                lower = (self.path / name / "lower").read_text()
                self._first_lower[name] = lower.partition(":")[0]
        self._scanned = now

    def _sweep(self) -> None:
        """Take away what a crash has left: remnants, and short names that lead nowhere."""
        for name in os.listdir(self.descriptor):
            if name.startswith(REMNANTS):
                if not name.startswith(PROBE_PREFIX) or is_abandoned(self.path / name):
                    self._remove_tree(name)
            elif os.path.isdir(self.path / name / ".applying"):
                layer = os.open(self.path / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                with suppress(OSError):
                    remove_node(layer, b".applying")
                os.close(layer)
        for link in os.listdir(self.path / LINKS):
            path = self.path / LINKS / link
            if path.is_symlink() and not path.exists():
                path.unlink()

    def _restore_links(self) -> None:
        """Make short names anew that a power cut has lost."""
        for name in os.listdir(self.descriptor):
            if (link := self._link(name)) and os.path.isdir(self.path / name / "diff"):
                with suppress(FileExistsError):
                    os.symlink(f"../{name}/diff", self.path / LINKS / link)


def _is_ours_alone(home: int) -> bool:
    """Say whether no other driver has this home open, and keep others from opening it if so."""
    with suppress(BlockingIOError):
        fcntl.flock(home, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _make_closed(path: Path, ids: IDMapping) -> None:
    """Make a directory that others cannot pass through (CVE-2021-41091); close an open one."""
    if not path.is_dir():
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.mkdir(0o700)
        _close_to_others(path, ids)
    elif stat.S_IMODE(path.stat().st_mode) & 0o007:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o007)


def _close_to_others(path: Path, ids: IDMapping) -> None:
    """Let root in, and the mapped root through, who has to reach its files; nobody else.

    The directory stays root's: mapped root must not be able to replace it (CVE-2021-21284).
    """
    if not ids.identity:
        os.chown(path, -1, ids.root[1])
        path.chmod(0o710)


def _write(path: Path, text: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as opened:
        opened.write(text.encode())
    return path


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
