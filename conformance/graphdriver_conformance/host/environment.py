"""What this machine is and can: probed, not guessed from versions."""

import ctypes
import errno
import os
import platform
import re
import stat
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graphdriver_conformance.host.namespaces import Privileges

__all__ = [
    "Environment",
    "abilities_on",
    "filesystem_of",
    "mount_tmpfs",
    "mounts_below",
    "probe",
    "umount",
    "umount_below",
]

_MNT_DETACH = 2
# quotactl_fd(2); include/uapi/linux/dqblk_xfs.h
_QUOTACTL_FD = 443
_Q_XGETQSTAT = (ord("X") << 8) + 5
_PRJQUOTA = 2
_PROJECTS_ENFORCED = 1 << 5
_libc = ctypes.CDLL(None, use_errno=True)

_WHAT_WOULD_HELP = {
    "root": "run as root, who can give files to any owner and make devices",
    "ids": "run as root, or install uidmap and give the user a range in /etc/subuid and subgid",
    "mount": "run as root, or where user namespaces may mount overlay",
    "project_quota": "use a home on xfs with pquota or ext4 with prjquota",
    "user_xattr": "use --graphdriver-home on a file system with user.* attributes",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """Facts about the run; `can` names what requirements may need of it."""

    kernel: str
    machine: str
    filesystem: str
    uid: int
    can: frozenset[str]
    facts: dict[str, str] = field(default_factory=dict)

    def lacks(self, need: str) -> str:
        """Return why `need` cannot be had here and what would help, "" when it can."""
        if need in self.can:
            return ""
        return f"needs {need}: {_WHAT_WOULD_HELP.get(need, 'not known to this version')}"

    @classmethod
    def needs(cls) -> set[str]:
        """Return the names that `needs` of a requirement may hold besides capabilities."""
        return set(_WHAT_WOULD_HELP)

    def as_data(self) -> dict[str, object]:
        """Return it as the result file has it."""
        return {
            "kernel": self.kernel,
            "machine": self.machine,
            "filesystem": self.filesystem,
            "uid": self.uid,
            "facts": self.facts,
        }


def probe(base: Path, privileges: Privileges) -> Environment:
    """Look at the machine; `base` is where the homes will be."""
    facts = _overlay_parameters()
    facts["userns"] = str(privileges.user_namespace).lower()
    facts["page_size"] = str(os.sysconf("SC_PAGE_SIZE"))
    return Environment(
        platform.release(),
        platform.machine(),
        filesystem_of(base),
        privileges.uid,
        frozenset(abilities_on(base) | (set() if privileges.trouble else {"mount"})),
        facts,
    )


def mounts_below(directory: Path) -> list[str]:
    """Return the mount points below `directory` with type and options, as mountinfo has them."""
    return [f"{point} {right}" for point, right in _mounts_below(directory)]


def umount_below(directory: Path) -> None:
    """Unmount all that is below `directory`; what lies under another mount once that is gone."""
    left = -1
    while (points := [point for point, _ in _mounts_below(directory)]) and len(points) != left:
        left = len(points)
        for point in reversed(points):
            umount(point)


def _mounts_below(directory: Path) -> Iterator[tuple[str, str]]:
    inside = os.fspath(directory) + "/"
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        # Blanks, newlines and backslashes are octal there, see proc(5).
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4])
        if point.startswith(inside):
            yield point, right


def abilities_on(directory: Path) -> set[str]:
    """Return the needs of requirements that a file system meets, for who we are."""
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
    """Mount a tmpfs at `directory`, in our own mount namespace."""
    _checked("mount", b"tmpfs", os.fsencode(directory), b"tmpfs", ctypes.c_ulong(0), b"mode=0755")


def umount(point: str) -> None:
    """Unmount lazily; what is not mounted is no error."""
    _libc.umount2(os.fsencode(point), _MNT_DETACH)


def _checked(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _keeps_project_quota(directory: str) -> bool:
    """Ask the kernel whether quotas of projects are enforced where `directory` is."""
    state = ctypes.create_string_buffer(256)  # struct fs_quota_stat is 80 bytes
    command = _Q_XGETQSTAT << 8 | _PRJQUOTA
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        number = ctypes.c_long(_QUOTACTL_FD)
        failed = _libc.syscall(number, descriptor, ctypes.c_ulong(command), 0, state)
    finally:
        os.close(descriptor)
    if failed and ctypes.get_errno() == errno.ENOSYS:
        failed = _quotactl(command, directory, state)
    (flags,) = struct.unpack_from("=H", state.raw, 2)
    return not failed and bool(flags & _PROJECTS_ENFORCED)


def _quotactl(command: int, directory: str, state: object) -> int:
    """quotactl(2): before 5.14 a file system goes by its device, which gets a name for the call."""
    device = os.path.join(directory, "device")
    try:
        os.mknod(device, stat.S_IFBLK | 0o600, os.stat(directory).st_dev)
    except OSError:
        return -1
    failed: int = _libc.quotactl(command, os.fsencode(device), 0, state)
    os.unlink(device)
    return failed


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


def filesystem_of(path: Path) -> str:
    """Return the type of the file system that `path` is on."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        inside = point == "/" or f"{path}/".startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
