"""File systems of other kinds than the home's, in files and in memory, for the duration of a
block.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphdriver_conformance.host.environment import umount
from graphdriver_conformance.host.own_work import SuiteError, run_program
from graphdriver_conformance.host.syscalls import mount

__all__ = ["DISKS", "OLD_DISKS", "OTHER_DISKS", "CannotMake", "disk"]

_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "xfs without d_type": ("mkfs.xfs", "-q", "-f", "-m", "crc=0", "-n", "ftype=0"),
    "vfat": ("mkfs.vfat",),
}
# mkfs.xfs needs at least 300 MiB; the files are sparse.
_SIZE = 320 << 20

DISKS = ("tmpfs", "overlay", "ramfs", "ext4")
"""Available everywhere: the first three need no tools, ext4 needs loop devices and e2fsprogs."""

OTHER_DISKS = ("xfs", "btrfs")
"""Kinds that need tools which are not installed everywhere."""

OLD_DISKS = ("vfat", "xfs without d_type")
"""Kinds without a feature that overlayfs needs; newer kernels do not mount such an xfs."""


class CannotMake(Exception):
    """The file system cannot be created on this machine; the message is the reason."""


@contextmanager
def disk(kind: str, point: Path) -> Iterator[Path]:
    """Create and mount a file system of a kind at `point`, which need not exist. Raises CannotMake.

    In addition to the three lists there is `full`, which has almost no free space.
    """
    try:
        point.mkdir(exist_ok=True)
        _mount(kind, point)
    except (OSError, SuiteError) as error:
        raise CannotMake(str(error)) from error
    try:
        yield point
    finally:
        umount(str(point))


def _mount(kind: str, point: Path) -> None:
    if kind in ("tmpfs", "ramfs"):
        mount(kind, str(point), kind, 0, "mode=0755")
    elif kind == "full":
        mount("tmpfs", str(point), "tmpfs", 0, "mode=0755,size=16k,nr_inodes=3")
    elif kind == "overlay":
        below = [point.with_name(f"{point.name}-{name}") for name in ("lower", "upper", "work")]
        for path in below:
            path.mkdir(exist_ok=True)
        lower, upper, work = below
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount("overlay", str(point), "overlay", 0, options)
    else:
        _mount_file(kind, point)


def _mount_file(kind: str, point: Path) -> None:
    command = _MKFS[kind]
    image = point.with_name(f"{point.name}.img")
    with image.open("wb") as opened:
        opened.truncate(_SIZE)
    run_program([*command, image])
    type = kind.partition(" ")[0]
    run_program(["mount", "-t", type, "-o", "loop", image, point])
