"""Open directories on the path of a walk, for trees that are deeper than the descriptor limit."""

import errno
import os

__all__ = ["Descent", "OpenDirectory"]

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Most trees are less deep, and two concurrent walks stay far below the usual 1024 descriptors.
_KEPT_OPEN = 100


class OpenDirectory:
    """A directory of a walk; `fd` is open while the walk is in it, or a few levels below it."""

    __slots__ = ("fd", "identity")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.identity: tuple[int, int] | None = None


class Descent:
    """The directories from the root to the current directory of a walk.

    Beyond a hundred levels the upper ones are closed and reopened through `..` on the way back. The
    root's descriptor belongs to the caller.
    """

    def __init__(self, root: int) -> None:
        self._stack = [OpenDirectory(root)]

    def __len__(self) -> int:
        """The number of levels of the walk, including the root."""
        return len(self._stack)

    @property
    def here(self) -> OpenDirectory:
        """The current directory."""
        return self._stack[-1]

    def enter(self, name: bytes) -> OpenDirectory:
        """Enter `name`, without following a symlink. Raises OSError."""
        below = OpenDirectory(os.open(name, _FLAGS, dir_fd=self._stack[-1].fd))
        self._stack.append(below)
        if len(self._stack) > _KEPT_OPEN + 1:
            far = self._stack[-1 - _KEPT_OPEN]
            found = os.fstat(far.fd)
            far.identity = (found.st_dev, found.st_ino)
            os.close(far.fd)
            far.fd = -1
        return below

    def leave(self) -> None:
        """Return to the parent. Raises OSError if the directory was moved away meanwhile."""
        left = self._stack.pop()
        try:
            if self._stack and (above := self._stack[-1]).fd < 0:
                above.fd = os.open(b"..", _FLAGS, dir_fd=left.fd)
                found = os.fstat(above.fd)
                if above.identity != (found.st_dev, found.st_ino):
                    raise OSError(errno.ESTALE, "a directory was moved while the tree was walked")
        finally:
            if self._stack:
                os.close(left.fd)

    def close(self) -> None:
        """Close every descriptor except the root's."""
        for directory in self._stack[1:]:
            if directory.fd >= 0:
                os.close(directory.fd)
        del self._stack[1:]
