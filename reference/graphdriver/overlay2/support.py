"""Feature probes for overlay2: each performs the operation instead of checking the version.

A probe runs in its own directory, which is unmounted and removed afterwards, also if the probe
fails.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from graphdriver.errors import IncompatibleFS, NotSupported
from graphdriver.linux.files import getdents64
from graphdriver.linux.mounts import MountFlag, filesystem_type, mount, with_own_directory
from graphdriver.overlay2.recovery import scratch

__all__ = ["Support", "check_host", "is_native_diff_right", "kernel_is_too_old", "probe"]

# include/uapi/linux/magic.h, and Docker's names for them in the status
_NAMES = {
    0xEF53: "extfs",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0xF2F52010: "f2fs",
    0x794C7630: "overlayfs",
    0x6969: "nfs",
    0xF15F: "ecryptfs",
    0x61756673: "aufs",
    0x2FC12FC1: "zfs",
    0x65735546: "fuse",
}
# Not usable as an upper (Docker's list in overlay2/overlay.go, and its #35483 for NFS).
_INCOMPATIBLE = {"overlayfs", "nfs", "ecryptfs", "aufs"}

# Linux 4.0 added support for several lower directories.
_OLDEST = (4, 0)


@dataclass(frozen=True, slots=True)
class Support:
    """The results of the probes; `prefix` is the beginning of all mount options."""

    backing: str
    userxattr: bool
    prefix: str

    @property
    def xattr_prefix(self) -> str:
        """The xattr namespace of overlayfs."""
        return "user.overlay." if self.userxattr else "trusted.overlay."


def kernel_is_too_old(release: str) -> bool:
    """Return whether a kernel release is below 4.0."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < _OLDEST


def check_host(home: Path, override_kernel_check: bool) -> str:
    """Return the name of the file system of `home`, which need not exist; change nothing.

    Raises NotSupported, IncompatibleFS, OSError.
    """
    release = os.uname().release
    if kernel_is_too_old(release) and not override_kernel_check:
        raise NotSupported(
            f"overlay2 needs Linux 4.0, this is {release}",
            "use a newer kernel, or overlay2.override_kernel_check=true for a patched one",
        )
    magic = filesystem_type(next(path for path in (home, *home.parents) if path.is_dir()))
    backing = _NAMES.get(magic, f"<unknown {magic:#x}>")
    if backing in _INCOMPATIBLE:
        raise IncompatibleFS(
            f"overlay2 does not support {backing}, the file system of {home}",
            "put the home on ext4, xfs, btrfs or tmpfs",
        )
    return backing


def probe(home: Path, backing: str, mountopt: str = "") -> Support:
    """Probe whether `home` can contain layers; `mountopt` is added to every mount.

    Raises NotSupported, IncompatibleFS, OSError.
    """
    with scratch(home) as directory:
        _require_d_type(directory, backing, home)
        return _trial(directory, backing, home, mountopt)


def is_native_diff_right(home: Path, support: Support) -> bool:
    """Return whether an upper directory shows all changes of a layer, on this home and kernel.

    It does not if directories are redirected (CONFIG_OVERLAY_FS_REDIRECT_DIR), if metadata is
    copied up without data (metacopy), if opaque xattrs are copied up (before 4.8), or in a user
    namespace, where some xattrs of an upper cannot be read. Raises OSError if the probe fails.
    """
    if support.userxattr:
        return False
    with scratch(home) as directory:
        return _leaves_plain_uppers(directory, support)


def _require_d_type(directory: Path, backing: str, home: Path) -> None:
    """Without d_type a file system shows whiteouts as files (moby #27443)."""
    (directory / "file").touch()
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        types = dict(getdents64(descriptor))
    finally:
        os.close(descriptor)
    if not types.get(b"file"):
        raise IncompatibleFS(
            f"the {backing} below {home} does not store file types in directories (d_type)",
            "create it with mkfs.xfs -n ftype=1",
        )


def _trial(directory: Path, backing: str, home: Path, mountopt: str) -> Support:
    """Mount two lowers and an upper, with the options of all later mounts."""
    for name in ("lower1", "lower2", "upper", "work", "merged"):
        (directory / name).mkdir()
    # index=on ties an upper to the inodes of its lowers, which change when a home is copied (moby
    # #37993).
    knows_index = Path("/sys/module/overlay/parameters/index").exists()
    index = "index=off," if knows_index and "index=" not in mountopt else ""
    # trusted.* is not writable in a user namespace; overlayfs then uses user.* (since 5.11).
    userxattr = not _can_set(directory / "upper", "trusted.overlay.probe")
    if userxattr and not _can_set(directory / "upper", "user.overlay.probe"):
        # The mount would succeed, but the removal of a directory of a lower would fail with EIO.
        raise IncompatibleFS(
            f"the {backing} below {home} does not support extended attributes",
            "put the home on ext4, xfs, btrfs or tmpfs",
        )
    prefix = index + ("userxattr," if userxattr else "") + (f"{mountopt}," if mountopt else "")
    try:
        _mount_trial(directory, prefix)
    except OSError as error:
        raise NotSupported(
            f"a trial mount of overlay below {home}, {prefix.rstrip(',') or 'with no options'}, "
            f"failed: {error.strerror} ({error.errno})",
            "it takes the overlay module, CAP_SYS_ADMIN over the mount namespace, and a file "
            "system that can be an upper",
        ) from error
    return Support(backing, userxattr, prefix)


def _can_set(path: Path, name: str) -> bool:
    try:
        os.setxattr(path, name, b"y")
    except OSError:
        return False
    os.removexattr(path, name)
    return True


def _mount_trial(directory: Path, prefix: str) -> None:
    data = f"{prefix}lowerdir=lower2:lower1,upperdir=upper,workdir=work".encode()
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with_own_directory(
            descriptor, lambda: mount("overlay", b"merged", "overlay", MountFlag.NONE, data)
        )
    finally:
        os.close(descriptor)


def _leaves_plain_uppers(directory: Path, support: Support) -> bool:
    for name in ("lower1/d", "lower2/d", "lower1/r", "upper", "work", "merged"):
        (directory / name).mkdir(parents=True)
    (directory / "lower1/file").write_bytes(b"x" * 8192)
    os.setxattr(directory / "lower2/d", support.xattr_prefix + "opaque", b"y")
    _mount_trial(directory, support.prefix)
    merged, upper = directory / "merged", directory / "upper"
    (merged / "d/new").touch()
    (merged / "file").chmod(0o600)
    try:
        (merged / "r").rename(merged / "renamed")
    except OSError as error:
        if error.errno != errno.EXDEV:  # no redirects, as it should be
            return False
    else:
        return False
    xattrs = {*os.listxattr(upper / "d"), *os.listxattr(upper / "file")}
    copied = stat.S_ISREG((upper / "file").lstat().st_mode)
    return copied and not xattrs & {support.xattr_prefix + m for m in ("opaque", "metacopy")}
