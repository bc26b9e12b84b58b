"""What is whose in the directory that an archive is written to."""

import os

__all__ = ["Ledger"]


class Ledger:
    """Remembers by their real paths what this archive has placed.

    Where the directory was empty before (`was_empty`), it is enough to remember what is there for
    another reason: directories that only the path of a member speaks of, and copies of lower files.
    """

    __slots__ = ("_copied", "_implied", "_placed", "_times")

    def __init__(self, *, was_empty: bool) -> None:
        self._placed: set[bytes] | None = None if was_empty else set()
        self._implied: set[bytes] = set()
        self._copied: set[bytes] = set()
        self._times: dict[bytes, int] = {}

    def place(self, path: bytes) -> bool:
        """Note that `path` is a member's; say whether an earlier member's is there."""
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
        """Say whether what is at `path` is a member's of this archive."""
        if self._placed is None:
            return path not in self._implied and path not in self._copied
        return path in self._placed

    @property
    def holds_all(self) -> bool:
        """Whether everything that is there is a member's."""
        return self._placed is None and not self._implied and not self._copied

    def imply(self, path: bytes) -> None:
        """Note a directory that was made for what is below it."""
        self._implied.add(path)
        if self._placed is not None:
            self._placed.discard(path)

    def copy(self, path: bytes) -> None:
        """Note a copy of a lower file that was made to be linked to."""
        self._copied.add(path)
        if self._placed is not None:
            self._placed.discard(path)

    def note_time(self, path: bytes, mtime: int) -> None:
        """Remember what a directory's mtime is to be in the end, in nanoseconds."""
        self._times[path] = mtime

    def keep_time(self, path: bytes, found: os.stat_result) -> None:
        """Let a directory that the archive only speaks of keep its time."""
        self._times.setdefault(path, found.st_mtime_ns)

    def forget_time(self, path: bytes) -> None:
        """Leave a directory's time to the kernel."""
        self._times.pop(path, None)

    def times(self) -> list[tuple[bytes, int]]:
        """Return the directories and their times, parents first."""
        return sorted(self._times.items())
