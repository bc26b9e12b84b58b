"""Features of the kernel's overlayfs: probed by mounting, because of backports."""

import ctypes
import errno
import os
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

__all__ = ["d_type", "probe_facts"]

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_PR_SET_DUMPABLE = 4
_SYS_GETDENTS64, _SYS_FSOPEN, _SYS_FSCONFIG = 217, 430, 431
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_libc = ctypes.CDLL(None, use_errno=True)

_LAYERS = "lowerdir=l2:l1,upperdir=upper,workdir=work"
# Mount options, each in addition to two lowers and an upper.
_OPTIONS = {
    "redirect_dir": "redirect_dir=on",
    "metacopy": "metacopy=on",
    "index": "index=on",
    "nfs_export": "index=on,nfs_export=on",
    "xino": "xino=on",
    "volatile": "volatile",
    "userxattr": "userxattr",
    "uuid=off": "uuid=off",
    "uuid=auto": "uuid=auto",
    "verity": "metacopy=on,verity=on",
    "override_creds": "override_creds",
    "fsync=volatile": "fsync=volatile",
}


def probe_facts() -> dict[str, str]:
    """Return the facts by name; "ok" or the errno's name if an operation was tried."""
    facts = {"uname.release": os.uname().release, "uname.version": os.uname().version}
    for name, options in _OPTIONS.items():
        facts[f"mount.{name}"] = _in_child(partial(_mount, f"{options},{_LAYERS}"))
    facts["mount.data-only"] = _in_child(lambda: _mount("metacopy=on,lowerdir=l2::l1"))
    facts["mount.one-lower"] = _in_child(lambda: _mount("lowerdir=l1"))
    facts["fsconfig.lowerdir+"] = _in_child(_fsconfig_lowers)
    facts["lowers.500"] = _in_child(lambda: _many(500))
    facts["lowers.501"] = _in_child(lambda: _many(501))
    facts["userns.overlay"] = _in_child(lambda: _mount(_LAYERS), 1000)
    facts["userns.userxattr"] = _in_child(lambda: _mount(f"userxattr,{_LAYERS}"), 1000)
    facts["userns.whiteout"] = _in_child(lambda: os.mknod("upper/whiteout", 0o020000, 0), 1000)
    return facts


def d_type(directory: Path) -> str:
    """Return whether directories of this file system store file types."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        (Path(scratch) / "file").touch()
        descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
        buffer = ctypes.create_string_buffer(4096)
        got = _libc.syscall(_SYS_GETDENTS64, descriptor, buffer, 4096)
        os.close(descriptor)
    position, types = 0, {}
    while position < got:
        length, kind = struct.unpack_from("<HB", buffer.raw, position + 16)
        name = buffer.raw[position + 19 : position + length].partition(b"\0")[0]
        types[name] = kind
        position += length
    return "yes" if types.get(b"file") else "no"


def _in_child(attempt: Callable[[], object], uid: int = 0) -> str:
    """Run a probe in a child with its own namespaces and a tmpfs as its current directory."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            _enter(uid)
            attempt()
            text = "ok"
        except OSError as error:
            text = errno.errorcode.get(error.errno or 0, str(error.errno))
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def _enter(uid: int) -> None:
    flags = _CLONE_NEWNS
    if uid:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # Otherwise /proc/self is owned by root, and the maps cannot be written.
        _libc.prctl(_PR_SET_DUMPABLE, 1)
        flags |= _CLONE_NEWUSER
    _checked(_libc.unshare(flags))
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {uid} 1")
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    _checked(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", ctypes.c_ulong(0), None))
    os.chdir("/tmp")
    for name in ("l1", "l2", "upper", "work", "merged"):
        os.mkdir(name)


def _mount(data: str) -> None:
    arguments = (b"overlay", b"merged", b"overlay", ctypes.c_ulong(0), data.encode())
    _checked(_libc.mount(*arguments))


def _many(count: int) -> None:
    for number in range(count):
        os.mkdir(str(number))
    lowers = ":".join(map(str, range(count)))
    _mount(f"lowerdir={lowers},upperdir=upper,workdir=work")


def _fsconfig_lowers() -> None:
    """Add each lower separately. Before 6.5 an unknown key is reported only at the creation."""
    descriptor = _libc.syscall(_SYS_FSOPEN, b"overlay", 0)
    _checked(min(descriptor, 0))
    keys = (("lowerdir+", "l2"), ("lowerdir+", "l1"), ("upperdir", "upper"), ("workdir", "work"))
    for key, value in keys:
        command = (descriptor, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
        _checked(_libc.syscall(_SYS_FSCONFIG, *command))
    _checked(_libc.syscall(_SYS_FSCONFIG, descriptor, _FSCONFIG_CMD_CREATE, None, None, 0))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
