"""Mount the mounts that containerd returns, of any type.

Overlay and bind mounts use mount(2). The kernel copies one page of options, into which the absolute
paths of many lowers do not fit. They are then given relative to their common directory, which a
thread that has unshared CLONE_FS can enter without a change to the process; containerd's Go client
does the same. All other types (images on loop devices, types with a helper program) are mounted by
mount(8).

A daemon may mount the lowers of an overlay itself, possibly in a mount namespace of its own. The
same path is then another file in this process, usually an empty directory, and each verdict would
be wrong. `Sources` detects this.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphdriver.errors import MountOptionsTooLong, NotSupported, PrerequisitesNotMet
from graphdriver_conformance.drivers.containerd.api.types_pb2 import Mount
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.host.mountinfo import mounts_at
from graphdriver_conformance.host.syscalls import (
    CLONE_FS,
    MountFlag,
    in_a_thread_of_its_own,
    mount,
    umount,
    unshare,
)

__all__ = ["Sources", "mount_all", "unmount_all"]

_FLAGS = {
    "ro": MountFlag.RDONLY,
    "rw": MountFlag(0),
    "bind": MountFlag.BIND,
    "rbind": MountFlag.BIND | MountFlag.REC,
    "nosuid": MountFlag.NOSUID,
    "nodev": MountFlag.NODEV,
    "noexec": MountFlag.NOEXEC,
    "noatime": MountFlag.NOATIME,
    "relatime": MountFlag.RELATIME,
}
_DIRECTORIES = ("lowerdir=", "upperdir=", "workdir=")


@dataclass(frozen=True, slots=True)
class Sources:
    """Compares the paths in mounts between this process and the daemon `process`."""

    process: int

    def check(self, mounts: Iterable[Mount]) -> None:
        """Raise PrerequisitesNotMet if a path is not the same file in both processes.

        If the daemon's process is not visible, its paths are assumed to be the same.
        """
        root = Path(f"/proc/{self.process}/root")
        if not self.process or not root.is_dir():
            return
        for path in (path for one in mounts for path in _paths(one)):
            there = _file_at(f"{root}{path}")
            if there and there != _file_at(path):
                raise PrerequisitesNotMet(
                    f"{path} is a different file for containerd than for the suite",
                    "the mounts of containerd must be visible to the suite: run it in the mount "
                    f"namespace of process {self.process}, for example with nsenter --mount",
                )


def mount_all(mounts: Sequence[Mount], point: Path) -> None:
    """Mount them in their order, at `point` or below it. Raises OSError, DriverError."""
    done: list[Path] = []
    try:
        for one in mounts:
            place = _inside(point, one.target)
            _mount(one, place)
            done.append(place)
    except BaseException:
        for place in reversed(done):
            umount(place)
        raise


def unmount_all(point: Path) -> None:
    """Unmount everything at `point` and below it."""
    umount_below(point)
    while mounts_at(point):
        umount(point)


def _paths(one: Mount) -> list[str]:
    """Return the absolute paths in a mount's source and options."""
    values = [value for name in _DIRECTORIES for value in _values(one.options, name)]
    found = [path for value in values for path in value.split(":")]
    return [path for path in (one.source, *found) if path.startswith("/")]


def _values(options: Iterable[str], name: str) -> list[str]:
    return [option.removeprefix(name) for option in options if option.startswith(name)]


def _file_at(path: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _inside(point: Path, target: str) -> Path:
    """Return the directory `target` below `point`. Raises NotSupported if it is not below."""
    found = point / target.lstrip("/")
    real = Path(os.path.realpath(found))
    if not real.is_relative_to(os.path.realpath(point)):
        raise NotSupported(f"a mount at {target!r}", "it is not below the mount point")
    return found


def _mount(one: Mount, point: Path) -> None:
    if "/" in one.type:
        # format/overlay, mkfs/ext4: instructions of containerd 2.2 to its own mount manager.
        raise NotSupported(f"a mount of the type {one.type}", "only containerd itself can make it")
    flags = MountFlag(0)
    data: list[str] = []
    for option in one.options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            data.append(option)
    if one.type != "overlay" and not flags & MountFlag.BIND:
        _mount_by_program(one, point)
        return
    directory, data = _relative(data) if one.type == "overlay" else ("/", data)
    text = os.fsencode(",".join(data))
    if len(text) >= os.sysconf("SC_PAGE_SIZE"):
        raise MountOptionsTooLong(
            f"mount at {point}: {len(text)} bytes of options", "the kernel takes one page"
        )
    _mount_from(directory, one, point, flags, text)
    if flags & MountFlag.BIND and flags & MountFlag.RDONLY:
        # A bind mount accepts no other flag at first; read-only needs a second call.
        _mount_from("/", one, point, flags | MountFlag.REMOUNT, b"")


def _mount_by_program(one: Mount, point: Path) -> None:
    """Mount with mount(8), which supports loop devices and mount.TYPE. Raises OSError."""
    options = ["-o", ",".join(one.options)] if one.options else []
    command = ["mount", "-t", one.type, *options, "--", one.source or "none", str(point)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        message = done.stderr.strip() or f"mount(8) ended with {done.returncode}"
        raise NotSupported(f"a mount of the type {one.type} of {one.source}", message)


def _relative(data: list[str]) -> tuple[str, list[str]]:
    """Return the common directory of all layers, and the options relative to it."""
    paths = [
        path
        for option in data
        if option.startswith(_DIRECTORIES)
        for path in option.partition("=")[2].split(":")
    ]
    directory = os.path.commonpath(paths) if paths else "/"
    if directory in paths:  # a single layer: it would be ".", and an empty name is invalid
        directory = os.path.dirname(directory)
    return directory, [
        name + equals + ":".join(os.path.relpath(path, directory) for path in value.split(":"))
        if option.startswith(_DIRECTORIES)
        else option
        for option in data
        for name, equals, value in [option.partition("=")]
    ]


def _mount_from(directory: str, one: Mount, point: Path, flags: int, data: bytes) -> None:
    """Call mount(2) from `directory`, in a thread with its own current directory."""

    def from_there() -> None:
        unshare(CLONE_FS)
        os.chdir(directory)
        mount(one.source, point, one.type, flags, data)

    try:
        in_a_thread_of_its_own(from_there)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; containerd named {one.type} of {one.source or directory}: "
            "it and the suite have to see the same mounts",
            str(point),
        ) from None
