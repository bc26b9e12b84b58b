"""The system calls that access files and mounts: their kind and their arguments."""

import os
import re
import struct
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import NamedTuple

from graphdriver_conformance.host import seccomp
from graphdriver_conformance.host.seccomp import Instruction, Notification

__all__ = [
    "Call",
    "CallKind",
    "call_of",
    "filter_for",
    "flushes",
    "is_elsewhere",
    "without_random_names",
]


class CallKind(Enum):
    """The kind of effect of a call on a file system."""

    CHANGE = "change"
    """Changes names, content or metadata, so that the disk differs before and after it."""
    MOUNT = "mount"
    """Mounts, unmounts, or moves a mount."""
    FLUSH = "flush"
    """Syncs changes to the disk; readers see no difference."""
    READ = "read"
    """Reads, or opens without creating anything."""


CHANGE, MOUNT, FLUSH, READ = CallKind
_OPEN_FLAGS = os.O_CREAT | os.O_TRUNC
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | _OPEN_FLAGS
_TMPFILE = 0o20000000
_AT_FDCWD = -100
_LONGEST = 4096


class _Row(NamedTuple):
    """A call; its number is -1 on an architecture that lacks it.

    Of the arguments, `fN` is a descriptor, `pN` a path, `dN` a directory's descriptor followed by a
    path, and `tN` a text that is shown and is not a path, such as the target of a symlink.
    """

    name: str
    kind: CallKind
    arguments: str
    x86_64: int
    aarch64: int


_TABLE = [
    _Row(*row)
    for row in (
        ("write", CHANGE, "f0", 1, 64),
        ("pwrite64", CHANGE, "f0", 18, 68),
        ("writev", CHANGE, "f0", 20, 66),
        ("pwritev", CHANGE, "f0", 296, 70),
        ("pwritev2", CHANGE, "f0", 328, 287),
        ("sendfile", CHANGE, "f0", 40, 71),
        ("splice", CHANGE, "f2", 275, 76),
        ("copy_file_range", CHANGE, "f2", 326, 285),
        ("fallocate", CHANGE, "f0", 285, 47),
        ("truncate", CHANGE, "p0", 76, 45),
        ("ftruncate", CHANGE, "f0", 77, 46),
        ("rename", CHANGE, "p0 p1", 82, -1),
        ("renameat", CHANGE, "d0 d2", 264, 38),
        ("renameat2", CHANGE, "d0 d2", 316, 276),
        ("mkdir", CHANGE, "p0", 83, -1),
        ("mkdirat", CHANGE, "d0", 258, 34),
        ("rmdir", CHANGE, "p0", 84, -1),
        ("link", CHANGE, "p0 p1", 86, -1),
        ("linkat", CHANGE, "d0 d2", 265, 37),
        ("symlink", CHANGE, "t0 p1", 88, -1),
        ("symlinkat", CHANGE, "t0 d1", 266, 36),
        ("unlink", CHANGE, "p0", 87, -1),
        ("unlinkat", CHANGE, "d0", 263, 35),
        ("mknod", CHANGE, "p0", 133, -1),
        ("mknodat", CHANGE, "d0", 259, 33),
        ("creat", CHANGE, "p0", 85, -1),
        ("open", CHANGE, "p0", 2, -1),
        ("openat", CHANGE, "d0", 257, 56),
        ("openat2", CHANGE, "d0", 437, 437),
        ("open_by_handle_at", CHANGE, "f0", 304, 265),
        ("chmod", CHANGE, "p0", 90, -1),
        ("fchmod", CHANGE, "f0", 91, 52),
        ("fchmodat", CHANGE, "d0", 268, 53),
        ("fchmodat2", CHANGE, "d0", 452, 452),
        ("chown", CHANGE, "p0", 92, -1),
        ("fchown", CHANGE, "f0", 93, 55),
        ("lchown", CHANGE, "p0", 94, -1),
        ("fchownat", CHANGE, "d0", 260, 54),
        ("utime", CHANGE, "p0", 132, -1),
        ("utimes", CHANGE, "p0", 235, -1),
        ("futimesat", CHANGE, "d0", 261, -1),
        ("utimensat", CHANGE, "d0", 280, 88),
        ("setxattr", CHANGE, "p0 t1", 188, 5),
        ("lsetxattr", CHANGE, "p0 t1", 189, 6),
        ("fsetxattr", CHANGE, "f0 t1", 190, 7),
        ("removexattr", CHANGE, "p0 t1", 197, 14),
        ("lremovexattr", CHANGE, "p0 t1", 198, 15),
        ("fremovexattr", CHANGE, "f0 t1", 199, 16),
        ("setxattrat", CHANGE, "d0", 463, 463),
        ("removexattrat", CHANGE, "d0", 466, 466),
        ("file_setattr", CHANGE, "d0", 469, 469),
        ("ioctl", CHANGE, "f0", 16, 29),
        ("quotactl", CHANGE, "p1", 179, 60),
        ("quotactl_fd", CHANGE, "f0", 443, 443),
        ("mount", MOUNT, "t2 t0 p1", 165, 40),
        ("umount2", MOUNT, "p0", 166, 39),
        ("pivot_root", MOUNT, "p0 p1", 155, 41),
        ("open_tree", MOUNT, "d0", 428, 428),
        ("open_tree_attr", MOUNT, "d0", 467, 467),
        ("move_mount", MOUNT, "d0 d2", 429, 429),
        ("fsopen", MOUNT, "t0", 430, 430),
        ("fsconfig", MOUNT, "", 431, 431),
        ("fsmount", MOUNT, "", 432, 432),
        ("fspick", MOUNT, "d0", 433, 433),
        ("mount_setattr", MOUNT, "d0", 442, 442),
        ("fsync", FLUSH, "f0", 74, 82),
        ("fdatasync", FLUSH, "f0", 75, 83),
        ("syncfs", FLUSH, "f0", 306, 267),
        ("sync_file_range", FLUSH, "f0", 277, 84),
        ("sync", FLUSH, "", 162, 81),
        ("read", READ, "f0", 0, 63),
        ("pread64", READ, "f0", 17, 67),
        ("readv", READ, "f0", 19, 65),
        ("preadv", READ, "f0", 295, 69),
        ("preadv2", READ, "f0", 327, 286),
        ("stat", READ, "p0", 4, -1),
        ("lstat", READ, "p0", 6, -1),
        ("fstat", READ, "f0", 5, 80),
        ("newfstatat", READ, "d0", 262, 79),
        ("statx", READ, "d0", 332, 291),
        ("access", READ, "p0", 21, -1),
        ("faccessat", READ, "d0", 269, 48),
        ("faccessat2", READ, "d0", 439, 439),
        ("readlink", READ, "p0", 89, -1),
        ("readlinkat", READ, "d0", 267, 78),
        ("getdents64", READ, "f0", 217, 61),
        ("statfs", READ, "p0", 137, 43),
        ("fstatfs", READ, "f0", 138, 44),
        ("getxattr", READ, "p0 t1", 191, 8),
        ("lgetxattr", READ, "p0 t1", 192, 9),
        ("fgetxattr", READ, "f0 t1", 193, 10),
        ("listxattr", READ, "p0", 194, 11),
        ("llistxattr", READ, "p0", 195, 12),
        ("flistxattr", READ, "f0", 196, 13),
        ("flock", READ, "f0", 73, 32),
    )
]
_IO_URING_SETUP = 425
# The argument of each call with the flags that determine whether it writes; openat2 has a
# structure.
_FLAGS = {"open": 1, "openat": 2, "open_by_handle_at": 2}

# Which argument of these is the command, and the commands that change something; the rest asks:
# Q_QUOTAON, Q_QUOTAOFF, Q_SETINFO, Q_SETQUOTA, Q_XQUOTAON, Q_XQUOTAOFF, Q_XSETQLIM, Q_XQUOTARM.
_QUOTA_COMMAND = {"quotactl": 0, "quotactl_fd": 1}
_QUOTA_CHANGES = {0x800002, 0x800003, 0x800006, 0x800008, 0x5801, 0x5802, 0x5804, 0x5806}

# ioctl requests that change files: FS_IOC_SETFLAGS, FS_IOC_SETVERSION, FS_IOC_FSSETXATTR,
# FS_IOC_ENABLE_VERITY, FS_IOC_SETFSLABEL and the shutdown of a file system.
_CHANGING_IOCTLS = {
    0x40086602: "FS_IOC_SETFLAGS",
    0x40087602: "FS_IOC_SETVERSION",
    0x401C5820: "FS_IOC_FSSETXATTR",
    0x40806685: "FS_IOC_ENABLE_VERITY",
    0x8004587D: "FS_IOC_SHUTDOWN",
}
# Those of btrfs and of clones have one letter (include/uapi/linux/btrfs.h). These change a tree;
# the rest of them read.
_BTRFS_LETTER = 0x94
_BTRFS_CHANGES = {
    1: "BTRFS_IOC_SNAP_CREATE",
    8: "BTRFS_IOC_SYNC",
    9: "FICLONE",
    13: "FICLONERANGE",
    14: "BTRFS_IOC_SUBVOL_CREATE",
    15: "BTRFS_IOC_SNAP_DESTROY",
    23: "BTRFS_IOC_SNAP_CREATE_V2",
    24: "BTRFS_IOC_SUBVOL_CREATE_V2",
    26: "BTRFS_IOC_SUBVOL_SETFLAGS",
    37: "BTRFS_IOC_SET_RECEIVED_SUBVOL",
    40: "BTRFS_IOC_QUOTA_CTL",
    41: "BTRFS_IOC_QGROUP_ASSIGN",
    42: "BTRFS_IOC_QGROUP_CREATE",
    43: "BTRFS_IOC_QGROUP_LIMIT",
    54: "FIDEDUPERANGE",
    63: "BTRFS_IOC_SNAP_DESTROY_V2",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that waits for an answer.

    `places` are the absolute paths of its arguments, as the calling process resolves them; `text`
    follows the name in a report: the paths, and the names of a symlink's target, a file system's
    type or an xattr.
    """

    name: str
    kind: CallKind
    thread: int
    places: tuple[bytes, ...]
    text: str

    def touches(self, home: bytes) -> bool:
        """Return whether the call affects a home: by path or descriptor, or because it affects
        everything.

        The latter are all changes of mounts, and sync(2).
        """
        if self.kind is CallKind.MOUNT or not self.text:
            return True
        return any(one == home or one.startswith(home + b"/") for one in self.places)

    def shown(self, home: bytes) -> str:
        """Return the call for a report: paths relative to the home, without random parts of
        names.
        """
        shown_home = os.fsdecode(home)
        text = self.text.replace(f"{shown_home}/", "").replace(shown_home, ".")
        return without_random_names(f"{self.name} {text}".rstrip())


@cache
def filter_for(*, reads: bool = False, skips_flushes: bool = False) -> bytes:
    """Return the filter that stops at all calls of the table, optionally those that read.

    If it `skips_flushes`, calls that flush succeed at once, without a notification.

    Writes through io_uring would not be observed, so a process cannot set one up: it gets ENOSYS,
    as from a kernel without it.
    """
    conditions: list[Instruction] = []
    for number, row in _known().items():
        if (row.kind is READ and not reads) or (row.kind is FLUSH and skips_flushes):
            continue
        if row.name in _FLAGS and not reads:
            conditions.append(Instruction(number, _FLAGS[row.name], _WRITE_FLAGS))
        elif row.name == "ioctl":
            conditions.append(Instruction(number, 1, 0xFF00, _BTRFS_LETTER << 8))
            conditions += [Instruction(number, 1, 0xFFFFFFFF, one) for one in _CHANGING_IOCTLS]
        else:
            conditions.append(Instruction(number))
    return seccomp.program(conditions, [_IO_URING_SETUP], flushes() if skips_flushes else ())


@cache
def flushes() -> frozenset[int]:
    """Return the numbers of the calls that flush."""
    return frozenset(number for number, row in _known().items() if row.kind is FLUSH)


def call_of(notification: Notification) -> Call:
    """Return the call of a notification, with its paths read from the caller's memory."""
    row = _known()[notification.number]
    thread, arguments = notification.thread, notification.arguments
    kind, places, shown = row.kind, [], []
    try:
        kind = _actual_kind(row, thread, arguments)
        for argument in row.arguments.split():
            where, is_place = _argument(argument, thread, arguments)
            shown.append(os.fsdecode(where))
            if is_place:
                places.append(where)
    except OSError:
        # The thread is being killed, or the descriptor is invalid: then the call fails by itself.
        shown = shown or ["?"]
    if row.name == "ioctl":
        shown.append(_ioctl_name(arguments[1]))
    return Call(row.name, kind, thread, tuple(places), " ".join(filter(None, shown)))


def is_elsewhere(thread: int) -> bool:
    """Return whether a thread's paths refer to other directories than this process's.

    It is in another mount namespace or root directory, such as a helper that unpacks.
    """
    try:
        if os.readlink(f"/proc/{thread}/root") != os.readlink("/proc/self/root"):
            return True
        return os.readlink(f"/proc/{thread}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    except OSError:
        return False


def without_random_names(text: str) -> str:
    """Return a text with the random parts of names masked, so that it is the same in each run."""
    text = re.sub(r"[A-Z2-7]{26}", "LINK", text)
    text = re.sub(r"(?<=[-.])[a-z0-9_]{8}(?=/|$| )", "RANDOM", text)
    return re.sub(r"\d{6,}", "NUMBER", text)


@cache
def _known() -> dict[int, _Row]:
    """Return the calls of this architecture, by number."""
    machine = seccomp.architecture()
    numbers = ((row.x86_64 if machine == "x86_64" else row.aarch64, row) for row in _TABLE)
    return {number: row for number, row in numbers if number >= 0}


def _actual_kind(row: _Row, thread: int, arguments: tuple[int, ...]) -> CallKind:
    """Return the kind of the call with these arguments: many an open and ioctl only reads."""
    if row.name == "ioctl":
        return CHANGE if _ioctl_name(arguments[1]) else READ
    if row.name in _QUOTA_COMMAND:
        command = (arguments[_QUOTA_COMMAND[row.name]] & 0xFFFFFFFF) >> 8
        return CHANGE if command in _QUOTA_CHANGES else READ
    if row.name in _FLAGS:
        flags = arguments[_FLAGS[row.name]]
    elif row.name == "openat2":
        flags = struct.unpack("<Q", _memory(thread, arguments[2], 8))[0]
    else:
        return row.kind
    return CHANGE if flags & (_OPEN_FLAGS | _TMPFILE) else READ


def _ioctl_name(request: int) -> str:
    request &= 0xFFFFFFFF
    if request >> 8 & 0xFF == _BTRFS_LETTER:
        return _BTRFS_CHANGES.get(request & 0xFF, "")
    return _CHANGING_IOCTLS.get(request, "")


def _argument(place: str, thread: int, arguments: tuple[int, ...]) -> tuple[bytes, bool]:
    """Return an argument as text, and whether it is a path in the file system."""
    sort, index = place[0], int(place[1])
    value = arguments[index]
    if sort == "t":
        return _text(thread, value), False
    if sort == "f":
        return _descriptor(thread, value), True
    path = _text(thread, value if sort == "p" else arguments[index + 1])
    if path.startswith(b"/"):
        return _normal(path), True
    base = _descriptor(thread, value) if sort == "d" else _link(thread, "cwd")
    return (_normal(base + b"/" + path) if path else base), True


def _normal(path: bytes) -> bytes:
    """Return a path without empty components and dots; `..` stays, because it may follow a
    symlink.
    """
    return b"/" + b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _descriptor(thread: int, value: int) -> bytes:
    (number,) = struct.unpack("<i", struct.pack("<I", value & 0xFFFFFFFF))
    return _link(thread, "cwd" if number == _AT_FDCWD else f"fd/{number}")


def _link(thread: int, name: str) -> bytes:
    return os.fsencode(os.readlink(f"/proc/{thread}/{name}"))


def _text(thread: int, address: int) -> bytes:
    """Return the string at an address, read page by page: the next page may not be mapped."""
    if not address:
        return b""
    data = b""
    while len(data) < _LONGEST:
        count = 4096 - address % 4096
        chunk = _memory(thread, address, count)
        data += chunk
        if b"\0" in chunk or len(chunk) < count:
            break
        address += count
    return data.partition(b"\0")[0]


def _memory(thread: int, address: int, count: int) -> bytes:
    descriptor = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, count, address)
    finally:
        os.close(descriptor)
