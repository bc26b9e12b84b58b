"""Mutants that are correct only with certain kernels, module parameters or file systems."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphdriver.contract import IDMap
from graphdriver.errors import DriverError, NotSupported
from graphdriver_conformance.host.environment import filesystem_of
from graphdriver_conformance.host.mountinfo import mounts_below
from graphdriver_mutants.filesystem import DeletedFilesReturn, HiddenFilesReturn
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import Member, RewritesDiff

__all__: list[str] = []


@mutant("KRN-001", bug="moby #37993")
class TiedToItsInodes(Mutant):
    """Every view is mounted with index=on."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        super().__init__(home, [*options, "overlay2.mountopt=index=on"], uid_maps, gid_maps)


@mutant("KRN-007", bug="moby #42832")
class InitTripsOnMounts(Mutant):
    """Init fails while there is a mount below the home."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        if mounts_below(Path(home)):
            raise NotSupported(f"probing {home} failed", "unmount what is mounted there")
        super().__init__(home, options, uid_maps, gid_maps)


@mutant("KRN-008", bug="moby: check-overlayfs-support directories of failed probes")
class ProbeLeftOnFailure(Mutant):
    """A failed Init leaves its probe directory."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        except DriverError:
            Path(home).with_name("check-overlayfs-support").mkdir(exist_ok=True)
            raise


@mutant("KRN-009", bug="a mount whose error is logged and dropped")
class MountFailureSwallowed(Mutant):
    """get returns the mount point even if the mount failed."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get; a failed mount of an existing layer is ignored."""
        try:
            return super().get(id, mount_label)
        except OSError:
            return self.home / id / "merged"


@mutant("KRN-010", bug="moby #34342")
class RedirectsNotFollowed(RewritesDiff):
    """Of a renamed directory the archive contains only new entries."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        """Drop entries of a redirected directory that are not in the upper directory itself."""
        uppers = [path / "diff" for path in self.home.iterdir() if (path / "diff").is_dir()]
        renamed = [
            (upper, directory)
            for upper in uppers
            for directory in upper.rglob("*")
            if directory.is_dir() and _has_redirect(directory)
        ]
        for member, data in members:
            lost = any(
                (upper / member.name).is_relative_to(directory)
                and not os.path.lexists(upper / member.name)
                for upper, directory in renamed
            )
            if not lost:
                yield member, data


@mutant("KRN-011", bug="moby #27443: on xfs without d_type, whiteouts are visible as files")
class WrongOnSomeDisk(DeletedFilesReturn):
    """On one file system, here tmpfs, deleted files reappear."""

    def after_last_put(self, upper: Path) -> None:
        """Remove the whiteouts on that file system."""
        if filesystem_of(upper) == "tmpfs":
            super().after_last_put(upper)


@mutant("INI-020", bug="moby #35514: xfs, with d_type or without")
class WrongOnXfs(DeletedFilesReturn):
    """On xfs deleted files reappear."""

    def after_last_put(self, upper: Path) -> None:
        """Remove the whiteouts on that file system."""
        if filesystem_of(upper) == "xfs":
            super().after_last_put(upper)


@mutant("KRN-012", bug="buildah #1709: whiteouts of rootless containers")
class WrongInAUserNamespace(HiddenFilesReturn):
    """In a user namespace the old entries of a recreated directory reappear."""

    def after_last_put(self, upper: Path) -> None:
        """Remove the opaque marks in a user namespace."""
        if Path("/proc/self/uid_map").read_text().split()[2] != "4294967295":
            super().after_last_put(upper)


def _has_redirect(directory: Path) -> bool:
    return "trusted.overlay.redirect" in os.listxattr(directory, follow_symlinks=False)
