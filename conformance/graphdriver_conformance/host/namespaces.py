"""Namespaces of the run's own: mounts that nobody else sees, and the right to make them.

Entered by the first process before there are others, which inherit them. The suite has its own few
lines for this: it shares none with the drivers it judges.
"""

import json
import os
import pwd
import shutil
import subprocess
from dataclasses import asdict, dataclass
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
    """Enter a private mount namespace, in a new user namespace when not root; once per run.

    Processes that the first one starts find in the environment that this has been done.
    """
    inherited = _inherited()
    if inherited:
        return inherited
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
    os.environ[_VARIABLE] = json.dumps({"ids": _ids(), **asdict(privileges)})
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


def _inherited() -> Privileges | None:
    """Return what an ancestor of this process entered, None when we are not in its namespaces.

    The variable alone proves nothing: it may have been exported long ago, or by somebody else, and
    the suite would then mount as root where everybody sees it.
    """
    try:
        entered = json.loads(os.environ.get(_VARIABLE, ""))
        if entered.pop("ids") == _ids():
            return Privileges(**entered)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # not of this version, or not ours at all
    return None


def _ids() -> list[str]:
    """Return the mount and the user namespace that we are in, as the kernel names them."""
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "user")]


def _become_root(uid: int, gid: int) -> None:
    """Enter a user namespace as its root; with subordinate ids where /etc/subuid gives some.

    Raises OSError.
    """
    helper = _mapping_helper(uid, gid)
    # Inside, we are called root; what others name after the user must not meet the real root's.
    os.environ["LOGNAME"] = _name(uid)
    entered = b""
    try:
        unshare(CLONE_NEWUSER)
        entered = b"entered\n"
    finally:
        is_mapped = helper is not None and helper.communicate(entered)[0] == b"mapped\n"
    if not is_mapped:
        _map_own_id(uid, gid)


def _mapping_helper(uid: int, gid: int) -> "subprocess.Popen[bytes] | None":
    """Start what will map more ids than our own, None where there are none to be had.

    That has to be done from outside, by newuidmap(1), once we have entered: by a process that was
    started before. It is a shell and not a copy of this process, which threads may be running in.
    It ends by itself when it reads nothing, and we read nothing when it has died.
    """
    of_users = _subordinate_range("/etc/subuid", uid)
    of_groups = _subordinate_range("/etc/subgid", uid)
    if not (of_users and of_groups and shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    process = os.getpid()
    script = (
        "read -r entered || exit 1; "
        f"newuidmap {process} 0 {uid} 1 1 {of_users[0]} {of_users[1]} && "
        f"newgidmap {process} 0 {gid} 1 1 {of_groups[0]} {of_groups[1]} && echo mapped"
    )
    return subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _map_own_id(uid: int, gid: int) -> None:
    """Map the own ids, as far as a helper that failed half-way has not."""
    if not Path("/proc/self/uid_map").read_text():
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    if not Path("/proc/self/gid_map").read_text():
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _subordinate_range(file: str, uid: int) -> tuple[int, int] | None:
    """Return first id and count of the user's range; lines that are none are passed over."""
    names = {str(uid), _name(uid)}
    try:
        lines = Path(file).read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, *numbers = line.strip().split(":")
        if name in names and len(numbers) == 2 and all(one.isdecimal() for one in numbers):
            first, count = map(int, numbers)
            if count:
                return first, count
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _make_private() -> None:
    """Keep our mounts from spreading to the namespace we came from."""
    mount("none", "/", "none", MountFlag.REC | MountFlag.PRIVATE)
