"""Mount what containerd says is to be mounted: the suite's own few lines around mount(2).

The kernel copies one page of options. With many lowers absolute paths do not fit, so they are given
relative to the directory that all of them are in, which a thread that has unshared CLONE_FS can
enter without the process noticing; containerd's Go client does the same.
"""

import ctypes
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from graphdriver.errors import MountOptionsTooLong, NotSupported
from graphdriver_conformance.drivers.containerd.messages import Mount

__all__ = ["is_mounted", "mount_all", "umount"]

_CLONE_FS = 0x200
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_NOATIME, _MS_RELATIME = 32, 4096, 16384, 1024, 1 << 21
_FLAGS = {
    "ro": _MS_RDONLY,
    "rw": 0,
    "bind": _MS_BIND,
    "rbind": _MS_BIND | _MS_REC,
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": _MS_NOEXEC,
    "noatime": _MS_NOATIME,
    "relatime": _MS_RELATIME,
}
_MNT_DETACH = 2
_OCTAL = re.compile(rb"\\([0-7]{3})")
_DIRECTORIES = ("lowerdir=", "upperdir=", "workdir=")
_libc = ctypes.CDLL(None, use_errno=True)


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


def is_mounted(point: Path) -> bool:
    """Say whether something is mounted at `point`; os.path.ismount misses binds."""
    wanted = os.fsencode(os.path.realpath(point))
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        if wanted == _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split()[4]):
            return True
    return False


def umount(point: Path) -> None:
    """Unmount, lazily where it is in use."""
    if _libc.umount2(os.fsencode(point), _MNT_DETACH):
        number = ctypes.get_errno()
        raise OSError(number, f"umount2: {os.strerror(number)}", str(point))


def _mount(one: Mount, point: Path) -> None:
    flags = 0
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
    if flags & _MS_BIND and flags & _MS_RDONLY:
        # A bind takes no other flag the first time; read-only needs the second.
        again = Mount(one.type, one.source, "", one.options)
        _mount_from("/", again, point, flags | _MS_REMOUNT, b"")


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
    failures: list[OSError] = []

    def mount() -> None:
        try:
            _checked("unshare", _CLONE_FS)
            os.chdir(directory)
            _checked(
                "mount",
                os.fsencode(one.source),
                os.fsencode(point),
                os.fsencode(one.type),
                ctypes.c_ulong(flags),
                data,
            )
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=mount)
    thread.start()
    thread.join()
    if failures:
        error = failures[0]
        raise OSError(
            error.errno,
            f"{error.strerror}; containerd named {one.type} of {one.source or directory}: "
            "it and the suite have to see the same mounts",
            str(point),
        )


def _checked(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
