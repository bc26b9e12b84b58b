"""Mutants of deletions, which change the upper directory at put."""

import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import archive_of, members_of

__all__: list[str] = []


class _Tidies(Mutant):
    """Lets a subclass change the upper directory after put."""

    def put(self, id: str) -> None:
        """Driver.put, and the damage."""
        super().put(id)
        upper = self.home / id / "diff"
        if upper.is_dir() and not os.path.ismount(self.home / id / "merged"):
            self.damage(upper)

    def damage(self, upper: Path) -> None:
        """Damage the upper."""
        raise NotImplementedError

    def below(self, upper: Path) -> list[Path]:
        """Return the lowers of a layer, topmost first."""
        listed = self.wrapped.get_metadata(upper.parent.name).get("LowerDir", "")
        return [Path(one) for one in listed.split(":") if one]


def _whiteouts(upper: Path) -> Iterator[Path]:
    for path in sorted(upper.rglob("*")):
        found = path.lstat()
        if stat.S_ISCHR(found.st_mode) and not found.st_rdev:
            yield path


def _forget_whiteouts(upper: Path) -> None:
    for path in _whiteouts(upper):
        path.unlink()


def _forget_opaque(upper: Path) -> None:
    for path in upper.rglob("*"):
        for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
            if path.is_dir() and name in os.listxattr(path):
                os.removexattr(path, name)


@mutant("WHT-001", "WHT-009", bug="buildah #1709: whiteouts that a rootless store cannot keep")
class WhiteoutsForgotten(_Tidies):
    """At put whiteouts are lost: deleted files reappear."""

    def damage(self, upper: Path) -> None:
        _forget_whiteouts(upper)


@mutant("WHT-002", "WHT-004", bug="moby #28138")
class OpaqueForgotten(_Tidies):
    """Recreated directories show their old entries."""

    def damage(self, upper: Path) -> None:
        _forget_opaque(upper)


@mutant("WHT-003", "WHT-005", "WHT-010", bug="a differ that only compares with the direct parent")
class DeeperDeletionsForgotten(_Tidies):
    """A layer with more than one lower loses its deletions."""

    def damage(self, upper: Path) -> None:
        if len(self.below(upper)) > 1:
            _forget_whiteouts(upper)
            _forget_opaque(upper)


@mutant("WHT-006", bug="containers/storage #225: rootless whiteouts are visible files")
class WhiteoutsShow(_Tidies):
    """Deleted files are visible as `.wh.NAME`."""

    def damage(self, upper: Path) -> None:
        for path in _whiteouts(upper):
            path.with_name(f".wh.{path.name}"[:255]).touch()


@mutant("WHT-007", bug="the prefix .wh. exceeds the maximum length of a name")
class LongNamesStay(_Tidies):
    """Names longer than 251 bytes cannot be deleted."""

    def damage(self, upper: Path) -> None:
        for path in _whiteouts(upper):
            if len(os.fsencode(path.name)) > 251:
                path.unlink()


@mutant("WHT-011", bug="moby #27298, #28134")
class NewFilesAreRoots(_Tidies):
    """A file that replaces a deleted one is owned by root."""

    def damage(self, upper: Path) -> None:
        for path in upper.rglob("*"):
            if path.is_file() and any(
                (lower / path.relative_to(upper)).exists() for lower in self.below(upper)
            ):
                os.chown(path, 0, 0)


@mutant("WHT-013", bug="fuse-overlayfs #151")
class WhiteoutsSpread(_Tidies):
    """A deletion at the root deletes entries with the same name in all directories."""

    def damage(self, upper: Path) -> None:
        names = [path.name for path in _whiteouts(upper) if path.parent == upper]
        for name in names:
            for lower in self.below(upper):
                for path in lower.rglob(name):
                    gone = upper / path.relative_to(lower)
                    gone.parent.mkdir(parents=True, exist_ok=True)
                    if not os.path.lexists(gone):
                        os.mknod(gone, stat.S_IFCHR, 0)


@mutant("WHT-014", bug="moby #34342: a renamed directory is stored as an empty one")
class NewDirectoriesEmptied(_Tidies):
    """Directories that are in no lower layer lose their entries."""

    def damage(self, upper: Path) -> None:
        for path in [one for one in upper.rglob("*") if one.is_file()]:
            above = path.parent.relative_to(upper)
            if path.parent != upper and not any(
                (one / above).is_dir() for one in self.below(upper)
            ):
                path.unlink()


@mutant("WHT-015", bug="fuse-overlayfs: the upper file is removed before its whiteout exists")
class FullDiskUncovers(Mutant):
    """With no free inode, a deletion removes the upper file and the lower file reappears."""

    def put(self, id: str) -> None:
        # unlink(2) fails on a full disk, but the upper file has been removed already.
        upper = self.home / id / "diff"
        full = not os.statvfs(self.home).f_ffree
        super().put(id)
        if full and upper.is_dir():
            for path in [one for one in upper.rglob("*") if one.is_file()]:
                path.unlink()


@mutant("LIF-003", bug="moby #3845: modes lost by the order of chown and chmod")
class SpecialBitsGone(_Tidies):
    """Setuid, setgid and sticky bits are lost at put."""

    def damage(self, upper: Path) -> None:
        for path in upper.rglob("*"):
            if not path.is_symlink() and path.lstat().st_mode & 0o7000:
                path.chmod(stat.S_IMODE(path.lstat().st_mode) & 0o777)


@mutant("MNT-007", bug="containerd #5854: files are empty after a power cut")
class FilesAreEmpty(_Tidies):
    """Written files are empty after put."""

    def damage(self, upper: Path) -> None:
        for path in upper.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.write_bytes(b"")


@mutant("MNT-007", bug="fuse-overlayfs 1.10: a write to a lower file with hard links")
class StaleBehindHardLinks(_Tidies):
    """A write to a lower file with hard links is lost at put."""

    def damage(self, upper: Path) -> None:
        for path in [one for one in upper.rglob("*") if one.is_file()]:
            for lower in self.below(upper):
                old = lower / path.relative_to(upper)
                if os.path.lexists(old):
                    if old.lstat().st_nlink > 1 and old.is_file():
                        path.write_bytes(old.read_bytes())
                    break


@mutant("WHT-008", bug="podman #3582: a user's file .wh.x is exported")
class UsersWhiteoutsExported(Mutant):
    """A user's file .wh.x is exported with its name, so that it deletes x."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        upper = self.home / id / "diff"
        found = sorted(upper.rglob(".wh.*")) if upper.is_dir() else []
        if not found:
            return super().diff(id, parent)
        # The wrapped driver refuses such entries, so they are handled here.
        with tempfile.TemporaryDirectory(dir=self.home.parent) as aside:
            for number, path in enumerate(found):
                path.rename(f"{aside}/{number}")
            with super().diff(id, parent) as stream:
                members = members_of(stream.read())
            for number, path in enumerate(found):
                Path(f"{aside}/{number}").rename(path)
        own = [(tarfile.TarInfo(str(path.relative_to(upper))), b"") for path in found]
        return archive_of([*members, *own])
