"""The lower bound of the cycle in plain Python: the driver's system calls in order, nothing else.

It has no locks between threads, no index of children, and no undo after an error. The driver cannot
be faster than this with the same number of system calls.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graphdriver.linux.files import RENAME_NOREPLACE, RESOLVE_NO_XDEV, openat2, renameat2
from graphdriver.linux.mounts import MountFlag, UnmountFlag, mount, umount2

__all__ = ["SystemCalls"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LAZILY = UnmountFlag.DETACH | UnmountFlag.NOFOLLOW
_FLOCK = "hhqqi0q"
_ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB


class SystemCalls:
    """The system calls of create_read_write, get, put and remove, on layers of a driver's home."""

    def __init__(self, home: Path, parent: str) -> None:
        """`parent` is the parent layer."""
        self._home = os.fspath(home)
        self._parent = parent
        self._directory = -1

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Open the home for the duration of the block."""
        self._directory = os.open(self._home, _DIRECTORY)
        try:
            yield
        finally:
            os.close(self._directory)

    def cycle(self, id: str) -> None:
        """Call all four verbs for one layer."""
        self._create(id)
        self._get(id)
        self._put(id)
        self._remove(id)

    def _create(self, id: str) -> None:
        home, parent = self._directory, self._parent
        with suppress(FileNotFoundError):
            os.lstat(f"{self._home}/{id}")
        links, below = self._locked("l"), self._locked(parent)
        self._ask(1 << 62)
        os.close(links)
        link = os.urandom(13).hex().upper()
        os.stat(f"{parent}/diff", dir_fd=home)
        lowers = f"l/{self._read(f'{parent}/link')}"
        with suppress(FileNotFoundError):
            lowers += f":{self._read(f'{parent}/lower')}"
        os.mkdir(f".creating-{link}", 0o700, dir_fd=home)
        stage = os.open(f".creating-{link}", _DIRECTORY, dir_fd=home)
        os.fstat(stage)
        os.listxattr(stage)
        os.mkdir("diff", 0o700, dir_fd=stage)
        os.lstat(f"{self._home}/{parent}/diff")
        os.listxattr(f"{self._home}/{parent}/diff", follow_symlinks=False)
        os.chmod("diff", 0o755, dir_fd=stage)
        opened = []
        for name, text in (("link", link), ("lower", lowers)):
            opened.append(os.open(name, _CREATE, 0o644, dir_fd=stage))
            os.write(opened[-1], text.encode())
        os.mkdir("work", 0o700, dir_fd=stage)
        os.mkdir("merged", 0o700, dir_fd=stage)
        for descriptor in (*opened, stage):
            os.close(descriptor)
        links = self._locked("l", fcntl.LOCK_EX)
        os.fstat(links)
        os.symlink(f"../{id}/diff", link, dir_fd=links)
        os.fstat(links)
        self._rename(f".creating-{link}", id)
        os.close(links)
        os.close(below)

    def _get(self, id: str) -> None:
        layer = f"{self._home}/{id}"
        os.stat(f"{id}/diff", dir_fd=self._directory)
        lowers = ":".join(f"{self._home}/{one}" for one in self._read(f"{id}/lower").split(":"))
        links = self._locked("l")
        self._ask(1 << 62)
        file = self._locked(f"{id}/link", flags=_READ)
        self._use(fcntl.F_RDLCK)
        os.close(file)
        os.fstat(links)
        os.lstat(f"{layer}/merged")
        os.lstat(layer)
        data = f"index=off,lowerdir={lowers},upperdir={layer}/diff,workdir={layer}/work"
        # The driver's options are relative to the home, which is the working directory of a thread;
        # if absolute paths exceed a page, only the topmost lowers are mounted here.
        if len(data) > os.sysconf("SC_PAGE_SIZE") - 1:
            lowers = ":".join(lowers.split(":")[:10])
            data = f"index=off,lowerdir={lowers},upperdir={layer}/diff,workdir={layer}/work"
        mount("overlay", f"{layer}/merged".encode(), "overlay", MountFlag.NONE, data.encode())
        os.statvfs(f"{layer}/merged")
        os.close(links)

    def _put(self, id: str) -> None:
        merged = f"{self._home}/{id}/merged"
        file = self._locked(f"{id}/link", fcntl.LOCK_EX, _READ)
        self._ask(1)
        umount2(merged, _LAZILY)
        os.rmdir(merged)
        os.mkdir(merged, 0o700)
        self._use(fcntl.F_UNLCK)
        os.close(file)

    def _remove(self, id: str) -> None:
        home = self._directory
        links = self._locked("l", fcntl.LOCK_EX)
        os.fstat(links)
        os.stat(f"{id}/diff", dir_fd=home)
        os.fstat(links)
        file = self._locked(f"{id}/link", fcntl.LOCK_EX, _READ)
        self._ask(1)
        layer = self._locked(id, _ALONE)
        with suppress(OSError):  # no mount exists
            umount2(f"{self._home}/{id}/merged", _LAZILY)
        link = self._read(f"{id}/link")
        os.readlink(f"l/{link}", dir_fd=home)
        os.unlink(link, dir_fd=links)
        os.fstat(links)
        self._rename(id, f".removed-{link}")
        for descriptor in (layer, file, links):
            os.close(descriptor)
        self._delete(home, f".removed-{link}")

    def _delete(self, above: int, name: str) -> None:
        directory = openat2(above, name.encode(), _DIRECTORY, RESOLVE_NO_XDEV)
        for inner in os.listdir(directory):
            if inner in ("link", "lower"):
                os.unlink(inner, dir_fd=directory)
            else:
                try:
                    os.rmdir(inner, dir_fd=directory)
                except OSError:
                    self._delete(directory, inner)
        os.close(directory)
        os.rmdir(name, dir_fd=above)

    def _locked(self, name: str, operation: int = fcntl.LOCK_SH, flags: int = _DIRECTORY) -> int:
        descriptor = os.open(name, flags, dir_fd=self._directory)
        fcntl.flock(descriptor, operation)
        return descriptor

    def _read(self, name: str) -> str:
        descriptor = os.open(name, _READ, dir_fd=self._directory)
        text = os.read(descriptor, 1 << 16)
        os.close(descriptor)
        return text.decode()

    def _rename(self, old: str, new: str) -> None:
        renameat2(old.encode(), new.encode(), RENAME_NOREPLACE, self._directory)

    def _ask(self, length: int) -> None:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, length, 0)
        fcntl.fcntl(self._directory, fcntl.F_OFD_GETLK, question)

    def _use(self, type: int) -> None:
        wanted = struct.pack(_FLOCK, type, os.SEEK_SET, 0, 1, 0)
        fcntl.fcntl(self._directory, fcntl.F_OFD_SETLK, wanted)
