"""System calls that the suite makes and the standard library lacks; each wrapper has its name.

The suite shares none of this with the drivers it judges.
"""

import ctypes
import os
from collections.abc import Callable
from enum import IntFlag
from pathlib import Path
from threading import Thread
from typing import TypeVar

__all__ = [
    "CLONE_FS",
    "CLONE_NEWNS",
    "Rename",
    "fallocate",
    "in_a_thread_of_its_own",
    "mount",
    "renameat2",
    "set_filesystem_ids",
    "syncfs",
    "unshare",
]

# include/uapi/linux/sched.h
CLONE_FS, CLONE_NEWNS = 0x00000200, 0x00020000
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")


class Rename(IntFlag):
    """Flags of renameat2(2)."""

    REPLACE = 0
    NOREPLACE = 1
    EXCHANGE = 2


def renameat2(old: Path | bytes, new: Path | bytes, flags: Rename) -> None:
    """Rename, refuse to replace, or exchange."""
    _call("renameat2", _AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), int(flags))


def syncfs(descriptor: int) -> None:
    """Write out the file system that a descriptor is on."""
    _call("syncfs", descriptor)


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Allocate, or with mode 3 (PUNCH_HOLE | KEEP_SIZE) free, a range of bytes."""
    _call("fallocate", descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))


def unshare(flags: int) -> None:
    """Give the calling thread its own copy of what `flags` names."""
    _call("unshare", flags)


def mount(source: str, target: str, type: str, flags: int, data: str = "") -> None:
    """Mount."""
    arguments = (os.fsencode(one) for one in (source, target, type))
    _call("mount", *arguments, ctypes.c_ulong(flags), os.fsencode(data))


def set_filesystem_ids(uid: int, gid: int) -> None:
    """Let the calling thread, and no other, meet file systems as this user (setfsuid(2)).

    With another uid than 0 the thread also loses CAP_DAC_OVERRIDE and its kind. setfsuid has no
    error; setting an impossible id tells which one holds.
    """
    for name, id in (("setfsgid", gid), ("setfsuid", uid)):
        getattr(_libc, name)(id)
        if getattr(_libc, name)(-1) != id:
            raise OSError(1, f"{name}({id}): {os.strerror(1)}")


def in_a_thread_of_its_own(work: Callable[[], _Result]) -> _Result:
    """Do `work` in a new thread, which may unshare and become what it likes; then it is gone."""
    outcome: list[_Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = Thread(target=run, name="graphdriver-suite")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
