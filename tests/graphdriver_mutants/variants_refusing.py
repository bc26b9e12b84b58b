"""Correct drivers that refuse input which the embedded ones accept; see variants."""

import errno
import fcntl
import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from graphdriver.contract import IDMap
from graphdriver.errors import (
    BadArchive,
    IncompatibleFS,
    InvalidLayerId,
    LayerNotFound,
    NotSupported,
    PrerequisitesNotMet,
)
from graphdriver_conformance.host.mountinfo import mounts_below
from graphdriver_mutants.raw import Blocks, RewritesBlocks
from graphdriver_mutants.rewriting import members_of
from graphdriver_mutants.variants import Variant, variant

__all__: list[str] = []

_SMALLEST = 8 << 20
_PATH_MAX = 4096


@variant("LIF-016", "LIF-017", "LIF-015", "LIF-012", "LIF-028")
class UnknownCannotBeRemoved(Variant):
    """remove of an unknown id is an error."""

    def remove(self, id: str) -> None:
        if not self.wrapped.exists(id):
            raise LayerNotFound(f"there is no layer {id}")
        super().remove(id)


@variant("LIF-015", "LIF-018", "LIF-020", "LIF-022", "CLN-006")
class RefusesWhileMountedInto(Variant):
    """remove is refused while there is a mount inside the layer."""

    wrapped_name = "vfs"

    def remove(self, id: str) -> None:
        if mounts_below(self.home / "dir" / id):
            raise OSError(errno.EBUSY, "something is mounted in the layer")
        super().remove(id)


@variant("INI-017", "INI-019", "INI-012", "CLN-011")
class RefusesOddHomes(Variant):
    """Init refuses a mount with nodev, and a home whose path contains a line break."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        above = Path(home).parent
        if os.statvfs(home if os.path.isdir(home) else above).f_flag & os.ST_NODEV:
            raise NotSupported(f"{home} is on a disk that is mounted nodev", "mount it with dev")
        if len(str(home).splitlines()) > 1:
            raise PrerequisitesNotMet(f"the name of {home!r} ends a line", "choose another")
        super().__init__(home, options, uid_maps, gid_maps)


@variant("ARC-02", "DIF-034", violates=("ARC-024",))
class RefusesRareMembers(RewritesBlocks, Variant):
    """apply_diff refuses members that few programs write, such as sparse ones."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            is_odd = one.flag not in b"\x000123456" or one.name.startswith(b".//")
            is_empty = any(not one.records.get(key, b"-") for key in (b"path", b"linkpath", b"uid"))
            is_sparse = any(key.startswith(b"GNU.sparse.") for key in one.records)
            if is_odd or is_empty or is_sparse or one.ahead.count(b"PaxHeaders/x\0") > 1:
                raise BadArchive(f"{one.name!r} is of no form that is read here")
            yield one.raw


@variant("DIF-036", "DIF-037", "DIF-038", "DIF-039", "DIF-040", "DIF-025", "WHT-016", "SEC-013")
class RefusesMeetingsWithSymlinks(Variant):
    """apply_diff refuses paths through symlinks, and hard links to files that the archive hides."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        members = _readable(data)
        hidden = {_hidden_by(one.name) for one in members}
        placed: set[str] = set()
        links = {one.name.strip("/") for one in members if one.issym()}
        view = self.wrapped.get(id)
        try:
            for member in members:
                above = _parents(member.name)
                kept = [one for one in above if one not in placed]
                if any(one in links for one in above) or any(
                    (view / one).is_symlink() for one in kept
                ):
                    raise BadArchive(f"{member.name!r} goes through a symlink")
                target = member.linkname.strip("/")
                is_below = member.islnk() and target not in placed
                if is_below and not hidden.isdisjoint([*_parents(target), target]):
                    raise BadArchive(f"{target!r} is hidden by the archive")
                placed.add(member.name.strip("/"))
        finally:
            self.wrapped.put(id)
        return super().apply_diff(id, parent, io.BytesIO(data))


def _readable(data: bytes) -> list[tarfile.TarInfo]:
    """Return the members, none if the archive is malformed."""
    try:
        return [member for member, _ in members_of(data)] if data else []
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        return []


def _parents(name: str) -> list[str]:
    parts = name.strip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _hidden_by(name: str) -> str:
    """Return the path that a marker hides or a member replaces."""
    above, base = os.path.split(name.strip("/"))
    return above if base == ".wh..wh..opq" else os.path.join(above, base.removeprefix(".wh."))


@variant("DIF-040", "DIF-036", "DIF-035")
class PassesOverNamesBelowWhiteouts(RewritesBlocks, Variant):
    """Members below a `.wh.` name are ignored instead of refused."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        return (one.raw for one in members if b"/.wh." not in b"/" + os.path.dirname(one.name))


@variant("CLN-011", "CLN-012", "LIF-030", "MNT-029", "INI-017")
class RefusesSmallAndForeignDisks(Variant):
    """Init refuses a disk of a few MiB, and a home that is a mount point."""

    # As drivers with an index of a fixed size, and drivers for one file system (Docker's btrfs).
    unproven = ("CLN-011", "CLN-012", "LIF-030", "MNT-029")

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        place = home if os.path.isdir(home) else Path(home).parent
        found = os.statvfs(place)
        if found.f_blocks * found.f_frsize < _SMALLEST:
            raise IncompatibleFS(f"the disk of {home} is too small", "8 MiB are needed")
        # A bind mount has the device of its source, and is accepted.
        if os.stat(place).st_dev != os.stat(Path(home).parent).st_dev:
            raise IncompatibleFS(f"{home} is a mount point", "choose another home")
        super().__init__(home, options, uid_maps, gid_maps)


@variant("DIF-036", "DIF-04", "ARC-011", "ARC-017", "ARC-02", "WHT-016", "IDM-007", "IDM-010")
class RefusesNamesThatComeTwice(RewritesBlocks, Variant):
    """apply_diff refuses an archive with two members of the same name, except for markers."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        seen: set[bytes] = set()
        for one in members:
            name = os.path.normpath(b"/" + one.name.lstrip(b"/"))
            if name in seen and not os.path.basename(name).startswith(b".wh."):
                raise BadArchive(f"{one.name!r} occurs twice", "build the image again")
            seen.add(name)
            yield one.raw


@variant("CON-010", "CON-018", "CON-019", "CLN-003", "INI-008", "MNT-028")
class OneProcessOnly(Variant):
    """Init is refused while another process has a driver on the home."""

    _locks: ClassVar[dict[tuple[int, Path], int]] = {}

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        super().__init__(home, options, uid_maps, gid_maps)
        key = (os.getpid(), self.home)
        if key in self._locks:
            return
        descriptor = os.open(self.home / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise PrerequisitesNotMet(f"{home} is used by another process", "stop it") from None
        self._locks[key] = descriptor

    def cleanup(self) -> None:
        super().cleanup()
        descriptor = self._locks.pop((os.getpid(), self.home), None)
        if descriptor is not None:
            os.close(descriptor)


@variant("ARC-029", "ARC-014")
class MalformedAclsLeftOut(RewritesBlocks, Variant):
    """apply_diff omits a malformed ACL and applies the rest of the archive."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            lists = [value for key, value in one.records.items() if b".posix_acl_" in key]
            is_odd = any(value[:4] != b"\2\0\0\0" or len(value) % 8 != 4 for value in lists)
            yield one.header + one.data if is_odd else one.raw


@variant("LIF-037", "LIF-013")
class RefusesCapitals(Variant):
    """create refuses an id with a capital letter."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if id != id.lower():
            raise InvalidLayerId(f"{id!r} has a capital letter")
        super().make(id, parent, storage_opt)


@variant("ARC-030", "ARC-022", "ARC-013", violates=("ARC-022",))
class RefusesAttributesOfSymlinks(RewritesBlocks, Variant):
    """apply_diff refuses an archive with a symlink that has xattrs."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            if one.flag == b"2" and any(b".xattr." in key for key in one.records):
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            yield one.raw


@variant("DIF-062", "LIF-036", "SEC-009", "LIF-004", "LIM-002")
class RefusesLongPaths(RewritesBlocks, Variant):
    """apply_diff, and create on a parent, are refused if a path is longer than PATH_MAX."""

    def rewritten(self, members: list[Blocks]) -> Iterator[bytes]:
        for one in members:
            if len(one.name) >= _PATH_MAX:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            yield one.raw

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if parent and self.wrapped.exists(parent):
            for path, names, _ in os.walk(self.wrapped.get(parent)):
                if any(len(path) + 1 + len(name) >= _PATH_MAX for name in names):
                    self.wrapped.put(parent)
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
            self.wrapped.put(parent)
        super().make(id, parent, storage_opt)
