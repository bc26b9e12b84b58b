"""Mounts: mount(2), umount2(2), and the mount table."""

import _thread
import ctypes
import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from enum import IntFlag
from pathlib import Path
from typing import NamedTuple, TypeVar

from graphdriver.linux.libc import call

__all__ = [
    "CLONE_FS",
    "OVERLAYFS_MAGIC",
    "MountEntry",
    "MountFlag",
    "UnmountFlag",
    "detach",
    "filesystem_type",
    "is_mounted",
    "mount",
    "mountinfo",
    "umount2",
    "unshare",
    "with_own_directory",
]

# include/uapi/linux/magic.h
OVERLAYFS_MAGIC = 0x794C7630
# include/uapi/linux/sched.h
CLONE_FS = 0x00000200

_Result = TypeVar("_Result")


class MountFlag(IntFlag):
    """Flags of mount(2) (include/uapi/linux/mount.h)."""

    NONE = 0
    RDONLY = 1


class UnmountFlag(IntFlag):
    """Flags of umount2(2)."""

    NONE = 0
    DETACH = 2
    NOFOLLOW = 8


class MountEntry(NamedTuple):
    """A line of /proc/self/mountinfo: the mount point, type and options."""

    point: Path
    type: str
    options: str


def mount(source: str, target: bytes, type: str, flags: MountFlag, data: bytes) -> None:
    """Mount. The kernel silently truncates `data` to a page less one byte."""
    call("mount", source.encode(), target, type.encode(), ctypes.c_ulong(flags), data, path=target)


def umount2(target: bytes | str | os.PathLike[str], flags: UnmountFlag = UnmountFlag.NONE) -> None:
    """Unmount; DETACH removes the mount from the tree now and ends it when it is no longer used."""
    call("umount2", os.fsencode(target), int(flags), path=target)


def detach(point: str | os.PathLike[str]) -> None:
    """Detach a mount, even while files in it are open (moby #33638).

    A path without a mount is not an error: another process may have unmounted it.
    """
    with suppress(FileNotFoundError):
        try:
            umount2(point, UnmountFlag.DETACH | UnmountFlag.NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise


def is_mounted(point: str | os.PathLike[str]) -> bool:
    """Return whether `point` is a mount point: it is on another device than its parent."""
    path = os.fspath(point)
    try:
        return os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False


def unshare(flags: int) -> None:
    """Unshare for the calling thread the resources of `flags`."""
    call("unshare", flags)


def with_own_directory(directory: int, work: Callable[[], _Result]) -> _Result:
    """Run `work` in a thread whose current directory is the one open as `directory`.

    The current directory is shared by all threads unless a thread has unshared it (CLONE_FS); so
    the process's own does not change, and no child process is needed for a relative path.
    """
    outcome: list[_Result] = []
    failure: list[BaseException] = []
    over = _thread.allocate_lock()
    over.acquire()
    # A signal may come when a thread has just been started: a second one then finds this empty.
    turns = [work]

    def run() -> None:
        try:
            turn = turns.pop()
        except IndexError:
            return
        try:
            unshare(CLONE_FS)
            os.fchdir(directory)
            outcome.append(turn())
        except BaseException as error:
            failure.append(error)
        finally:
            over.release()

    started, interrupt = False, None
    while True:
        try:
            if not started:
                # threading.Thread would also have us wait until it has begun: a third of what this
                # takes.
                _thread.start_new_thread(run, ())
                started = True
            if not outcome and not failure:  # a signal may have come right after the lock
                over.acquire()
            break
        except RuntimeError as error:  # there can be no more threads
            if turns:
                raise OSError(errno.EAGAIN, str(error)) from None
            started = True
        except BaseException as error:  # a signal: the thread uses `directory` until it is over
            interrupt = error
    if interrupt:
        raise interrupt
    if failure:
        raise failure[0]
    return outcome[0]


class _Statfs(ctypes.Structure):
    # struct statfs: f_type first, then counts that are not read here. A word has the size of a
    # long, except on s390x (arch/s390/include/uapi/asm/statfs.h).
    _fields_ = (
        ("f_type", ctypes.c_uint if os.uname().machine.startswith("s390") else ctypes.c_long),
        ("rest", ctypes.c_byte * 248),
    )


def filesystem_type(path: str | os.PathLike[str]) -> int:
    """Return the magic number of the file system at `path` (statfs(2), f_type)."""
    found = _Statfs()
    call("statfs", os.fsencode(path), ctypes.byref(found), path=path)
    return int(found.f_type) & 0xFFFFFFFF


def mountinfo(below: Path | None = None) -> list[MountEntry]:
    """Return the mounts of this mount namespace, in the order made; only those below, if given."""
    entries = []
    prefix = os.fsencode(below) + b"/" if below else b"/"
    table = Path("/proc/self/mountinfo").read_bytes()
    # Hosts have thousands of mounts; only the requested ones are parsed.
    wanted = b" " + _escape(prefix)
    if wanted not in table:
        return []
    # Not splitlines: a carriage return in the path of a mount point does not end a line.
    for line in table.split(b"\n"):
        if wanted not in line:
            continue
        left, _, right = line.partition(b" - ")
        point = _unescape(left.split(b" ", 5)[4])
        if point.startswith(prefix):
            kind, _, options = right.split(b" ", 2)
            text = os.fsdecode(_unescape(options))
            entries.append(MountEntry(Path(os.fsdecode(point)), os.fsdecode(kind), text))
    return entries


def _escape(path: bytes) -> bytes:
    """Escape a path as in the table (proc(5))."""
    return re.sub(rb"[ \t\n\\]", lambda match: b"\\%03o" % match[0][0], path)


def _unescape(field: bytes) -> bytes:
    """Undo the octal escapes of blanks and backslashes (proc(5))."""
    if b"\\" not in field:
        return field
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
