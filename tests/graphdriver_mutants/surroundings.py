"""Mutants whose bugs depend on the environment of the home: umask, mounts, TMPDIR."""

import errno
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from graphdriver_conformance.host.mountinfo import mounts_at
from graphdriver_mutants.registry import Mutant, mutant, umask_of_process
from graphdriver_mutants.rewriting import members_of

__all__: list[str] = []

_ACLS = ("system.posix_acl_default", "system.posix_acl_access")


@mutant("INI-015", bug="moby #40072; podman #11840")
class InheritsDefaultAcl(Mutant):
    """The root of a base layer inherits the default ACL of the directories above."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        above = self.home if _default_acl(self.home) else self.home.parent
        if not parent and (acl := _default_acl(above)):
            for name in _ACLS:
                os.setxattr(self.home / id / "diff", name, acl)


def _default_acl(directory: Path) -> bytes:
    try:
        return os.getxattr(directory, _ACLS[0])
    except OSError:
        return b""


@mutant("INI-015", bug="mkdir(2) in a setgid directory, without a chown afterwards")
class InheritsGroup(Mutant):
    """The root of a base layer has the group of a setgid directory above the home."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        above = self.home.parent.stat()
        if not parent and above.st_mode & 0o2000:
            os.chown(self.home / id / "diff", -1, above.st_gid)


@mutant("INI-016", bug="moby #11240")
class RootHasUmask(Mutant):
    """The mode of a base layer's root depends on the umask."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if not parent:
            (self.home / id / "diff").chmod(0o777 & ~(umask_of_process() | 0o022))


@mutant("INI-016", bug="mkdir -p of the parents of a member: moby #11240, in an archive")
class ImpliedDirectoriesHaveUmask(Mutant):
    """The mode of implied directories depends on the umask."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, and chmod of implied directories."""
        data = diff.read()
        names = {member.name.rstrip("/") for member, _ in members_of(data)}
        with tempfile.TemporaryFile() as spool:
            spool.write(data)
            spool.seek(0)
            size = super().apply_diff(id, parent, spool)
        mask = umask_of_process()
        upper = self.home / id / "diff"
        for name in {os.path.dirname(one) for one in names} - names - {""}:
            if (upper / name).is_dir():
                (upper / name).chmod(0o777 & ~mask)
        return size


@mutant("INI-017", bug="go-archive #98; moby #53299")
class OpensDeviceNodes(Mutant):
    """The mode of a device is set through open(2), which fails on a mount with nodev."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff; fails if a device cannot be opened."""
        data = diff.read()
        if os.statvfs(self.home).f_flag & os.ST_NODEV:
            for member, _ in members_of(data):
                if member.ischr() or member.isblk():
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), member.name)
        with tempfile.TemporaryFile() as spool:
            spool.write(data)
            spool.seek(0)
            return super().apply_diff(id, parent, spool)


@mutant("INI-018", bug="docker load: os.Rename from TMPDIR fails with EXDEV")
class RenamesFromTmpdir(Mutant):
    """An archive is received in TMPDIR and renamed into the home."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff of the renamed file."""
        descriptor, name = tempfile.mkstemp()
        received = self.home / f".received-{id}"
        with os.fdopen(descriptor, "wb") as file:
            file.write(diff.read())
        try:
            os.rename(name, received)
        except OSError:
            os.unlink(name)
            raise
        with received.open("rb") as opened:
            received.unlink()
            return super().apply_diff(id, parent, opened)


@mutant("INI-019", bug="moby's parser of /proc/self/mountinfo, bufio.Scanner and strings.Fields")
class ReadsTheTableByWords(Mutant):
    """The last put parses the mount table by splitting it at whitespace."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._counts: dict[str, int] = {}

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, counted."""
        view = super().get(id, mount_label)
        self._counts[id] = self._counts.get(id, 0) + 1
        return view

    def put(self, id: str) -> None:
        """Driver.put; the last one only if the mount is found in the table."""
        count = self._counts[id] = max(0, self._counts.get(id, 0) - 1)
        merged = self.home / id / "merged"
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        points = {line.split()[4] for line in table.splitlines() if len(line.split()) > 4}
        if count or not os.path.ismount(merged) or str(merged) in points:
            super().put(id)


@mutant("CLN-011", bug="moby #36149, #39267")
class CleanupUnmountsHome(Mutant):
    """cleanup unmounts a mount on the home that the driver did not make."""

    def cleanup(self) -> None:
        super().cleanup()
        if mounts_at(self.home):
            subprocess.run(["umount", "--lazy", self.home], check=True)


@mutant("CLN-011", bug="moby overlay2: Cleanup unmounts everything below the home, also volumes")
class CleanupUnmountsAllBelow(Mutant):
    """cleanup unmounts all mounts below the home, also those of other programs."""

    def cleanup(self) -> None:
        super().cleanup()
        for path in self.home.iterdir() if self.home.is_dir() else ():
            if mounts_at(path):
                subprocess.run(["umount", "--lazy", path], check=True)


@mutant("CLN-011", bug="moby 1.12: every mount below the home is treated as one of a dead daemon")
class InitUnmountsAllBelow(Mutant):
    """Init unmounts all mounts in directories of the home, also if they are not layers."""

    def __init__(self, home: str | os.PathLike[str], *arguments: Any, **named: Any) -> None:
        for path in Path(home).iterdir() if os.path.isdir(home) else ():
            if mounts_at(path):
                subprocess.run(["umount", "--lazy", path], check=True)
        super().__init__(home, *arguments, **named)


@mutant("MNT-029", "CLN-012", bug="containers-storage 1.64: mountpoints.json on a full disk")
class NotesHoldersInAFile(Mutant):
    """get, put and cleanup write holds to a new file, put and cleanup before they unmount."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._counts: dict[str, int] = {}

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, noted."""
        view = super().get(id, mount_label)
        self._note({**self._counts, id: self._counts.get(id, 0) + 1})
        return view

    def put(self, id: str) -> None:
        """Driver.put, recorded before."""
        self._note({**self._counts, id: max(0, self._counts.get(id, 0) - 1)})
        super().put(id)

    def cleanup(self) -> None:
        """Driver.cleanup, recorded before."""
        if any(self._counts.values()):
            self._note({})
        super().cleanup()

    def _note(self, counts: dict[str, int]) -> None:
        new = self.home / ".mountpoints.json.new"
        new.write_text(json.dumps(counts))
        new.rename(self.home / ".mountpoints.json")
        self._counts = counts


@mutant("LIF-030", bug="vfs of this project until 2026: a staging directory to remove a layer")
class RemovesIntoANewDirectory(Mutant):
    """remove creates a directory, moves the layer into it and deletes both."""

    def remove(self, id: str) -> None:
        if id and self.wrapped.exists(id):
            stage = self.home / f".removing-{id}"
            stage.mkdir()
            stage.rmdir()
        super().remove(id)


@mutant("CLN-011", bug="the mount table is searched for the home's path without a trailing slash")
class CleanupUnmountsByPrefix(Mutant):
    """cleanup unmounts every mount whose path begins with the home's path, such as HOME-2/x."""

    def cleanup(self) -> None:
        super().cleanup()
        for path in self.home.parent.glob(f"{self.home.name}?*"):
            if mounts_at(path):
                subprocess.run(["umount", "--lazy", path], check=True)
