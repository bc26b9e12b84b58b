"""Properties of this machine: probed, not derived from versions."""

import contextlib
import ctypes
import errno
import os
import platform
import stat
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from graphdriver_conformance.host import mountinfo, seccomp, syscalls
from graphdriver_conformance.host.namespaces import Privileges

__all__ = [
    "Environment",
    "abilities_on",
    "filesystem_of",
    "is_full",
    "mount_tmpfs",
    "probe",
    "umount",
    "umount_below",
]

# include/uapi/linux/dqblk_xfs.h
_Q_XGETQSTAT = (ord("X") << 8) + 5
_PRJQUOTA = 2
_PROJECTS_ENFORCED = 1 << 5
_LEAST_SPACE = 1 << 20

_WHAT_WOULD_HELP = {
    "root": "run as root, who can give files to any owner and make devices",
    "ids": "run as root, or install uidmap and give the user a range in /etc/subuid and subgid",
    "mount": "run as root, or where user namespaces may mount overlay",
    "project_quota": "use a home on xfs with pquota or ext4 with prjquota",
    "supervision": "use Linux 5.5 or later, with no other seccomp listener on this process",
    "user_xattr": "use --graphdriver-home on a file system with user.* attributes",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """Facts about the run; `can` contains the needs of requirements that the machine meets.

    `facts` may contain the name of a need that is not met, with the reason.
    """

    kernel: str
    machine: str
    filesystem: str
    uid: int
    can: frozenset[str]
    facts: dict[str, str] = field(default_factory=dict)

    def lacks(self, need: str) -> str:
        """Return why `need` is not met here and the remedy, "" if it is met."""
        if need in self.can:
            return ""
        help = _WHAT_WOULD_HELP.get(need, "not known to this version")
        return f"needs {need}: {self.facts.get(need, help)}"

    @classmethod
    def needs(cls) -> set[str]:
        """Return the valid names in `needs` of a requirement, besides capabilities."""
        return set(_WHAT_WOULD_HELP)

    def as_data(self) -> dict[str, object]:
        """Return it as in the result file."""
        return {
            "kernel": self.kernel,
            "machine": self.machine,
            "filesystem": self.filesystem,
            "uid": self.uid,
            "facts": self.facts,
        }


def probe(base: Path, privileges: Privileges) -> Environment:
    """Probe the machine; `base` is the directory of the homes."""
    facts = _overlay_parameters()
    facts["userns"] = str(privileges.user_namespace).lower()
    facts["page_size"] = str(os.sysconf("SC_PAGE_SIZE"))
    able = abilities_on(base) | (set() if privileges.limitation else {"mount"})
    if reason := seccomp.why_impossible():
        facts["supervision"] = reason
    else:
        able.add("supervision")
    return Environment(
        platform.release(),
        platform.machine(),
        filesystem_of(base),
        privileges.uid,
        frozenset(able),
        facts,
    )


def umount_below(directory: Path) -> None:
    """Unmount all mounts below `directory`, also those hidden by another mount."""
    left = -1
    while (rows := mountinfo.mounts_below(directory)) and len(rows) != left:
        left = len(rows)
        for row in reversed(rows):
            umount(row.point)


def abilities_on(directory: Path) -> set[str]:
    """Return the needs of requirements that a file system meets, for the current user."""
    able = set()
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        file = Path(scratch) / "file"
        file.touch()
        if _works(lambda: os.chown(file, 1000, 1001)):
            able.add("ids")
        if _works(lambda: os.mknod(Path(scratch) / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))):
            able.add("root")
        if _works(lambda: os.setxattr(file, "user.probe", b"1")):
            able.add("user_xattr")
        if _keeps_project_quota(scratch):
            able.add("project_quota")
    return able


def mount_tmpfs(directory: Path) -> None:
    """Mount a tmpfs at `directory`, in the run's mount namespace."""
    syscalls.mount("tmpfs", directory, "tmpfs", 0, "mode=0755")


def umount(point: str) -> None:
    """Unmount lazily; a directory that is not mounted is not an error."""
    with contextlib.suppress(OSError):
        syscalls.umount(point)


def _keeps_project_quota(directory: str) -> bool:
    """Return whether the kernel enforces project quotas on the file system of `directory`."""
    state = ctypes.create_string_buffer(256)  # struct fs_quota_stat is 80 bytes
    command = _Q_XGETQSTAT << 8 | _PRJQUOTA
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscalls.quotactl_fd(descriptor, command, state)
    except OSError as error:
        if error.errno != errno.ENOSYS or not _works(lambda: _quotactl(command, directory, state)):
            return False
    finally:
        os.close(descriptor)
    (flags,) = struct.unpack_from("=H", state.raw, 2)
    return bool(flags & _PROJECTS_ENFORCED)


def _quotactl(command: int, directory: str, state: object) -> None:
    """quotactl(2): before 5.14 it takes a device, for which a temporary name is created."""
    device = os.path.join(directory, "device")
    os.mknod(device, stat.S_IFBLK | 0o600, os.stat(directory).st_dev)
    try:
        syscalls.quotactl(command, device, state)
    finally:
        os.unlink(device)


def _works(call: object) -> bool:
    try:
        call()  # type: ignore[operator]
    except OSError:
        return False
    return True


def _overlay_parameters() -> dict[str, str]:
    directory = Path("/sys/module/overlay/parameters")
    if not directory.is_dir():
        return {}
    found = {}
    for parameter in sorted(directory.iterdir()):
        try:
            found[f"overlay.{parameter.name}"] = parameter.read_text().strip()
        except OSError:
            continue
    return found


def is_full(path: Path) -> bool:
    """Return whether the file system of `path` has no free block or inode."""
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    # File systems that create inodes dynamically report that they have none.
    return found.f_bavail * found.f_frsize < _LEAST_SPACE or (
        found.f_files > 0 and found.f_favail == 0
    )


def filesystem_of(path: Path) -> str:
    """Return the type of the file system of `path`."""
    best, kind = "", "unknown"
    for row in mountinfo.read():
        inside = row.point == "/" or f"{path}/".startswith(f"{row.point}/")
        if inside and len(row.point) >= len(best):
            best, kind = row.point, row.type
    return kind
