"""Uses of layers that other processes have to know: which layers are held or written in place.

A use is a shared lock on one byte of the home's directory, whose offset is a hash of the layer's
id. So one descriptor serves for any number of layers, and the kernel ends the uses of a process
with it: the hold of a living process differs from a mount that a dead one has left. The locks
belong to the open file (F_OFD_SETLK of fcntl(2)), which all drivers of a process on one home share:
closing another descriptor of the directory does not end them. A directory can only be locked
shared, which is sufficient: F_OFD_GETLK finds the locks of other processes and locks nothing.

Drivers of one process share its uses: a new driver supersedes the previous one. A forked process
uses nothing.
"""

import fcntl
import hashlib
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Protocol

from graphdriver.homedir import DIRECTORY, lock_file, unlock
from graphdriver.linux.files import cleaning_up

__all__ = ["Holds", "Use", "Uses", "forget_in_child"]

# struct flock with offsets of 64 bits: type, whence, start, length, process.
_FLOCK = "hhqqi0q"
_BITS = 62


class Use(IntEnum):
    """A use of a layer by a process; each has a range of offsets of its own."""

    HOLDS = 0
    """It has got the layer and not put it yet."""
    WRITES = 1
    """It applies an archive to the layer's tree in place."""


class Uses:
    """The uses by one driver on one home; `made` has the ids of the layers, by use."""

    def __init__(self, home: int) -> None:
        """`home` is open on the home's directory. Raises OSError."""
        self.made: dict[Use, set[str]] = {use: set() for use in Use}
        self._shared = _Shared.of(home)
        self._shared.add(self)

    def __del__(self) -> None:
        """End all uses."""
        for use, ids in self.made.items():
            for id in list(ids):
                with suppress(OSError):
                    self.clear(use, id)

    def set(self, use: Use, id: str) -> None:
        """Publish a use of a layer. Raises OSError; it is not published then."""
        with self._shared.lock:
            self.made[use].add(id)
            try:
                self._shared.set(fcntl.F_RDLCK, _offset(use, id))
            except BaseException:
                self.made[use].discard(id)
                raise

    def clear(self, use: Use, id: str) -> None:
        """End a use of a layer. Raises OSError."""
        with self._shared.lock:
            self.made[use].discard(id)
            if not self._shared.has(use, id):
                self._shared.set(fcntl.F_UNLCK, _offset(use, id))

    def has(self, use: Use, id: str) -> bool:
        """Return whether this driver uses a layer so."""
        return id in self.made[use]

    def is_set_elsewhere(self, use: Use, id: str) -> bool:
        """Return whether another process uses a layer so. Raises OSError."""
        return self._shared.is_locked(_offset(use, id), 1)

    def is_set(self, use: Use, id: str) -> bool:
        """Return whether any process uses a layer so. Raises OSError."""
        return self._shared.has(use, id) or self.is_set_elsewhere(use, id)

    def is_any_set(self, use: Use) -> bool:
        """Return whether any process uses any layer so. Raises OSError."""
        return self._shared.has_any(use) or self._shared.is_locked(use << _BITS, 1 << _BITS)


class _Shared:
    """The open file with the locks, which all drivers of this process on one home share."""

    def __init__(self, descriptor: int) -> None:
        self._users: weakref.WeakSet[Uses] = weakref.WeakSet()
        # The garbage collector may end uses at any point of this thread.
        self.lock = threading.RLock()
        self._descriptor = descriptor

    @classmethod
    def of(cls, home: int) -> "_Shared":
        """Return the instance for an open directory. Raises OSError."""
        found = os.fstat(home)
        with _index:
            key = found.st_dev, found.st_ino
            shared = _of_homes.get(key)
            if shared is None:
                shared = _of_homes[key] = cls(os.open(".", DIRECTORY, dir_fd=home))
            return shared

    def __del__(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def renew(self) -> None:
        """Open the directory again in a forked process.

        The inherited open file has the locks of the parent process, which must end with that one.
        """
        self.lock = threading.RLock()
        fresh = os.open(".", DIRECTORY, dir_fd=self._descriptor)
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)

    def add(self, user: Uses) -> None:
        """Add a driver of this process."""
        with self.lock:
            self._users.add(user)

    def has(self, use: Use, id: str) -> bool:
        """Return whether a driver of this process uses a layer so."""
        with self.lock:
            return any(id in user.made[use] for user in self._users)

    def has_any(self, use: Use) -> bool:
        """Return whether a driver of this process uses any layer so."""
        with self.lock:
            return any(user.made[use] for user in self._users)

    def set(self, type: int, offset: int) -> None:
        """Lock a byte, or unlock it. Raises OSError."""
        wanted = struct.pack(_FLOCK, type, os.SEEK_SET, offset, 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, wanted)

    def is_locked(self, offset: int, length: int) -> bool:
        """Return whether another process has locked a byte of a range. Raises OSError."""
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, length, 0)
        found = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, wanted)
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _offset(use: Use, id: str) -> int:
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return (use << _BITS) | (int.from_bytes(digest) >> (64 - _BITS))


_index = threading.Lock()
_of_homes: weakref.WeakValueDictionary[tuple[int, int], _Shared] = weakref.WeakValueDictionary()


class _Forgets(Protocol):
    def forget_parent_process(self) -> None: ...


_forgetting: "weakref.WeakSet[_Forgets]" = weakref.WeakSet()


def forget_in_child(driver: _Forgets) -> None:
    """Let forked processes call `forget_parent_process` of the object as long as it exists."""
    _forgetting.add(driver)


def _renew_all() -> None:
    for shared in list(_of_homes.values()):
        shared.renew()
    for driver in list(_forgetting):
        driver.forget_parent_process()


os.register_at_fork(after_in_child=_renew_all)


class Holds:
    """The layers that one driver holds, as other processes see them.

    `file_of` returns the path of a file of each layer, which is locked while a hold begins or ends:
    between the question for other holders and the unmount no other process gets the view.
    """

    def __init__(self, uses: Uses, file_of: Callable[[str], str]) -> None:
        self._uses = uses
        self._file_of = file_of

    def take(self, id: str) -> None:
        """Hold a layer, after a process that ends its view. Raises FileNotFoundError, OSError."""
        descriptor = lock_file(self._file_of(id), fcntl.LOCK_SH)
        try:
            self._uses.set(Use.HOLDS, id)
        finally:
            unlock(descriptor)

    def drop(self, id: str) -> None:
        """End the hold of a layer, if there is one."""
        if self._uses.has(Use.HOLDS, id):
            with suppress(OSError):
                self._uses.clear(Use.HOLDS, id)

    def is_elsewhere(self, id: str) -> bool:
        """Return whether another process holds a layer. Raises OSError."""
        return self._uses.is_set_elsewhere(Use.HOLDS, id)

    @contextmanager
    def alone(self, id: str) -> Iterator[bool]:
        """Pass whether no other process holds the layer; none starts to hold it in the block."""
        with self._locked(id, FileNotFoundError, NotADirectoryError):
            yield not self.is_elsewhere(id)

    @contextmanager
    def ending(self, id: str) -> Iterator[bool]:
        """End a hold after the block, which gets whether no other process holds the layer.

        If the block raises, the layer is still held. A disk error of the lock's file must not leave
        a view mounted, so the lock is then left out.
        """
        with self._locked(id, OSError):
            yield not self.is_elsewhere(id)
            self.drop(id)

    @contextmanager
    def _locked(self, id: str, *ignored: type[OSError]) -> Iterator[None]:
        opened: list[int] = []
        try:
            with suppress(*ignored):
                path = self._file_of(id)
                cleaning_up(lambda: opened.append(lock_file(path, fcntl.LOCK_EX)))
            yield
        finally:
            for descriptor in opened:
                unlock(descriptor)
