"""Mutants whose views are FUSE file systems, as those of fuse-overlayfs are.

overlay2 mounts the layer; a FUSE file system in its place passes every call through, except for the
bug of the mutant: see `passthrough`.
"""

import errno
import os
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any, ClassVar

from graphdriver_conformance.host.syscalls import mount
from graphdriver_mutants.fuse_wire import statistics
from graphdriver_mutants.passthrough import Directory, Passthrough
from graphdriver_mutants.registry import Mutant, mutant

__all__ = ["FuseViews"]

_DEVICE = "/dev/fuse"


class FuseViews(Mutant):
    """Mounts a file system of class `serves` in place of each mounted view."""

    serves: ClassVar[type[Passthrough]] = Passthrough

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._holders: dict[str, int] = {}
        self._servers: dict[str, int] = {}
        self._lock = threading.Lock()

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get; the first one mounts."""
        with self._lock:
            view = super().get(id, mount_label)
            self._holders[id] = self._holders.get(id, 0) + 1
            if id not in self._servers and os.path.ismount(view):
                self._servers[id] = self._serve(view)
            return view

    def put(self, id: str) -> None:
        """Driver.put; the last one unmounts, and waits for the server."""
        with self._lock:
            if self._holders.get(id, 0) > 0:
                self._holders[id] -= 1
                if not self._holders[id]:
                    self._end(id)
            super().put(id)

    def cleanup(self) -> None:
        """Driver.cleanup, after the end of all servers."""
        with self._lock:
            for id in list(self._servers):
                self._end(id)
            self._holders.clear()
            super().cleanup()

    def _serve(self, view: Path) -> int:
        """Mount in place of a view; return the id of the process that serves it."""
        root = os.open(view, os.O_PATH | os.O_DIRECTORY)
        subprocess.run(["umount", "--lazy", view], check=True)
        device = os.open(_DEVICE, os.O_RDWR)
        data = f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
        mount("fuse", os.fspath(view), "fuse", 0, data)
        server = os.fork()
        if not server:
            try:
                self.serves(device, root).run()
            finally:
                os._exit(0)
        os.close(device)
        os.close(root)
        return server

    def _end(self, id: str) -> None:
        server = self._servers.pop(id, 0)
        if server:
            merged = self.home / id / "merged"
            done = subprocess.run(["umount", merged], check=False, capture_output=True)
            if done.returncode:  # a file is open; its server ends with it
                subprocess.run(["umount", "--lazy", merged], check=True)
            else:  # killed, because a copy of the mount in another namespace would keep it running
                os.kill(server, signal.SIGKILL)
                os.waitpid(server, 0)


class _NodesMadeAnew(Passthrough):
    """Has no table of directories: each lookup creates a new node."""

    def known(self, found: os.stat_result, path: bytes) -> int:
        """Return nodes of files only."""
        return 0 if stat.S_ISDIR(found.st_mode) else super().known(found, path)


@mutant("FSX-005", bug="moby #19082; a FUSE server without a table of nodes", needs=_DEVICE)
class WorkingDirectoryLost(FuseViews):
    """A new lookup of a directory creates a new inode; processes in the old one lose their path."""

    serves = _NodesMadeAnew


class _AllocatesNothing(Passthrough):
    """Has an empty fallocate."""

    def fallocate(self, node: int, body: bytes) -> bytes:
        """Report success without an effect."""
        return b""


@mutant("FSX-008", bug="a FUSE server whose fallocate is a stub", needs=_DEVICE)
class AllocationIsAStub(FuseViews):
    """fallocate succeeds without an effect."""

    serves = _AllocatesNothing


class _GrantsLocks(Passthrough):
    """Handles lock requests of fcntl and flock (FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS)."""

    flags = 1 << 1 | 1 << 10

    def lock(self, node: int, body: bytes) -> bytes:
        """Grant every lock."""
        return b""


@mutant(
    "FSX-010", bug="a FUSE server that accepts lock requests and does not store them", needs=_DEVICE
)
class LocksAreGranted(FuseViews):
    """Every lock request succeeds, even if another process holds the lock."""

    serves = _GrantsLocks


class _TellsNoSpace(Passthrough):
    """Has no statfs."""

    def statfs(self, node: int, body: bytes) -> bytes:
        """Return the default of libfuse: zero blocks of 512 bytes."""
        return statistics(os.statvfs_result((512, 0, 0, 0, 0, 0, 0, 0, 0, 255)))


@mutant("FSX-015", bug="libfuse: the default of a server without statfs", needs=_DEVICE)
class NoSpaceIsTold(FuseViews):
    """statfs reports a file system of size 0."""

    serves = _TellsNoSpace


class _GoesOnListing(Passthrough):
    """Reads directories as streams."""

    def place(self, directory: Directory, offset: int) -> int:
        """Continue where the listing stopped, or start again."""
        return directory.position if offset else 0


@mutant("FSX-016", bug="a FUSE server whose readdir ignores the offset", needs=_DEVICE)
class SeeksAreIgnored(FuseViews):
    """A directory listing ignores seekdir(3) and continues where it stopped."""

    serves = _GoesOnListing


class _SyncsFilesOnly(Passthrough):
    """Cannot sync a directory."""

    def fsyncdir(self, node: int, body: bytes) -> bytes:
        """Fail with EINVAL."""
        raise OSError(errno.EINVAL, "not a file")


@mutant("FSX-017", bug="a file system without fsync for directories: EINVAL", needs=_DEVICE)
class DirectoriesCannotBeSynced(FuseViews):
    """fsync of a directory fails with EINVAL."""

    serves = _SyncsFilesOnly


class _ListsWhiteouts(Passthrough):
    """Lists whiteouts that were created during the listing at its end."""

    def unlink(self, node: int, body: bytes) -> bytes:
        """Unlink, and add a whiteout to the listings in progress."""
        for directory in self.directories.values():
            if directory.node == node:
                directory.names.append((body.partition(b"\0")[0], 1))
        return super().unlink(node, body)


@mutant("WHT-012", bug="a union that reads the upper last, including new whiteouts", needs=_DEVICE)
class DeletedNamesListedAgain(FuseViews):
    """Names that are deleted during a listing appear again at its end."""

    serves = _ListsWhiteouts


class _NeverLists(Passthrough):
    """Waits in readdir."""

    def readdir(self, node: int, body: bytes) -> bytes:
        """Wait for a signal."""
        signal.pause()
        return b""


@mutant(
    "LIF-004",
    bug="Docker on fuse-overlayfs: a layer with an empty `lower` shows the home, and so itself",
    needs=_DEVICE,
)
class ListingNeverEnds(FuseViews):
    """A listing of a directory never ends, and a process that reads it cannot be killed."""

    deadline = 5
    serves = _NeverLists
