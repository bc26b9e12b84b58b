"""Mutants of changes and diff_size."""

import os
from pathlib import Path
from typing import BinaryIO

from graphdriver.contract import Change, ChangeKind
from graphdriver.errors import DriverError
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import archive_of, clean, members_of

__all__: list[str] = []


class _Sides(Mutant):
    """Lets a subclass compare both versions of a modified path."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        if not parent:
            return found
        new, old = self.wrapped.get(id), self.wrapped.get(parent)
        try:
            return [one for one in found if self.is_seen(one, _below(new, one), _below(old, one))]
        finally:
            self.wrapped.put(id)
            self.wrapped.put(parent)

    def is_seen(self, change: Change, new: Path, old: Path) -> bool:
        """Return whether the broken driver detects the change."""
        raise NotImplementedError


def _below(root: Path, change: Change) -> Path:
    return Path(os.fsdecode(os.fsencode(root) + change.path))


def _both_files(new: Path, old: Path) -> bool:
    return all(path.is_file() and not path.is_symlink() for path in (new, old))


@mutant("CHG-012", "CHG-013", bug="moby #21555, #51518")
class SameSizeIsSame(_Sides):
    """A file with the same size and mtime is treated as unchanged."""

    def is_seen(self, change: Change, new: Path, old: Path) -> bool:
        if change.kind is not ChangeKind.MODIFY or not _both_files(new, old):
            return True
        a, b = new.stat(), old.stat()
        same = (a.st_size, int(a.st_mtime), a.st_mode) == (b.st_size, int(b.st_mtime), b.st_mode)
        return not same


@mutant("CHG-011", bug="moby #31805")
class SymlinksNotRead(_Sides):
    """A symlink with a new target is treated as unchanged."""

    def is_seen(self, change: Change, new: Path, old: Path) -> bool:
        return not (new.is_symlink() and old.is_symlink())


@mutant("CHG-010", bug="a differ that compares bytes only")
class ModesNotCompared(_Sides):
    """A changed mode is not reported."""

    def is_seen(self, change: Change, new: Path, old: Path) -> bool:
        if change.kind is not ChangeKind.MODIFY or not _both_files(new, old):
            return True
        return new.read_bytes() != old.read_bytes()


class _ForgetsMetadata(_Sides):
    """A node is the same if all is the same except for what a subclass forgets.

    As in a naive differ, the archive lacks what is not among the changes.
    """

    def compared(self, path: Path) -> tuple[object, ...]:
        """Return what is compared of a node, besides its content."""
        found = path.lstat()
        return (found.st_mode, found.st_size, found.st_mtime_ns, os.path.islink(path))

    def forgotten(self, path: Path) -> object:
        """Return what is not compared of a node."""
        raise NotImplementedError

    def is_seen(self, change: Change, new: Path, old: Path) -> bool:
        if change.kind is not ChangeKind.MODIFY or not os.path.lexists(old):
            return True
        if self.compared(new) != self.compared(old) or self.forgotten(new) == self.forgotten(old):
            return True
        return _both_files(new, old) and new.read_bytes() != old.read_bytes()

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        if not parent:
            return super().diff(id, parent)
        seen = {one.path.lstrip(b"/") for one in self.changes(id, parent)}
        gone = {one.path.lstrip(b"/") for one in Mutant.changes(self, id, parent)} - seen
        with super().diff(id, parent) as stream:
            members = members_of(stream.read())
        return archive_of(one for one in members if os.fsencode(clean(one[0].name)) not in gone)


@mutant("CHG-025", "DIF-065", bug="kaniko #208")
class OwnersNotCompared(_ForgetsMetadata):
    """A node whose owner is all that changed is unchanged, and not in the archive."""

    def forgotten(self, path: Path) -> object:
        found = path.lstat()
        return found.st_uid, found.st_gid


@mutant("CHG-026", "DIF-065", bug="kaniko #1994, with the test of #2082")
class CapabilitiesNotCompared(_ForgetsMetadata):
    """A file whose capabilities are all that changed is unchanged, and not in the archive."""

    def forgotten(self, path: Path) -> object:
        name = "security.capability"
        held = name in os.listxattr(path, follow_symlinks=False)
        return os.getxattr(path, name, follow_symlinks=False) if held else b""


@mutant("CHG-027", "DIF-065", bug="a differ that compares sizes and times, of device nodes too")
class DeviceNumbersNotCompared(_ForgetsMetadata):
    """A device node whose numbers are all that changed is unchanged, and not in the archive."""

    def forgotten(self, path: Path) -> object:
        return path.lstat().st_rdev


@mutant("CHG-007", bug="moby #37880")
class NewDirectoryIsDeleted(_Sides):
    """A new directory is reported as deleted."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = Mutant.changes(self, id, parent)
        root = self.wrapped.get(id)
        self.wrapped.put(id)
        diff = self.home / id / "diff"
        kinds = [
            ChangeKind.DELETE
            if one.kind is ChangeKind.ADD and _below(diff, one).is_dir() and parent and root
            else one.kind
            for one in found
        ]
        return [Change(one.path, kind) for one, kind in zip(found, kinds, strict=True)]


@mutant("CHG-004", bug="go-plugins-helpers: make with a length, followed by append")
class BlankRows(Mutant):
    """The list of changes begins with as many blank rows as there are changes."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        return [Change(b"", ChangeKind.MODIFY)] * len(found) + found


@mutant("CHG-008", bug="moby #37313")
class OpaqueChildrenForgotten(Mutant):
    """Deletions inside an existing directory are not reported."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        return [
            one
            for one in super().changes(id, parent)
            if one.kind is not ChangeKind.DELETE or one.path.count(b"/") == 1
        ]


@mutant("CHG-015", bug="docker/for-linux #307; containers-storage 1.43")
class NotADirectory(Mutant):
    """If a file became a directory with entries, changes fails with ENOTDIR."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        added = {one.path.rpartition(b"/")[0] for one in found if one.kind is ChangeKind.ADD}
        for one in found:
            path = os.fsdecode(os.fsencode(self.home / parent / "diff") + one.path)
            if one.kind is ChangeKind.MODIFY and one.path in added and os.path.isfile(path):
                raise NotADirectoryError(20, "Not a directory", path)
        return found


@mutant("CHG-006", bug="a walk that descends into deleted directories")
class DeletedChildrenListed(Mutant):
    """Each file of a deleted directory is reported as a change."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        if parent:
            root = self.wrapped.get(parent)
            for one in list(found):
                if one.kind is ChangeKind.DELETE:
                    for path in _below(root, one).rglob("*"):
                        name = b"/" + os.fsencode(path.relative_to(root))
                        found.append(Change(name, ChangeKind.DELETE))
            self.wrapped.put(parent)
        return found


@mutant("CHG-021", "SIZ-004", bug="moby overlay2: isParent of an unknown id")
class UnknownHasNoChanges(Mutant):
    """changes and diff_size of an unknown layer return an empty list and 0."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        try:
            return super().changes(id, parent)
        except DriverError:
            return []

    def diff_size(self, id: str, parent: str = "") -> int:
        try:
            return super().diff_size(id, parent)
        except DriverError:
            return 0


@mutant("CHG-018", bug="a naive differ that does not put the layers it gets")
class ChangesKeepsMounts(Mutant):
    """changes leaves the layer held."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        self.wrapped.get(id)
        return found


@mutant("CHG-003", bug="moby 1.12: Changes ignores its parent argument")
class ParentIgnored(Mutant):
    """changes without a parent compares with the recorded parent."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        lower = self.home / id / "lower"
        if not parent and lower.exists():
            link = os.readlink(self.home / lower.read_text().split(":")[0])
            parent = Path(link).parent.name
        return super().changes(id, parent)


@mutant("CHG-002", bug="changes without parent directories")
class ParentsNotReported(Mutant):
    """A directory with changed entries is not reported."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        above = {one.path.rpartition(b"/")[0] for one in found}
        return [one for one in found if one.kind is not ChangeKind.MODIFY or one.path not in above]


@mutant("SIZ-003", bug="pkg/archive ChangesSize before it handled hard links")
class LinksCountTwice(Mutant):
    """diff_size counts a file once for each of its names."""

    def diff_size(self, id: str, parent: str = "") -> int:
        diff = self.home / id / "diff"
        files = (path for path in diff.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_size for path in files)


@mutant("SIZ-002", bug="a driver that returns the number of bytes read")
class SizeOfArchive(Mutant):
    """apply_diff returns twice the size of the layer."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        return 2 * super().apply_diff(id, parent, diff)
