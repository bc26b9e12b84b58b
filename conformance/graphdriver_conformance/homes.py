"""Where the drivers' homes are: one for each test, gone after it, never on overlay by accident."""

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from graphdriver_conformance.environment import filesystem_of, mount_tmpfs, mounts_below, umount

__all__ = ["Homes"]

_LEAST_SPACE = 256 << 20


class Homes:
    """A directory of homes; `remark` says what is special about it."""

    def __init__(self, base: Path, remark: str = "") -> None:
        base.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.base = base
        self.remark = remark
        self._numbers = itertools.count()

    @classmethod
    def make(cls, asked: str | None, can_mount: bool) -> "Homes":
        """Make the base: below `asked`, or in a temporary directory. Raises pytest.UsageError."""
        if asked and not Path(asked).is_dir():
            raise pytest.UsageError(f"--graphdriver-home={asked}: no such directory; make it first")
        try:
            made = tempfile.mkdtemp(prefix="graphdriver-", dir=asked)
        except OSError as error:
            raise pytest.UsageError(
                f"no home can be made in {asked or tempfile.gettempdir()} ({error.strerror}); "
                "name another place with --graphdriver-home"
            ) from None
        base = Path(os.path.realpath(made))
        remark = ""
        if filesystem_of(base) == "overlay":
            if asked:
                base.rmdir()
                raise pytest.UsageError(
                    f"--graphdriver-home={asked} is on overlay, which cannot carry another; "
                    "name a directory on ext4, xfs, btrfs or tmpfs"
                )
            if can_mount:
                # As in a container, whose root is overlay (moby #21686): judge on tmpfs instead.
                mount_tmpfs(base)
                remark = (
                    "homes are on a tmpfs of their own, as the temporary directory is on overlay"
                )
        free = shutil.disk_usage(base).free
        if free < _LEAST_SPACE:
            base.rmdir()
            raise pytest.UsageError(
                f"only {free >> 20} MiB are free below {base.parent}; the suite needs "
                f"{_LEAST_SPACE >> 20}: free some, or name another place with --graphdriver-home"
            )
        return cls(base, remark)

    def new(self) -> Path:
        """Return a place for one more home; nothing is there yet."""
        place = self.base / str(next(self._numbers))
        place.mkdir(mode=0o755)
        return place / "home"

    def discard(self, home: Path) -> None:
        """Remove a home and what else is in its place; unmount first, so that nothing else goes."""
        for row in reversed(mounts_below(home.parent)):
            umount(row.split(" ", 1)[0])
        _remove(home.parent)

    def discard_all(self) -> None:
        """Remove the base."""
        for row in reversed(mounts_below(self.base)):
            umount(row.split(" ", 1)[0])
        umount(str(self.base))
        _remove(self.base)


def _remove(directory: Path) -> None:
    """Remove a tree, however deep a driver has left it; rmtree recurses."""
    try:
        shutil.rmtree(directory, onerror=_make_removable)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", directory], check=True)


def _make_removable(function: object, path: str, _: object) -> None:
    """Try again after making the directory above passable: tests make some that are not.

    What is gone is gone: a driver may have taken `..` for a layer.
    """
    if not os.path.lexists(path):
        return
    os.chmod(os.path.dirname(path), 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, 0o700)
        shutil.rmtree(path)
    else:
        os.unlink(path)
