"""Sizes of layers, by project quota: each limited layer is a project of its own.

Ids are one more than the highest in the home, so that they stay unique over restarts, as in
Docker's quota/projectquota.go.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from graphdriver.errors import QuotaNotSupported
from graphdriver.linux.quota import (
    PROJINHERIT,
    Fsxattr,
    fsgetxattr,
    fssetxattr,
    quotactl_set_limit,
)
from graphdriver.overlay2.recovery import scratch

__all__ = ["Quota"]

# Below this number ids are the administrator's (/etc/projid).
_LOWEST = 1_000_000


class Quota:
    """Gives directories of `home` their sizes; asks the file system once whether it can."""

    def __init__(self, home: Path, backing: str) -> None:
        self._home = home
        self._backing = backing
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._next = 0

    def is_kept(self) -> bool:
        """Say whether the file system can limit a directory's size."""
        with self._lock:
            return not self._refusal()

    def limit(self, directory: Path, size: int) -> None:
        """Make `directory`, still empty, hold at most `size` bytes. Raises QuotaNotSupported."""
        with self._lock:
            if self._refusal():
                raise QuotaNotSupported(
                    f"{directory.parent} cannot limit a layer to {size} bytes: "
                    f"{self._backing} has no project quota here ({self._reason})",
                    "mount xfs with pquota or ext4 with prjquota, or leave size out",
                )
            _limit(directory, self._next, size)
            self._next += 1

    def _refusal(self) -> str:
        if self._reason is None:
            self._reason = self._try()
        return self._reason

    def _try(self) -> str:
        """Try it on a directory that is taken away again; return why not, or ""."""
        self._next = max(_LOWEST, *self._used(), 0) + 1
        try:
            with scratch(self._home) as directory:
                _limit(directory, self._next, 1 << 20)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _used(self) -> Iterator[int]:
        with os.scandir(self._home) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield _project(entry.path)


def _limit(directory: Path, project: int, size: int) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fssetxattr(descriptor, Fsxattr(fsgetxattr(descriptor).flags | PROJINHERIT, project))
    finally:
        os.close(descriptor)
    quotactl_set_limit(directory, project, size)


def _project(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return fsgetxattr(descriptor).project
    except OSError:
        return 0
    finally:
        os.close(descriptor)
