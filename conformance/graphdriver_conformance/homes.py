"""Where the drivers' homes are: one for each test, gone after it, never on overlay by accident."""

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from graphdriver_conformance.environment import (
    abilities_on,
    filesystem_of,
    mount_tmpfs,
    umount,
    umount_below,
)

__all__ = ["Homes"]

_LEAST_SPACE = 256 << 20
_LEAST_MEMORY = 1 << 30
_ON_TMPFS = "homes are on a tmpfs of their own, "


class Homes:
    """A directory of homes; `remark` says what is special about it."""

    def __init__(self, base: Path, remark: str = "") -> None:
        base.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.base = base
        self.remark = remark
        self._numbers = itertools.count()

    @classmethod
    def make(cls, asked: str | None, can_mount: bool, *, hurried: bool = False) -> "Homes":
        """Make the base: below `asked`, or in a temporary directory. Raises pytest.UsageError.

        Where nobody asked for a place, a `hurried` run has its homes in memory if it can.
        """
        if asked and not Path(asked).is_dir():
            raise pytest.UsageError(f"--graphdriver-home={asked}: no such directory; make it first")
        base = _make_base(asked)
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
                remark = _ON_TMPFS + "as the temporary directory is on overlay"
        elif hurried and can_mount and not asked and _move_into_memory(base):
            remark = _ON_TMPFS + "for speed; --graphdriver-home names another place"
        _check_space(base)
        return cls(base, remark)

    def new(self) -> Path:
        """Return a place for one more home; nothing is there yet."""
        place = self.base / str(next(self._numbers))
        place.mkdir(mode=0o755)
        return place / "home"

    def discard(self, home: Path) -> None:
        """Remove a home and what else is in its place; unmount first, so that nothing else goes."""
        umount_below(home.parent)
        _remove(home.parent)

    def discard_all(self) -> None:
        """Remove the base."""
        umount_below(self.base)
        umount(str(self.base))
        _remove(self.base)


def _make_base(asked: str | None) -> Path:
    try:
        made = tempfile.mkdtemp(prefix="graphdriver-", dir=asked)
    except OSError as error:
        raise pytest.UsageError(
            f"no home can be made in {asked or tempfile.gettempdir()} ({error.strerror}); "
            "name another place with --graphdriver-home"
        ) from None
    return Path(os.path.realpath(made))


def _move_into_memory(base: Path) -> bool:
    """Mount a tmpfs at `base`, unless it would prove less than the disk; say whether it is there.

    Half the time of a short run on ext4 goes into keeping, scanning and discarding what the tests
    delete a moment later. tmpfs has no `user.*` attributes before kernel 6.6.
    """
    if filesystem_of(base) == "tmpfs" or _memory_available() < _LEAST_MEMORY:
        return False
    able = abilities_on(base)
    mount_tmpfs(base)
    if shutil.disk_usage(base).free >= _LEAST_SPACE and able <= abilities_on(base):
        return True
    umount(str(base))
    return False


def _memory_available() -> int:
    """Return the bytes that can be had without swapping."""
    rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next((int(row[1]) << 10 for row in rows if row[0] == "MemAvailable:"), 0)


def _check_space(base: Path) -> None:
    free = shutil.disk_usage(base).free
    if free < _LEAST_SPACE:
        umount(str(base))
        base.rmdir()
        raise pytest.UsageError(
            f"only {free >> 20} MiB are free below {base.parent}; the suite needs "
            f"{_LEAST_SPACE >> 20}: free some, or name another place with --graphdriver-home"
        )


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
