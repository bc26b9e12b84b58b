"""Mount what containerd says is to be mounted: the suite's own few lines around mount(2).

The kernel copies one page of options. With many lowers absolute paths do not fit, so they are given
relative to the directory that all of them are in, which a thread that has unshared CLONE_FS can
enter without the process noticing; containerd's Go client does the same.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from graphdriver.errors import MountOptionsTooLong, NotSupported
from graphdriver_conformance.drivers.containerd.messages import Mount
from graphdriver_conformance.host.syscalls import (
    CLONE_FS,
    MountFlag,
    in_a_thread_of_its_own,
    mount,
    umount,
    unshare,
)

__all__ = ["mount_all"]

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


def mount_all(mounts: Sequence[Mount], point: Path) -> None:
    """Mount them at `point`, one over the other. Raises OSError, MountOptionsTooLong."""
    done = 0
    try:
        for one in mounts:
            if one.target:
                raise NotSupported(
                    f"a mount at {one.target!r} within another", "not of containerd 1"
                )
            _mount(one, point)
            done += 1
    except BaseException:
        for _ in range(done):
            umount(point)
        raise


def _mount(one: Mount, point: Path) -> None:
    flags = MountFlag(0)
    data: list[str] = []
    for option in one.options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            data.append(option)
    directory, data = _relative(data) if one.type == "overlay" else ("/", data)
    text = os.fsencode(",".join(data))
    if len(text) >= os.sysconf("SC_PAGE_SIZE"):
        raise MountOptionsTooLong(
            f"mount at {point}: {len(text)} bytes of options", "the kernel takes one page"
        )
    _mount_from(directory, one, point, flags, text)
    if flags & MountFlag.BIND and flags & MountFlag.RDONLY:
        # A bind takes no other flag the first time; read-only needs the second.
        again = Mount(one.type, one.source, "", one.options)
        _mount_from("/", again, point, flags | MountFlag.REMOUNT, b"")


def _relative(data: list[str]) -> tuple[str, list[str]]:
    """Return the directory that all layers are in, and the options as seen from there."""
    paths = [
        path
        for option in data
        if option.startswith(_DIRECTORIES)
        for path in option.partition("=")[2].split(":")
    ]
    directory = os.path.commonpath(paths) if paths else "/"
    if directory in paths:  # a single layer: "." would be it, and an empty name nothing
        directory = os.path.dirname(directory)
    return directory, [
        name + equals + ":".join(os.path.relpath(path, directory) for path in value.split(":"))
        if option.startswith(_DIRECTORIES)
        else option
        for option in data
        for name, equals, value in [option.partition("=")]
    ]


def _mount_from(directory: str, one: Mount, point: Path, flags: int, data: bytes) -> None:
    """Call mount(2) from `directory`, on a thread that has it for itself."""

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
