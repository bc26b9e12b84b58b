"""Namespaces of the run: private mounts, and the privilege to make them.

The first process enters them before it starts others, which inherit them. The suite has its own
code for this, because it shares none with the tested drivers.
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
    """The user of the run: the uid outside, and whether it became root in a user namespace."""

    uid: int
    user_namespace: bool
    limitation: str = ""


def enter() -> Privileges:
    """Enter a private mount namespace, in a new user namespace if not root; once per run.

    Processes that the first one starts recognize this from the environment.
    """
    inherited = _inherited()
    if inherited:
        return inherited
    uid = os.geteuid()
    limitation = ""
    try:
        if uid:
            _become_root(uid, os.getegid())
        unshare(CLONE_NEWNS)
        _make_private()
    except OSError as error:
        limitation = f"no namespaces of our own: {error.strerror}"
    privileges = Privileges(uid, bool(uid) and not limitation, limitation)
    os.environ[_VARIABLE] = json.dumps({"ids": _ids(), **asdict(privileges)})
    return privileges


def stay() -> Privileges:
    """Stay in the current mount namespace: mounts of other processes in it must be visible."""
    uid = os.geteuid()
    limitation = "no namespaces of our own: a driver that is already there mounts in this one"
    return Privileges(uid, False, limitation if uid else "")


def leave() -> None:
    """Continue in an additional mount namespace, whose mounts the run does not see."""
    unshare(CLONE_NEWNS)
    _make_private()


def _inherited() -> Privileges | None:
    """Return the namespaces that an ancestor of this process entered, None if this process left
    them.

    The variable alone is not sufficient: it may have been exported earlier, or by another program,
    and the suite would then mount as root in the host's namespace.
    """
    try:
        entered = json.loads(os.environ.get(_VARIABLE, ""))
        if entered.pop("ids") == _ids():
            return Privileges(**entered)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # of another version, or of another program
    return None


def _ids() -> list[str]:
    """Return the mount and the user namespace of this process, by the kernel's names."""
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "user")]


def _become_root(uid: int, gid: int) -> None:
    """Enter a user namespace as its root; with subordinate ids if /etc/subuid has some.

    Raises OSError.
    """
    helper = _mapping_helper(uid, gid)
    # Inside, the user is named root, so files that are named after the user must not be the real
    # root's.
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
    """Start a helper that maps subordinate ids, None if there are none.

    They have to be mapped from outside, by newuidmap(1), after this process has entered: by a
    process that was started before. It is a shell and not a fork of this process, which may have
    threads. It ends at the end of its input, and this process notices its death by the end of its
    output.
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
    """Map the own ids, unless the helper has done so before it failed."""
    if not Path("/proc/self/uid_map").read_text():
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    if not Path("/proc/self/gid_map").read_text():
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _subordinate_range(file: str, uid: int) -> tuple[int, int] | None:
    """Return first id and count of the user's range; malformed lines are ignored."""
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
    """Prevent the propagation of mounts to the parent namespace."""
    mount("none", "/", "none", MountFlag.REC | MountFlag.PRIVATE)
