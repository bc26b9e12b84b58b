"""Size limits of layers by project quota: each limited layer has its own project id.

The file system is queried for ids in use, because other homes on it, and other programs that limit
directories, use ids from the same range.
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

# Ids below the first belong to the administrator (/etc/projid), the last ones mean "none".
_IDS = range(1_000_000, 1 << 31)


class Quota:
    """Sets the size limits of directories in `home`; probes once whether the file system has
    quotas.
    """

    def __init__(self, home: Path, backing: str) -> None:
        self._home = home
        self._backing = backing
        self._lock = threading.Lock()
        self._reason: str | None = None

    def is_kept(self) -> bool:
        """Return whether the file system can limit a directory's size. Nothing is changed."""
        with self._lock:
            return not self._refusal()

    def limit(self, directory: Path, size: int) -> None:
        """Limit the empty directory `directory` to `size` bytes. Raises QuotaNotSupported."""
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
        """Return the reason why the file system cannot limit projects, or ""."""
        try:
            if not quotactl_is_enforced(self._home):
                return "limits of projects are not enforced"
            # It needs the same privilege as setting a limit.
            quotactl_is_used(self._home, _IDS[-1])
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _free_project(self) -> int:
        """Return a project id that is not in use on the file system, in this home or another.

        The id is random, so that two concurrent processes do not choose the same one.
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
