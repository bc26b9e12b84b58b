"""The environment of a home: mounts, inherited ACLs and groups, the umask, and TMPDIR.

Each environment exists for the duration of its block and yields the directory for a home. It is not
the driver's, so it must not affect a layer or be removed by a verb (docs/rulings.md, 34).
"""

import errno
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.environment import umount
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.host.syscalls import mount
from graphdriver_conformance.suite.support.beside import directory_beside

__all__ = [
    "DEFAULT_ACL",
    "INHERITED",
    "UMASKS",
    "Surrounding",
    "mounted_tmpfs",
    "set_or_not_provable",
    "temporary_files_in",
    "umask",
]

Surrounding = Callable[[Subject], AbstractContextManager[Path]]
"""Creates a directory for a home with one unusual property."""

# struct posix_acl_xattr: version, then tag, permissions and id of user::rwx, user:1234:rwx,
# group::r-x, mask::rwx, other::r-x
_ENTRIES = ((1, 7, -1), (2, 7, 1234), (4, 5, -1), (16, 7, -1), (32, 5, -1))
DEFAULT_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in _ENTRIES)
_GROUP = 4321


@contextmanager
def mounted_tmpfs(
    graphdriver: Subject, point: Path, *, flags: int = 0, options: str = ""
) -> Iterator[Path]:
    """Mount a tmpfs at `point`, which need not exist, for the duration of the block."""
    with own_work(f"make {point}"):
        point.mkdir(exist_ok=True)
    data = ",".join(filter(None, ("mode=0755", options)))
    graphdriver.program.line(f"mount -t tmpfs -o {data} tmpfs {point}")
    try:
        mount("suite", point, "tmpfs", flags, data)
    except OSError as error:
        graphdriver.not_provable(f"no tmpfs can be mounted: {error.strerror}; be root")
    try:
        yield point
    finally:
        umount(str(point))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Give the process this umask."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def temporary_files_in(place: Path) -> Iterator[None]:
    """Create temporary files of this process, and of its children, in `place`."""
    before, remembered = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"], tempfile.tempdir = str(place), None
    try:
        yield
    finally:
        tempfile.tempdir = remembered
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def set_or_not_provable(graphdriver: Subject, path: Path, name: str, value: bytes) -> None:
    """Set an xattr of a file outside the home; not provable if it is not supported."""
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        # EINVAL: in a user namespace, an ACL with an id without a mapping.
        if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
            raise
        graphdriver.not_provable(
            f"{name} cannot be set on {graphdriver.environment.filesystem}: {error.strerror}; "
            "be root, on ext4, xfs, btrfs or tmpfs"
        )


@contextmanager
def _below_a_default_acl(graphdriver: Subject) -> Iterator[Path]:
    above = directory_beside(graphdriver, "with-acl")
    set_or_not_provable(graphdriver, above, "system.posix_acl_default", DEFAULT_ACL)
    graphdriver.program.line(f"setfacl -d -m u:1234:rwx {above}")
    yield above / "home"


@contextmanager
def _with_a_default_acl(graphdriver: Subject) -> Iterator[Path]:
    home = directory_beside(graphdriver, "home-with-acl")
    set_or_not_provable(graphdriver, home, "system.posix_acl_default", DEFAULT_ACL)
    graphdriver.program.line(f"setfacl -d -m u:1234:rwx {home}")
    yield home


@contextmanager
def _below_setgid(graphdriver: Subject) -> Iterator[Path]:
    above = directory_beside(graphdriver, "with-setgid")
    if lack := graphdriver.environment.lacks("ids"):
        graphdriver.not_provable(lack)
    with own_work(f"change {above}"):
        os.chown(above, 0, _GROUP)
        above.chmod(0o2775)
    if not above.stat().st_mode & stat.S_ISGID:
        graphdriver.not_provable("setgid cannot be set on a directory of another group; be root")
    graphdriver.program.line(f"chgrp {_GROUP} {above}; chmod 2775 {above}")
    yield above / "home"


@contextmanager
def _with_umask(mask: int, graphdriver: Subject) -> Iterator[Path]:
    graphdriver.program.line(f"umask {mask:03o}")
    with umask(mask):
        yield graphdriver.home.parent / f"home-umask-{mask:03o}"


INHERITED: Mapping[str, Surrounding] = {
    "a default ACL above the home": _below_a_default_acl,
    "a default ACL of the home": _with_a_default_acl,
    "setgid and another group above the home": _below_setgid,
}
"""Properties that new files inherit from directories."""

UMASKS: Mapping[str, Surrounding] = {
    f"umask {mask:03o}": partial(_with_umask, mask) for mask in (0o000, 0o027, 0o077)
}
