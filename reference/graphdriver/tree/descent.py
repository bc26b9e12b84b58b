"""Open directories on the way down a tree that may be deeper than there are descriptors."""

import errno
import os

__all__ = ["Descent", "OpenDirectory"]

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Most trees are no deeper, and two walks side by side stay far below the usual 1024 descriptors.
_KEPT_OPEN = 100


class OpenDirectory:
    """A directory of a walk; `fd` is open while the walk is in it, or not far below."""

    __slots__ = ("fd", "identity")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.identity: tuple[int, int] | None = None


class Descent:
    """The directories from a root down to where a walk is.

    Beyond a hundred levels those far up are closed and, on the way back, opened again by `..`. The
    root's descriptor stays the caller's.
    """

    def __init__(self, root: int) -> None:
        self._stack = [OpenDirectory(root)]

    def __len__(self) -> int:
        """How many levels deep the walk is, the root being one."""
        return len(self._stack)

    @property
    def here(self) -> OpenDirectory:
        """Where the walk is."""
        return self._stack[-1]

    def enter(self, name: bytes) -> OpenDirectory:
        """Go down into `name`, not through a symlink. Raises OSError."""
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
        """Go back up. Raises OSError when somebody has moved the directory away meanwhile."""
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
        """Close every descriptor but the root's."""
        for directory in self._stack[1:]:
            if directory.fd >= 0:
                os.close(directory.fd)
        del self._stack[1:]
