"""Mutants whose views are incorrect file systems."""

import importlib.metadata
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from graphdriver_conformance.host.syscalls import mount
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []

# Flags of mount(2)
_RDONLY, _NOSUID, _NOEXEC, _REMOUNT, _BIND = 1, 2, 8, 32, 4096


class _Remounts(Mutant):
    """Lets a subclass add a flag to the mount of every view."""

    flag = 0

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, and remount with the flag."""
        view = super().get(id, mount_label)
        if os.path.ismount(view):
            mount("none", os.fspath(view), "none", _REMOUNT | _BIND | self.flag)
        return view


@mutant("FSX-001", bug="moby 20.10: a layer marked as committed is mounted read-only")
class WritableLayerIsReadOnly(_Remounts):
    """A writable layer is mounted read-only."""

    flag = _RDONLY


@mutant("FSX-026", bug="containers/storage: overlay.mountopt=nosuid for every container")
class ViewIsNosuid(_Remounts):
    """The view is mounted with nosuid, so setuid programs run as the caller."""

    flag = _NOSUID


@mutant("FSX-013", bug="a data root on a file system mounted with noexec")
class ViewIsNoexec(_Remounts):
    """The view is mounted with noexec, so no program can be executed."""

    flag = _NOEXEC


class _Touches(Mutant):
    """Lets a subclass damage the files of a layer before or after its last put."""

    _counts: dict[str, int]

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, counted."""
        self._counts = getattr(self, "_counts", {})
        self._counts[id] = self._counts.get(id, 0) + 1
        return super().get(id, mount_label)

    def put(self, id: str) -> None:
        """Driver.put, and the damage at the last one."""
        held = getattr(self, "_counts", {}).get(id, 0)
        if held == 1:
            self.before_last_put(id)
        super().put(id)
        if held:
            self._counts[id] -= 1
        if held == 1:
            self.after_last_put(self.home / id / "diff")

    def before_last_put(self, id: str) -> None:
        """Damage the view."""

    def after_last_put(self, upper: Path) -> None:
        """Damage the layer."""


class _Copies(Mutant):
    """Lets a subclass damage the copy of the parent that a new vfs layer contains."""

    wrapped_name = "vfs"

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, and damage."""
        super().make(id, parent, storage_opt)
        if parent:
            for path in _below(self.home / "dir" / id):
                self.damage(path)

    def damage(self, path: Path) -> None:
        """Damage one of its files."""
        raise NotImplementedError


@mutant(
    "FSX-024",
    "LIF-034",
    bug="moby #20331: vfs copies with an archive that does not contain user xattrs",
)
class CopiesLoseAttributes(_Copies):
    """Files that are copied from the parent lose all xattrs."""

    def damage(self, path: Path) -> None:
        """Remove the xattrs."""
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name, follow_symlinks=False)


@mutant("FSX-014", bug="moby #27298: permissions are lost on copy-up")
class CopiesAreReadable(_Copies):
    """Files that are copied from the parent become readable for all users."""

    def damage(self, path: Path) -> None:
        """Make it readable for all users."""
        if not path.is_symlink():
            path.chmod(path.lstat().st_mode | 0o444)


@mutant("FSX-019", bug="moby pkg/archive: every device 0:0 of a layer is treated as a whiteout")
class DevicesAreWhiteouts(_Copies):
    """A device 0:0 of the parent is treated as a whiteout and not copied."""

    def damage(self, path: Path) -> None:
        """Remove a device 0:0."""
        if _is_whiteout(path):
            path.unlink()


@mutant("FSX-018", bug="containers/storage: overlay xattrs of a container are stored in layers")
class AttributesAreMarks(_Copies):
    """A directory with an overlay xattr set by a container loses its entries at put."""

    def put(self, id: str) -> None:
        """Driver.put, after the xattrs took effect."""
        for path in _below(self.home / "dir" / id):
            marks = set(os.listxattr(path, follow_symlinks=False))
            if path.is_dir() and marks & {"trusted.overlay.opaque", "user.overlay.opaque"}:
                shutil.rmtree(path)
                path.mkdir()
        super().put(id)

    def damage(self, path: Path) -> None:
        """Change nothing here."""


@mutant("FSX-004", bug="a home copied by rsync without --devices")
class DeletedFilesReturn(_Touches):
    """Deleted and renamed files reappear at the next mount."""

    def after_last_put(self, upper: Path) -> None:
        """Remove all whiteouts."""
        for path in _below(upper):
            if _is_whiteout(path):
                path.unlink()


@mutant("FSX-020", bug="a home copied by cp -r, without xattrs")
class HiddenFilesReturn(_Touches):
    """The old entries of a recreated directory reappear at the next mount."""

    def after_last_put(self, upper: Path) -> None:
        """Remove all opaque marks."""
        for path in _below(upper):
            for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
                if path.is_dir() and name in os.listxattr(path, follow_symlinks=False):
                    os.removexattr(path, name)


@mutant("FSX-003", bug="files written back in place without O_TRUNC")
class ShrunkFilesGrowBack(_Touches):
    """At put a truncated file gets its old length back, filled with zeros."""

    _sizes: dict[str, dict[Path, int]]

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, and record the sizes."""
        view = super().get(id, mount_label)
        self._sizes = getattr(self, "_sizes", {})
        self._sizes[id] = {p: p.lstat().st_size for p in _below(view) if _is_file(p)}
        return view

    def before_last_put(self, id: str) -> None:
        """Extend each file to its recorded size."""
        for path, size in self._sizes.get(id, {}).items():
            if os.path.lexists(path) and _is_file(path) and path.lstat().st_size < size:
                os.truncate(path, size)


@mutant("FSX-009", bug="a driver that writes a layer back at put")
class PutReplacesLayer(_Touches):
    """The last put replaces the layer by a copy; open files refer to the old one."""

    def after_last_put(self, upper: Path) -> None:
        """Copy the layer, and exchange the two directories."""
        copy, old = upper.with_name("copy"), upper.with_name("old")
        subprocess.run(["cp", "--archive", upper, copy], check=True)
        upper.rename(old)
        copy.rename(upper)
        shutil.rmtree(old)


@mutant("FSX-012", bug="moby #22116: docker diff remounts the layer of a running container")
class SecondGetMountsAfresh(Mutant):
    """get of a held layer unmounts the view and mounts it again."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, by another driver if it is held."""
        held = os.path.ismount(self.home / id / "merged")
        view = super().get(id, mount_label)
        if held:
            subprocess.run(["umount", "--lazy", view], check=True)
            points = importlib.metadata.entry_points(group="graphdriver.drivers")
            points[self.wrapped_name].load()(self.home).get(id)
        return view


@mutant("FSX-006", bug="fuse-overlayfs: after a mount st_ino is that of the upper file")
class OriginsForgotten(_Touches):
    """A copied-up file has another inode number at the next mount."""

    def after_last_put(self, upper: Path) -> None:
        """Remove all origin xattrs."""
        for path in _below(upper):
            for name in ("trusted.overlay.origin", "user.overlay.origin"):
                with suppress(OSError):  # it has no xattr, or its path is too long
                    os.removexattr(path, name, follow_symlinks=False)


@mutant("FSX-007", bug="ostree: the name of a file in the repository is counted")
class RepositoryCountsAsName(_Copies):
    """The link count of a file includes a name in the driver's own repository."""

    def damage(self, path: Path) -> None:
        """Add a name to the file in the repository."""
        if _is_file(path) and path.lstat().st_nlink > 1:
            name = self.home / "repository" / str(path.lstat().st_ino)
            name.parent.mkdir(exist_ok=True)
            if not name.exists():
                os.link(path, name)


def _below(directory: Path) -> Iterator[Path]:
    """Yield all paths below a directory, the deepest first, following no symlinks."""
    for above, directories, files in os.walk(directory, topdown=False):
        yield from (Path(above) / name for name in (*files, *directories))


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and not found.st_rdev
