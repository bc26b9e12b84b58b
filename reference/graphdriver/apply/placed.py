"""The files of the written directory that belong to the current archive."""

import os

__all__ = ["PlacedMembers"]


class PlacedMembers:
    """Records the real paths of the members that were placed.

    If the directory was empty before (`was_empty`), it is sufficient to record the other files:
    implied directories, and copies of lower files.
    """

    __slots__ = ("_copied", "_implied", "_placed", "_times")

    def __init__(self, *, was_empty: bool) -> None:
        self._placed: set[bytes] | None = None if was_empty else set()
        self._implied: set[bytes] = set()
        self._copied: set[bytes] = set()
        self._times: dict[bytes, int] = {}

    def place(self, path: bytes) -> bool:
        """Record that `path` is a member; return whether an earlier member has the path."""
        if self._placed is None:
            if not self._implied and not self._copied:
                return True
            again = path not in self._implied and path not in self._copied
            self._implied.discard(path)
            self._copied.discard(path)
            return again
        again = path in self._placed
        self._placed.add(path)
        return again

    def is_placed(self, path: bytes) -> bool:
        """Return whether the file at `path` is a member of this archive."""
        if self._placed is None:
            return path not in self._implied and path not in self._copied
        return path in self._placed

    @property
    def holds_all(self) -> bool:
        """Whether all existing files are members."""
        return self._placed is None and not self._implied and not self._copied

    def imply(self, path: bytes) -> None:
        """Record a directory that was created for its entries."""
        self._implied.add(path)
        if self._placed is not None:
            self._placed.discard(path)

    def copy(self, path: bytes) -> None:
        """Record a copy of a lower file that was created as the target of a hard link."""
        self._copied.add(path)
        if self._placed is not None:
            self._placed.discard(path)

    def note_time(self, path: bytes, mtime: int) -> None:
        """Record the final mtime of a directory, in nanoseconds."""
        self._times[path] = mtime

    def keep_time(self, path: bytes, found: os.stat_result) -> None:
        """Let an implied directory keep its mtime."""
        self._times.setdefault(path, found.st_mtime_ns)

    def forget_time(self, path: bytes) -> None:
        """Leave the mtime of a directory to the kernel."""
        self._times.pop(path, None)

    def times(self) -> list[tuple[bytes, int]]:
        """Return the directories and their times, parents first."""
        return sorted(self._times.items())
