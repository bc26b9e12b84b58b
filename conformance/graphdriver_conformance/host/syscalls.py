"""System calls that the suite needs and the standard library lacks; each wrapper has its name.

The only module of the suite that loads the C library. It shares no code with the tested drivers.
"""

import ctypes
import os
from collections.abc import Callable
from enum import IntFlag
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TypeVar

__all__ = [
    "CLONE_FS",
    "CLONE_NEWNS",
    "CLONE_NEWUSER",
    "DirectoryStream",
    "MountFlag",
    "Rename",
    "call",
    "fallocate",
    "in_a_thread_of_its_own",
    "mount",
    "quotactl",
    "quotactl_fd",
    "renameat2",
    "set_filesystem_ids",
    "syncfs",
    "umount",
    "unshare",
]

# include/uapi/linux/sched.h
CLONE_FS, CLONE_NEWNS, CLONE_NEWUSER = 0x00000200, 0x00020000, 0x10000000
_AT_FDCWD = -100
_MNT_DETACH = 2
_QUOTACTL_FD = 443
_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_Result = TypeVar("_Result")


class MountFlag(IntFlag):
    """Flags of mount(2); include/uapi/linux/mount.h."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    NOATIME = 1024
    BIND = 4096
    REC = 16384
    PRIVATE = 1 << 18
    RELATIME = 1 << 21


class Rename(IntFlag):
    """Flags of renameat2(2)."""

    REPLACE = 0
    NOREPLACE = 1
    EXCHANGE = 2


def renameat2(old: Path | bytes, new: Path | bytes, flags: Rename) -> None:
    """Rename, refuse to replace, or exchange."""
    call("renameat2", _AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), int(flags))


def syncfs(descriptor: int) -> None:
    """Sync the file system of a descriptor."""
    call("syncfs", descriptor)


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Allocate, or with mode 3 (PUNCH_HOLE | KEEP_SIZE) free, a range of bytes."""
    call("fallocate", descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))


def unshare(flags: int) -> None:
    """Unshare for the calling thread the resources of `flags`."""
    call("unshare", flags)


def mount(source: str, target: str | Path, type: str, flags: int, data: str | bytes = "") -> None:
    """Mount."""
    arguments = (os.fsencode(one) for one in (source, target, type))
    call("mount", *arguments, ctypes.c_ulong(flags), os.fsencode(data))


def umount(point: str | Path) -> None:
    """Unmount, lazily if it is in use. Raises OSError, EINVAL if it is not a mount point."""
    call("umount2", os.fsencode(point), _MNT_DETACH, path=str(point))


def quotactl_fd(descriptor: int, command: int, buffer: object) -> None:
    """quotactl_fd(2), since Linux 5.14. Raises OSError."""
    number = ctypes.c_long(_QUOTACTL_FD)
    call("syscall", number, descriptor, ctypes.c_ulong(command), 0, buffer, shown="quotactl_fd")


def quotactl(command: int, device: str, buffer: object) -> None:
    """quotactl(2), which finds a file system by its device. Raises OSError."""
    call("quotactl", command, os.fsencode(device), 0, buffer)


def set_filesystem_ids(uid: int, gid: int) -> None:
    """Make the calling thread, and no other, access file systems as this user (setfsuid(2)).

    With another uid than 0 the thread also loses CAP_DAC_OVERRIDE and similar capabilities.
    setfsuid reports no error; setting an invalid id returns the current one.
    """
    for name, id in (("setfsgid", gid), ("setfsuid", uid)):
        getattr(_libc, name)(id)
        if getattr(_libc, name)(-1) != id:
            raise OSError(1, f"{name}({id}): {os.strerror(1)}")


class DirectoryStream:
    """A directory read by readdir(3), with the positions of telldir(3) and seekdir(3)."""

    class _Dirent(ctypes.Structure):
        # struct dirent of all 64-bit Linux C libraries
        _fields_ = (
            ("ino", ctypes.c_uint64),
            ("off", ctypes.c_int64),
            ("reclen", ctypes.c_ushort),
            ("type", ctypes.c_ubyte),
            ("name", ctypes.c_char * 256),
        )

    def __init__(self, path: Path) -> None:
        """Open the directory. Raises OSError."""
        stream = _libc.opendir(os.fsencode(path))
        if not stream:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
        self._stream = ctypes.c_void_p(stream)

    def __enter__(self) -> "DirectoryStream":
        """Return the open stream."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        _libc.closedir(self._stream)

    def next(self) -> bytes | None:
        """Return the next name, None at the end. Raises OSError."""
        ctypes.set_errno(0)
        entry = _libc.readdir(self._stream)
        if entry:
            return bytes(self._Dirent.from_address(entry).name)
        if number := ctypes.get_errno():
            raise OSError(number, f"readdir: {os.strerror(number)}")
        return None

    def tell(self) -> int:
        """Return the position of the next name."""
        return int(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        """Go to a position that `tell` returned."""
        _libc.seekdir(self._stream, ctypes.c_long(position))


def in_a_thread_of_its_own(work: Callable[[], _Result]) -> _Result:
    """Run `work` in a new thread, which may unshare resources; then it ends.

    Raises the exceptions of `work`. A daemon thread, because `work` may call a driver that never
    returns.
    """
    outcome: list[_Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = Thread(target=run, name="graphdriver-suite", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def call(name: str, *arguments: object, path: str | None = None, shown: str = "") -> None:
    """Call a function of the C library that returns -1 for an error. Raises OSError."""
    if getattr(_libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{shown or name}: {os.strerror(number)}", path)
