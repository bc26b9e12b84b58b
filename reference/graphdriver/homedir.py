"""The directory that contains a driver's layers: created, private, and locked.

The environment of a home (a default ACL, setgid, the group or the umask) must not affect its
layers, so directories that are created here inherit nothing.
"""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from graphdriver.errors import PrerequisitesNotMet
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import keep_reserve

__all__ = [
    "DIRECTORY",
    "HomeDirectory",
    "lock",
    "lock_file",
    "make_directory",
    "try_lock",
    "unlock",
]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")

# Before any Init, so that a failed one leaves no more descriptors open than there were.
with suppress(OSError):
    keep_reserve()


class HomeDirectory:
    """The home of an open driver; `descriptor` is open on it as long as the driver exists.

    Each driver holds a shared lock on it. A driver that gets the exclusive lock is the only one
    (`is_alone`), so that incomplete entries of the home are remnants of a crash.
    """

    def __init__(self, path: Path, ids: IDMapping) -> None:
        """Create the home and its parent directories if they are missing. Raises OSError."""
        self.path = path
        self.is_alone = False
        self._ids = ids
        self._made: list[Path] = []
        self.descriptor = -1
        try:
            self._make()
            self.descriptor = os.open(path, DIRECTORY)
            self.is_alone = try_lock(self.descriptor)
        except BaseException:
            self.undo()
            raise

    def __del__(self) -> None:
        """Close the descriptor; the contract has no verb that ends a driver."""
        self._close()

    def share(self) -> None:
        """Downgrade to a shared lock, so that other drivers can open the home."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    def close_to_others(self) -> None:
        """Remove other users' permissions from an existing home (CVE-2021-41091)."""
        mode = stat.S_IMODE(os.fstat(self.descriptor).st_mode)
        if mode & 0o007:
            os.fchmod(self.descriptor, mode & ~0o007)

    def make_closed(self, name: str) -> None:
        """Create the directory `name` in the home, or remove other users' permissions from it."""
        try:
            os.close(make_directory(self.descriptor, name, self._ids))
        except FileExistsError:
            mode = stat.S_IMODE(os.stat(name, dir_fd=self.descriptor).st_mode)
            if mode & 0o007:
                if not self._ids.identity:
                    os.chown(name, -1, self._ids.root[1], dir_fd=self.descriptor)
                os.chmod(name, mode & ~0o007, dir_fd=self.descriptor)
        else:
            self._made.append(self.path / name)

    def undo(self) -> None:
        """Close it, and remove the directories that were created here, as far as they are empty.

        The caller that catches the exception keeps a reference to this object, and with it the
        lock.
        """
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir()
        self._made.clear()
        self._close()

    def _close(self) -> None:
        descriptor, self.descriptor = getattr(self, "descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)

    def _make(self) -> None:
        missing: list[Path] = []
        for path in (self.path, *self.path.parents):
            try:
                if not stat.S_ISDIR(os.stat(path).st_mode):
                    raise PrerequisitesNotMet(f"{path} is not a directory", "choose another home")
                break
            except (FileNotFoundError, NotADirectoryError):
                missing.append(path)
        for path in reversed(missing[1:]):
            path.mkdir(0o755, exist_ok=True)
            self._made.append(path)
        if missing:
            above = os.open(self.path.parent, DIRECTORY)
            try:
                # Two drivers may create it concurrently.
                with suppress(FileExistsError):
                    os.close(make_directory(above, self.path.name, self._ids))
                    self._made.append(self.path)
            finally:
                os.close(above)


def make_directory(dir_fd: int, name: str, ids: IDMapping | None = None) -> int:
    """Create the directory `name`, private and inheriting nothing; return it open.

    With id maps the mapped root may search it, because it has to reach its files. The directory
    stays owned by root: the mapped root must not be able to replace it (CVE-2021-21284).
    """
    os.mkdir(name, 0o700, dir_fd=dir_fd)
    try:
        descriptor = os.open(name, DIRECTORY, dir_fd=dir_fd)
        try:
            _inherit_nothing(descriptor)
            if ids and not ids.identity:
                os.fchown(descriptor, -1, ids.root[1])
                os.fchmod(descriptor, 0o710)
        except BaseException:
            os.close(descriptor)
            raise
    except BaseException:
        with suppress(OSError):
            os.rmdir(name, dir_fd=dir_fd)
        raise
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock on an open file; return False if another process has one."""
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def lock(name: str, dir_fd: int, operation: int) -> int:
    """Wait for a lock on the directory `name`; return it open. Closing it releases the lock.

    It is opened for each lock, so that threads exclude each other, as processes do, and a forked
    process has its own locks. A killed process releases its locks.
    """
    return _flocked(os.open(name, DIRECTORY, dir_fd=dir_fd), operation)


def lock_file(path: str, operation: int) -> int:
    """Wait for a lock on a file; return it open. Like `lock`. Raises OSError."""
    return _flocked(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), operation)


def _flocked(descriptor: int, operation: int) -> int:
    _locked.add(descriptor)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        unlock(descriptor)
        raise
    return descriptor


def unlock(descriptor: int) -> None:
    """Close what `lock` has opened; in a process forked meanwhile that has happened."""
    if descriptor in _locked:
        _locked.discard(descriptor)
        os.close(descriptor)


# The descriptors that this process has locked. A forked one closes its copies: with them it would
# have the locks for as long as it lives.
_locked: set[int] = set()


def _close_in_child() -> None:
    while _locked:
        os.close(_locked.pop())


os.register_at_fork(after_in_child=_close_in_child)


def _inherit_nothing(descriptor: int) -> None:
    """Set mode and group as if the parent directory had neither default ACL nor setgid bit."""
    found = os.fstat(descriptor)
    changed = stat.S_IMODE(found.st_mode) != 0o700
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        names = []
    for name in names:
        if name in _ACLS:
            os.removexattr(descriptor, name)
            changed = True
    if found.st_gid != (group := os.getegid()):
        os.fchown(descriptor, -1, group)
    if changed:
        os.fchmod(descriptor, 0o700)
