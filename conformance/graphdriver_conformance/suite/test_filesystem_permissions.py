"""FSX-014: permissions of ordinary users in a view are the same as on a disk."""

import itertools
import os
from collections.abc import Mapping

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import Aspect
from graphdriver_conformance.oracle.tree import EPOCH, Node, directory, file
from graphdriver_conformance.suite.support.differential import (
    Before,
    Call,
    Case,
    assert_calls_agree,
    some,
)
from graphdriver_conformance.suite.support.users import GROUP, USER, as_user


def _file(mode: int, uid: int = 0, gid: int = 0) -> Node:
    return file(b"content", mode, uid=uid, gid=gid)


_FILES: Mapping[str, Before] = {
    "root's 0644": {"x": _file(0o644)},
    "root's 0600": {"x": _file(0o600)},
    "root's 0666": {"x": _file(0o666)},
    "root's 0640 of the group": {"x": _file(0o640, gid=GROUP)},
    "root's 0660 of the group": {"x": _file(0o660, gid=GROUP)},
    "the user's 0600": {"x": _file(0o600, USER, GROUP)},
    "the user's 0400": {"x": _file(0o400, USER, GROUP)},
    "the user's 0000": {"x": _file(0, USER, GROUP)},
    "root's, in a 0700 directory": {"": directory(0o700), "x": _file(0o666)},
    "root's, in a 0711 directory": {"": directory(0o711), "x": _file(0o666)},
    "root's, in a sticky directory": {"": directory(0o1777), "x": _file(0o666)},
    "root's, in a 0777 directory": {"": directory(0o777), "x": _file(0o600)},
    "his, in his 0500 directory": {
        "": directory(0o500, uid=USER, gid=GROUP),
        "x": _file(0o600, USER, GROUP),
    },
    "his, in his 0700 directory": {
        "": directory(0o700, uid=USER, gid=GROUP),
        "x": _file(0o600, USER, GROUP),
    },
}


def _open(flags: int, name: str = "x") -> Call:
    return lambda root: os.close(os.open(root / name, flags | os.O_CLOEXEC, 0o600))


_CALLS: Mapping[str, Call] = {
    "open to read": _open(os.O_RDONLY),
    "open to write": _open(os.O_WRONLY),
    "open to append": _open(os.O_RDWR | os.O_APPEND),
    "open to truncate": _open(os.O_RDWR | os.O_TRUNC),
    "create beside": _open(os.O_RDWR | os.O_CREAT | os.O_EXCL, "new"),
    "truncate": lambda root: os.truncate(root / "x", 3),
    "utime now": lambda root: os.utime(root / "x"),
    "utime": lambda root: os.utime(root / "x", (EPOCH, EPOCH)),
    "chmod": lambda root: (root / "x").chmod(0o700),
    "chown": lambda root: os.chown(root / "x", USER, GROUP),
    "chown to another": lambda root: os.chown(root / "x", 2, 2),
    "setxattr": lambda root: os.setxattr(root / "x", "user.a", b"1"),
    "getxattr": lambda root: os.listxattr(root / "x"),
    "stat": lambda root: (root / "x").lstat().st_size,
    "list": lambda root: sorted(os.listdir(root)),
    "mkdir": lambda root: (root / "new").mkdir(),
    "rename": lambda root: (root / "x").rename(root / "y"),
    "link": lambda root: os.link(root / "x", root / "y"),
    "unlink": lambda root: (root / "x").unlink(),
}


def _cases() -> dict[str, Case]:
    pairs = itertools.product(_CALLS.items(), _FILES.items())
    return {f"{name} {what}": Case(as_user(call), before) for (name, call), (what, before) in pairs}


@verifies("FSX-014")
def test_permissions_of_an_ordinary_user_are_those_of_a_disk(graphdriver: Subject) -> None:
    """A layer with weaker permissions gives a container's users access to each other's files."""
    assert_calls_agree(graphdriver, some(_cases()), Aspect.MODE | Aspect.OWNER | Aspect.CONTENT)
