"""Project quotas: quotactl_fd(2) or quotactl(2), and the ioctls that set a directory's project.

They need a file system with project quota that is mounted with it (xfs pquota, ext4 prjquota).
"""

import errno
import functools
import os
import stat
import struct
import tempfile
from ctypes import Array, c_char, c_char_p, c_uint, create_string_buffer
from fcntl import ioctl
from typing import NamedTuple

from graphdriver.linux.architecture import ioctl_read, ioctl_write, syscall_number
from graphdriver.linux.libc import call, syscall

__all__ = [
    "PROJINHERIT",
    "Fsxattr",
    "fsgetxattr",
    "fssetxattr",
    "quotactl_is_enforced",
    "quotactl_is_used",
    "quotactl_set_limit",
]

# include/uapi/linux/fs.h
_FSXATTR = struct.Struct("=IIIII8s")
_FSGETXATTR = ioctl_read("X", 31, _FSXATTR.size)
_FSSETXATTR = ioctl_write("X", 32, _FSXATTR.size)
PROJINHERIT = 0x200

# include/uapi/linux/dqblk_xfs.h: calls that xfs and, through the generic layer, ext4 support.
_PRJQUOTA = 2
_GET_QUOTA, _SET_LIMIT, _GET_STATE = (
    (((ord("X") << 8) + number) << 8) | _PRJQUOTA for number in (3, 4, 5)
)
_BSOFT, _BHARD = 1 << 2, 1 << 3
_DISK_QUOTA = struct.Struct("=bbHI6Q2i2H4b3QiHh8s")
_STATE = struct.Struct("=bxH76x")
_PROJECTS_ENFORCED = 1 << 5
_QUOTACTL_FD = syscall_number(443)  # since 5.14
_BASIC_BLOCK = 512


class Fsxattr(NamedTuple):
    """The fields of FS_IOC_FSGETXATTR that are used."""

    flags: int
    project: int


def fsgetxattr(descriptor: int) -> Fsxattr:
    """Return flags and project of an open file or directory."""
    data = ioctl(descriptor, _FSGETXATTR, bytes(_FSXATTR.size))
    flags, _, _, project, _, _ = _FSXATTR.unpack(data)
    return Fsxattr(flags, project)


def fssetxattr(descriptor: int, value: Fsxattr) -> None:
    """Set flags and project; other fields are kept."""
    fields = list(_FSXATTR.unpack(ioctl(descriptor, _FSGETXATTR, bytes(_FSXATTR.size))))
    fields[0], fields[3] = value.flags, value.project
    ioctl(descriptor, _FSSETXATTR, _FSXATTR.pack(*fields))


def quotactl_set_limit(path: str | os.PathLike[str], project: int, size: int) -> None:
    """Limit the files of `project` on the file system of `path` to `size` bytes.

    Whole blocks are counted, so the limit is the next multiple of 512; 0 would be no limit.
    """
    if size <= 0:
        raise OSError(errno.EINVAL, f"a limit of {size} bytes")
    blocks = -(-size // _BASIC_BLOCK)
    limits = (blocks, blocks, 0, 0, 0, 0)
    rest = (0,) * 14
    quota = _DISK_QUOTA.pack(1, _PRJQUOTA, _BSOFT | _BHARD, project, *limits, *rest, b"")
    _quotactl(_SET_LIMIT, path, project, quota)


def quotactl_is_enforced(path: str | os.PathLike[str]) -> bool:
    """Return whether the file system of `path` enforces project limits. Raises OSError."""
    _, flags = _STATE.unpack(_quotactl(_GET_STATE, path, 0, bytes(_STATE.size)))
    return bool(flags & _PROJECTS_ENFORCED)


def quotactl_is_used(path: str | os.PathLike[str], project: int) -> bool:
    """Return whether a project has files or limits on the file system of `path`. Raises OSError."""
    try:
        data = _quotactl(_GET_QUOTA, path, project, bytes(_DISK_QUOTA.size))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return False
        raise
    # Limits of blocks and inodes, hard and soft, then the numbers in use.
    return any(_DISK_QUOTA.unpack(data)[4:10])


def _quotactl(command: int, path: str | os.PathLike[str], project: int, data: bytes) -> bytes:
    """Call quotactl on the directory `path`; return the contents of `data` afterwards."""
    buffer = create_string_buffer(data, len(data))
    if not _has_quotactl_fd():
        _quotactl_by_device(command, path, project, buffer)
        return buffer.raw
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscall("quotactl_fd", _QUOTACTL_FD, descriptor, command, project, buffer, path=path)
    finally:
        os.close(descriptor)
    return buffer.raw


@functools.cache
def _has_quotactl_fd() -> bool:
    """Return whether the kernel has the call; a file system without quota returns ENOSYS, too."""
    try:
        syscall("quotactl_fd", _QUOTACTL_FD, -1, _GET_STATE, 0, None)
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def _quotactl_by_device(
    command: int, path: str | os.PathLike[str], project: int, buffer: Array[c_char]
) -> None:
    """Before Linux 5.14 quotactl takes a block device, which may have no name in /dev.

    A temporary name is created for the call; Docker's quota/projectquota.go creates a permanent
    one.
    """
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=path) as directory:
        device = os.path.join(directory, "device")
        os.mknod(device, stat.S_IFBLK | 0o600, os.stat(path).st_dev)
        special = c_char_p(os.fsencode(device))
        call("quotactl", command, special, c_uint(project), buffer, path=path)
