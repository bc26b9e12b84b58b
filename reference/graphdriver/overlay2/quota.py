"""Sizes of layers, by project quota: each limited layer is a project of its own.

The file system is asked which ids are in use: another home on it, and whoever else limits
directories there, takes ids from the same numbers.
"""

import os
import random
import threading
from pathlib import Path

from graphdriver.errors import QuotaNotSupported
from graphdriver.linux.quota import (
    PROJINHERIT,
    Fsxattr,
    fsgetxattr,
    fssetxattr,
    quotactl_is_enforced,
    quotactl_is_used,
    quotactl_set_limit,
)

__all__ = ["Quota"]

# Below the first are ids of the administrator (/etc/projid), at the end those that mean "none".
_IDS = range(1_000_000, 1 << 31)


class Quota:
    """Gives directories of `home` their sizes; asks the file system once whether it can."""

    def __init__(self, home: Path, backing: str) -> None:
        self._home = home
        self._backing = backing
        self._lock = threading.Lock()
        self._reason: str | None = None

    def is_kept(self) -> bool:
        """Say whether the file system can limit a directory's size. Nothing is changed for that."""
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
            _limit(directory, self._free_project(), size)

    def _refusal(self) -> str:
        if self._reason is None:
            self._reason = self._ask()
        return self._reason

    def _ask(self) -> str:
        """Return why the file system limits no project, or ""."""
        try:
            if not quotactl_is_enforced(self._home):
                return "limits of projects are not enforced"
            # It takes the privilege that setting a limit does.
            quotactl_is_used(self._home, _IDS[-1])
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _free_project(self) -> int:
        """Return a project that nothing on the file system has, in this home or another.

        By chance, so that two processes that look at the same time do not find the same one.
        """
        while True:
            project = random.SystemRandom().choice(_IDS)
            if not quotactl_is_used(self._home, project):
                return project


def _limit(directory: Path, project: int, size: int) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fssetxattr(descriptor, Fsxattr(fsgetxattr(descriptor).flags | PROJINHERIT, project))
    finally:
        os.close(descriptor)
    quotactl_set_limit(directory, project, size)
