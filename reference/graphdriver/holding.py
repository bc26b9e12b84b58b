"""Which layers are held, as other processes see it.

A process that holds a layer keeps a file of the layer locked shared (flock(2)); the kernel ends the
lock with the process. So a hold of a living process differs from a mount that a dead one has left.
Drivers of one process share its locks: a driver that is made again takes over from the one before.
A forked process holds nothing.
"""

import fcntl
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from graphdriver.homedir import try_lock

__all__ = ["Holds"]


class _Hold:
    """A file that is locked for as long as a driver of this process refers to the object."""

    __slots__ = ("__weakref__", "descriptor")

    def __init__(self, path: str) -> None:
        """Open the file. Raises OSError."""
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _opened.add(self)

    def close(self) -> None:
        """Close the file; the lock ends unless a forked process has it, too."""
        descriptor, self.descriptor = getattr(self, "descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


_opened: "weakref.WeakSet[_Hold]" = weakref.WeakSet()
_of_process: weakref.WeakValueDictionary[str, _Hold] = weakref.WeakValueDictionary()


def _forget_in_child() -> None:
    """Close what a fork has copied: to unlock it would end the lock of the parent process."""
    for hold in list(_opened):
        hold.close()
    _of_process.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class Holds:
    """The layers that one driver holds; `file_of` names the file of a layer that is locked."""

    def __init__(self, file_of: Callable[[str], str]) -> None:
        self._file_of = file_of
        self._held: dict[str, _Hold] = {}

    def take(self, id: str) -> None:
        """Hold a layer; it waits for a process that ends its view. Raises FileNotFoundError."""
        name = self._file_of(id)
        hold = _of_process.get(name)
        if hold is None or hold.descriptor < 0:
            hold = _Hold(name)
        fcntl.flock(hold.descriptor, fcntl.LOCK_SH)
        _of_process[name] = self._held[id] = hold

    @contextmanager
    def ending(self, id: str) -> Iterator[bool]:
        """End the hold after the block, which gets whether no other process holds the layer.

        No other begins to while the block runs. When it raises, the layer is held still.
        """
        hold = self._held.get(id)
        if hold is None or hold.descriptor < 0:  # its file is missing, or another driver ended it
            yield True
        else:
            is_alone = try_lock(hold.descriptor)
            try:
                yield is_alone
            except BaseException:
                _share_again(hold.descriptor)
                raise
        self.drop(id)

    def drop(self, id: str) -> None:
        """End the hold of a layer, if there is one."""
        hold = self._held.pop(id, None)
        if hold is not None:
            hold.close()

    @contextmanager
    def alone(self, id: str) -> Iterator[bool]:
        """Give the block whether no other process holds the layer; none begins to meanwhile."""
        name = self._file_of(id)
        hold = _of_process.get(name)
        if hold is not None and hold.descriptor >= 0:
            try:
                yield try_lock(hold.descriptor)
            finally:
                _share_again(hold.descriptor)
            return
        try:
            hold = _Hold(name)
        except (FileNotFoundError, NotADirectoryError):
            yield True
            return
        try:
            yield try_lock(hold.descriptor)
        finally:
            hold.close()


def _share_again(descriptor: int) -> None:
    """Have a lock shared again; asking for it alone in vain has ended it."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
