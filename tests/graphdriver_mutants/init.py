"""Mutants of Init and restart."""

import importlib
import importlib.metadata
import io
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from graphdriver.contract import IDMap
from graphdriver.errors import DriverError, IncompatibleFS, NotSupported, PrerequisitesNotMet
from graphdriver_conformance.host.syscalls import mount
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []

_Home = str | os.PathLike[str]
_Maps = Sequence[IDMap]


@mutant("INI-010", bug="CVE-2021-41091")
class HomeIsOpen(Mutant):
    """All users can enter the home."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        super().__init__(home, options, uid_maps, gid_maps)
        os.chmod(home, 0o755)


@mutant("INI-006", bug="a driver that only looks for known options")
class UnknownOptionsIgnored(Mutant):
    """Unknown options are ignored."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        known = [one for one in options if "=" not in one or one.startswith("=")]
        super().__init__(home, known, uid_maps, gid_maps)


@mutant("INI-007", bug="a driver that only looks for known options")
class MalformedOptionsIgnored(Mutant):
    """Options without a value are ignored."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        known = [one for one in options if "=" in one and not one.startswith("=")]
        super().__init__(home, known, uid_maps, gid_maps)


@mutant("INI-009", bug="moby: check-overlayfs-support directories left in the home")
class ProbesLeft(Mutant):
    """Each Init leaves its probe directory."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        super().__init__(home, options, uid_maps, gid_maps)
        (Path(home) / f"check-overlayfs-support{len(os.listdir(home))}").mkdir()


@mutant("INI-008", "LIF-023", bug="a driver that keeps its layers only in memory")
class LayersForgotten(Mutant):
    """After a restart the home is empty."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        if os.path.isdir(home):
            shutil.rmtree(home)
        super().__init__(home, options, uid_maps, gid_maps)


@mutant("INI-011", bug="a home created before the options are checked")
class FailedInitMakesHome(Mutant):
    """An Init that fails has already created the home."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        os.makedirs(home, exist_ok=True)
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        except PrerequisitesNotMet:
            (Path(home) / "failed").touch()
            raise


class _Opens(Mutant):
    """Lets a subclass act before the wrapped driver is created."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        self.opening(Path(home), list(options))
        super().__init__(home, self.options, uid_maps, gid_maps)

    def opening(self, home: Path, options: list[str]) -> None:
        """Check or change the arguments of the factory."""
        self.options = options


@mutant("INI-001", bug="names of drivers with a version")
class NameChanges(Mutant):
    """The driver's name contains the number of layers."""

    def __str__(self) -> str:
        return f"{self.wrapped} ({len(os.listdir(self.home))})"


@mutant("INI-002", bug="a driver that mounts for the first time in get")
class MountsNotTried(Mutant):
    """Init does not probe mounting, and succeeds where mount(2) is not possible."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        except NotSupported:
            vfs = importlib.metadata.entry_points(group="graphdriver.drivers")["vfs"].load()
            self.wrapped = vfs(home)


@mutant("INI-002", "INI-003", bug="a panic in Init: the probe's result is used without a check")
class InitPanics(Mutant):
    """If a probe fails, Init raises an exception that is not a DriverError."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        except (NotSupported, IncompatibleFS) as error:
            raise RuntimeError(f"index out of range: {error}") from error


@mutant("INI-004", bug="moby 20.10 without the trial mount that replaced the check")
class KernelNotChecked(_Opens):
    """override_kernel_check is always enabled."""

    def opening(self, home: Path, options: list[str]) -> None:
        self.options = [one for one in options if "kernel_check" not in one]
        self.options.append("overlay2.override_kernel_check=true")


@mutant("INI-005", bug="a boolean option that is true for any value")
class AnythingIsTrue(_Opens):
    """override_kernel_check=maybe is accepted as true."""

    def opening(self, home: Path, options: list[str]) -> None:
        self.options = [
            "overlay2.override_kernel_check=true" if "kernel_check" in one else one
            for one in options
        ]


@mutant("INI-005", bug="Python's bool instead of Go's ParseBool")
class OnlyTrueAndFalse(_Opens):
    """Boolean options accept only the words true and false."""

    def opening(self, home: Path, options: list[str]) -> None:
        self.options = options
        for one in options:
            if "kernel_check" in one and one.partition("=")[2].lower() not in ("true", "false"):
                raise PrerequisitesNotMet(f"{one} is neither true nor false")


@mutant("INI-013", bug="moby #27443")
class TypesNotAsked(Mutant):
    """Init accepts a file system without d_type."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        # The check is one function of the correct driver; without it whiteouts are listed as files.
        support = importlib.import_module(f"graphdriver.{self.wrapped_name}.support")
        asked = support._require_d_type
        support._require_d_type = lambda *_: None  # type: ignore[attr-defined]
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        finally:
            support._require_d_type = asked  # type: ignore[attr-defined]

    def status(self) -> list[tuple[str, str]]:
        return [row for row in super().status() if row[0] != "Supports d_type"]


@mutant("SEC-007", "SEC-011", bug="CVE-2021-41091")
class EverythingIsOpen(Mutant):
    """All users can enter the home and all directories in it."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        for path in (self.home, self.home / id):
            path.chmod(0o755)


@mutant("SEC-008", bug="CVE-2026-41567: the decompressor is searched in the container's PATH")
class DecompressorOfLayer(Mutant):
    """A compressed archive is decompressed with the gzip program of the layer."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if data[:2] == b"\x1f\x8b":
            view = self.wrapped.get(id)
            path = f"{view}/usr/bin:{os.environ['PATH']}"
            command = ["env", f"PATH={path}", "gzip", "-dc"]
            done = subprocess.run(command, input=data, capture_output=True, check=False)
            self.wrapped.put(id)
            data = done.stdout
        return super().apply_diff(id, parent, io.BytesIO(data))


@mutant("INI-012", bug="containers/storage overlay: a comma in the home ends the mount options")
class HomeInMountOptions(Mutant):
    """The mount options contain the unescaped path of the home."""

    def get(self, id: str, mount_label: str = "") -> Path:
        view = super().get(id, mount_label)
        # A path without separators has the same effect in the options as a relative one.
        if os.path.ismount(view) and {",", ":"} & set(str(self.home)):
            layer, lowers = self.home / id, self.get_metadata(id)["LowerDir"]
            subprocess.run(["umount", view], check=True)
            data = f"lowerdir={lowers},upperdir={layer}/diff,workdir={layer}/work"
            mount("overlay", os.fspath(view), "overlay", 0, data)
        return view


@mutant("INI-014", bug="mountinfo contains the path without symlinks")
class MountsSoughtByGivenPath(Mutant):
    """get searches the mount table for the home's path as it was given, with symlinks."""

    def get(self, id: str, mount_label: str = "") -> Path:
        view = super().get(id, mount_label)
        sought = self.home / id / "merged"
        if os.path.ismount(view) and os.path.realpath(sought) != str(sought):
            raise DriverError(f"{sought} is not in the mount table")
        return view
