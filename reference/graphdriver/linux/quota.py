"""Project quotas: quotactl_fd(2) or quotactl(2), and the ioctls that give a directory its project.

Works where the file system keeps project quotas and was mounted so (xfs pquota, ext4 prjquota).
"""

import errno
import os
import stat
import struct
import tempfile
from ctypes import c_char_p
from fcntl import ioctl
from typing import NamedTuple

from graphdriver.linux.architecture import ioctl_read, ioctl_write, syscall_number
from graphdriver.linux.libc import call, syscall

__all__ = ["PROJINHERIT", "Fsxattr", "fsgetxattr", "fssetxattr", "quotactl_set_limit"]

# include/uapi/linux/fs.h
_FSXATTR = struct.Struct("=IIIII8s")
_FSGETXATTR = ioctl_read("X", 31, _FSXATTR.size)
_FSSETXATTR = ioctl_write("X", 32, _FSXATTR.size)
PROJINHERIT = 0x200

# include/uapi/linux/dqblk_xfs.h: the one call that xfs and, through the generic layer, ext4 answer.
_Q_XSETQLIM = (ord("X") << 8) + 4
_PRJQUOTA = 2
_SET_LIMIT = (_Q_XSETQLIM << 8) | _PRJQUOTA
_BSOFT, _BHARD = 1 << 2, 1 << 3
_DISK_QUOTA = struct.Struct("=bbHI6Q2i2H4b3QiHh8s")
_QUOTACTL_FD = syscall_number(443)  # since 5.14
_BASIC_BLOCK = 512


class Fsxattr(NamedTuple):
    """What FS_IOC_FSGETXATTR says of a file that matters here."""

    flags: int
    project: int


def fsgetxattr(descriptor: int) -> Fsxattr:
    """Return flags and project of an open file or directory."""
    data = ioctl(descriptor, _FSGETXATTR, bytes(_FSXATTR.size))
    flags, _, _, project, _, _ = _FSXATTR.unpack(data)
    return Fsxattr(flags, project)


def fssetxattr(descriptor: int, value: Fsxattr) -> None:
    """Set flags and project; the rest stays as it is."""
    fields = list(_FSXATTR.unpack(ioctl(descriptor, _FSGETXATTR, bytes(_FSXATTR.size))))
    fields[0], fields[3] = value.flags, value.project
    ioctl(descriptor, _FSSETXATTR, _FSXATTR.pack(*fields))


def quotactl_set_limit(path: str | os.PathLike[str], project: int, size: int) -> None:
    """Let the files of `project` on the file system of `path` take `size` bytes at most."""
    blocks = size // _BASIC_BLOCK
    limits = (blocks, blocks, 0, 0, 0, 0)
    quota = _DISK_QUOTA.pack(
        1,
        _PRJQUOTA,
        _BSOFT | _BHARD,
        project,
        *limits,
        0,
        0,
        0,
        0,
        *(0,) * 4,
        0,
        0,
        0,
        0,
        0,
        0,
        b"",
    )
    try:
        _quotactl_fd(path, project, quota)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _quotactl(path, project, quota)


def _quotactl_fd(path: str | os.PathLike[str], project: int, quota: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        data = c_char_p(quota)
        syscall("quotactl_fd", _QUOTACTL_FD, descriptor, _SET_LIMIT, project, data, path=path)
    finally:
        os.close(descriptor)


def _quotactl(path: str | os.PathLike[str], project: int, quota: bytes) -> None:
    """Before Linux 5.14 a file system goes by its block device, which may have no name in /dev.

    So it gets one for as long as the call takes, as Docker's quota/projectquota.go does for good.
    """
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=os.path.dirname(path)) as directory:
        device = os.path.join(directory, "device")
        os.mknod(device, stat.S_IFBLK | 0o600, os.stat(path).st_dev)
        special = c_char_p(os.fsencode(device))
        call("quotactl", _SET_LIMIT, special, project, c_char_p(quota), path=path)
