"""Namespaces of the run's own: mounts that nobody else sees, and the right to make them.

Entered by the first process before there are others, which inherit them. The suite has its own few
lines for this: it shares none with the drivers it judges.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from graphdriver_conformance.host.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MountFlag,
    mount,
    unshare,
)

__all__ = ["Privileges", "enter", "leave", "stay"]

_VARIABLE = "GRAPHDRIVER_NAMESPACES"


@dataclass(frozen=True, slots=True)
class Privileges:
    """Who runs the suite: the uid outside, and whether it had to become root in a namespace."""

    uid: int
    user_namespace: bool
    trouble: str = ""


def enter() -> Privileges:
    """Enter a private mount namespace, in a new user namespace when not root; once per run."""
    said = os.environ.get(_VARIABLE)
    if said:
        was, userns, trouble = said.split(",", 2)
        return Privileges(int(was), userns == "1", trouble)
    uid = os.geteuid()
    trouble = ""
    try:
        if uid:
            _become_root(uid, os.getegid())
        unshare(CLONE_NEWNS)
        _make_private()
    except OSError as error:
        trouble = f"no namespaces of our own: {error.strerror}"
    privileges = Privileges(uid, bool(uid) and not trouble, trouble)
    os.environ[_VARIABLE] = f"{uid},{int(privileges.user_namespace)},{trouble}"
    return privileges


def stay() -> Privileges:
    """Stay in the mount namespace that is there: what others mount in it has to be seen."""
    uid = os.geteuid()
    trouble = "no namespaces of our own: a driver that is already there mounts in this one"
    return Privileges(uid, False, trouble if uid else "")


def leave() -> None:
    """Go on in one more mount namespace, whose mounts the run does not see."""
    unshare(CLONE_NEWNS)
    _make_private()


def _become_root(uid: int, gid: int) -> None:
    """Enter a user namespace as its root; with subordinate ids where /etc/subuid gives some.

    Maps of more than one's own id have to be written from outside, by newuidmap(1): a child that
    stayed there does it.
    """
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(ready[1])
        os.read(ready[0], 1)
        mapped = _map_subordinate_ids(os.getppid(), uid, gid)
        os.write(done[1], b"y" if mapped else b"n")
        os._exit(0)
    # Inside, we are called root; what others name after the user must not meet the real root's.
    os.environ["LOGNAME"] = _name(uid)
    try:
        unshare(CLONE_NEWUSER)
        os.write(ready[1], b"x")
        mapped = os.read(done[0], 1) == b"y"
    finally:
        for descriptor in (*ready, *done):
            os.close(descriptor)
        os.waitpid(child, 0)
    if not mapped:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _map_subordinate_ids(process: int, uid: int, gid: int) -> bool:
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return False
    for program, file, own in (
        ("newuidmap", "/etc/subuid", uid),
        ("newgidmap", "/etc/subgid", gid),
    ):
        granted = _subordinate_range(file, uid)
        if granted is None:
            return False
        first, count = granted
        command = [program, str(process), "0", str(own), "1", "1", str(first), str(count)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
    return True


def _subordinate_range(file: str, uid: int) -> tuple[int, int] | None:
    names = {str(uid), _name(uid)}
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    rows = (line.split(":") for line in lines)
    return next(((int(r[1]), int(r[2])) for r in rows if len(r) == 3 and r[0] in names), None)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _make_private() -> None:
    """Keep our mounts from spreading to the namespace we came from."""
    mount("none", "/", "none", MountFlag.REC | MountFlag.PRIVATE)
