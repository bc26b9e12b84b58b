"""Marks of layers for other processes: the layers whose trees this process writes in place.

A mark is a shared lock on one byte of the home's directory, whose offset is a hash of the layer's
id. So one descriptor serves for any number of layers, and the kernel removes the marks at the end
of the process. The locks belong to the open file (F_OFD_SETLK of fcntl(2)), which all drivers of a
process on one home share: closing another descriptor of the directory does not remove them. A
directory can only be locked shared, which is sufficient: F_OFD_GETLK looks for marks and locks
nothing. Marks are set, and looked for, while the short links are locked.
"""

import fcntl
import hashlib
import os
import struct
import threading
import weakref
from contextlib import suppress
from enum import IntEnum

from graphdriver.homedir import DIRECTORY

__all__ = ["Mark", "Marks"]

# struct flock with offsets of 64 bits: type, whence, start, length, process.
_FLOCK = "hhqqi0q"
_BITS = 62


class Mark(IntEnum):
    """What a process does with a layer; each has a range of offsets of its own."""

    WRITES = 0
    """It applies an archive to the layer's tree in place."""


class Marks:
    """The marks of one driver on one home; `made` are the ids of the layers, by mark."""

    def __init__(self, home: int) -> None:
        """`home` is open on the home's directory. Raises OSError."""
        self.made: dict[Mark, set[str]] = {mark: set() for mark in Mark}
        self._shared = _Shared.of(home)
        self._shared.add(self)

    def __del__(self) -> None:
        """End all marks."""
        for mark, ids in self.made.items():
            for id in list(ids):
                with suppress(OSError):
                    self.clear(mark, id)

    def set(self, mark: Mark, id: str) -> None:
        """Mark a layer. Raises OSError; it is not marked then."""
        with self._shared.lock:
            self.made[mark].add(id)
            try:
                self._shared.set(fcntl.F_RDLCK, _offset(mark, id))
            except BaseException:
                self.made[mark].discard(id)
                raise

    def clear(self, mark: Mark, id: str) -> None:
        """End the mark of a layer. Raises OSError."""
        with self._shared.lock:
            self.made[mark].discard(id)
            if not self._shared.has(mark, id):
                self._shared.set(fcntl.F_UNLCK, _offset(mark, id))

    def has(self, mark: Mark, id: str) -> bool:
        """Say whether this driver has marked a layer."""
        return id in self.made[mark]

    def is_set_elsewhere(self, mark: Mark, id: str) -> bool:
        """Say whether another process has marked a layer. Raises OSError."""
        return self._shared.is_locked(_offset(mark, id), 1)

    def is_set(self, mark: Mark, id: str) -> bool:
        """Say whether anyone has marked a layer. Raises OSError."""
        return self._shared.has(mark, id) or self.is_set_elsewhere(mark, id)

    def is_any_set(self, mark: Mark) -> bool:
        """Say whether anyone has marked any layer so. Raises OSError."""
        return self._shared.has_any(mark) or self._shared.is_locked(mark << _BITS, 1 << _BITS)


class _Shared:
    """What the drivers of this process on one home share: the open file that has the locks."""

    def __init__(self, descriptor: int) -> None:
        self._users: weakref.WeakSet[Marks] = weakref.WeakSet()
        # The collector may end marks in the middle of anything that this thread does.
        self.lock = threading.RLock()
        self._descriptor = descriptor

    @classmethod
    def of(cls, home: int) -> "_Shared":
        """Return the one for a directory that is open. Raises OSError."""
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
        """Open the directory once more, in a process that was forked.

        The locks are those of the process that it was forked from, and are not to outlive it.
        """
        self.lock = threading.RLock()
        fresh = os.open(".", DIRECTORY, dir_fd=self._descriptor)
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)

    def add(self, user: Marks) -> None:
        """Add a driver of this process."""
        with self.lock:
            self._users.add(user)

    def has(self, mark: Mark, id: str) -> bool:
        """Say whether a driver of this process has marked a layer."""
        with self.lock:
            return any(id in user.made[mark] for user in self._users)

    def has_any(self, mark: Mark) -> bool:
        """Say whether a driver of this process has marked any layer so."""
        with self.lock:
            return any(user.made[mark] for user in self._users)

    def set(self, type: int, offset: int) -> None:
        """Lock a byte, or unlock it. Raises OSError."""
        wanted = struct.pack(_FLOCK, type, os.SEEK_SET, offset, 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, wanted)

    def is_locked(self, offset: int, length: int) -> bool:
        """Say whether another process has locked a byte of a range. Raises OSError."""
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, length, 0)
        found = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, wanted)
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _offset(mark: Mark, id: str) -> int:
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return (mark << _BITS) | (int.from_bytes(digest) >> (64 - _BITS))


_index = threading.Lock()
_of_homes: weakref.WeakValueDictionary[tuple[int, int], _Shared] = weakref.WeakValueDictionary()


def _renew_all() -> None:
    for shared in list(_of_homes.values()):
        shared.renew()


os.register_at_fork(after_in_child=_renew_all)
