"""Seccomp user notification: a supervisor decides before the kernel runs a system call.

The requests and structures of seccomp(2) and seccomp_unotify(2), independent of the meaning of the
calls. Linux 5.5 or later; no privilege is needed.
"""

import ctypes
import errno
import os
import struct
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass

__all__ = [
    "ALLOW",
    "NOTIFY",
    "Instruction",
    "Notification",
    "architecture",
    "continue_call",
    "install",
    "install_filter",
    "program",
    "receive",
    "refusal",
    "return_error",
    "why_impossible",
]

# include/uapi/linux/seccomp.h
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
ALLOW, NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
# struct seccomp_notif: id, pid, flags, then struct seccomp_data: nr, arch, ip, six arguments
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
_RESPONSE = struct.Struct("<QqiI")
# Space for fields that later kernels may append (SECCOMP_GET_NOTIF_SIZES).
_ROOM = 256
_PR_SET_NO_NEW_PRIVS = 38
# The number of seccomp(2) and the architecture in struct seccomp_data (include/uapi/linux/audit.h).
_MACHINES = {"x86_64": (317, 0xC000003E), "aarch64": (277, 0xC00000B7)}
# The first number of x32's calls, which have the architecture of x86-64.
_X32 = 0x40000000
_LD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_GETPPID = {"x86_64": 110, "aarch64": 173}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One call that a filter stops at: its number, and a condition.

    `argument` is the index of the argument in the condition, None if every call is stopped. The
    call is stopped if the argument has one of the bits of `mask`; or, with `equals`, if the
    argument's bits of `mask` are `equals`.
    """

    number: int
    argument: int | None = None
    mask: int = 0
    equals: int | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """A call that waits for an answer: its caller (a thread id), number and arguments."""

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


def architecture() -> str:
    """Return the machine's name if its system call numbers are known, "" otherwise."""
    machine = os.uname().machine
    return machine if machine in _MACHINES and sys.byteorder == "little" else ""


def refusal(number: int) -> int:
    """Return the action that makes a call fail with this errno."""
    return _ERRNO | number


def program(
    conditions: list[Instruction], refused: list[int], skipped: Collection[int] = ()
) -> bytes:
    """Return the BPF program that stops at some calls and refuses others with ENOSYS.

    Calls that are `skipped` return 0 and are not made.

    Calls of a foreign architecture in the same process (ia32, x32) cannot be distinguished by
    number, so they are refused.
    """
    _, arch = _MACHINES[architecture()]
    deny = refusal(errno.ENOSYS)
    lines = [
        _line(_LD, 0, 0, 4),
        _line(_JEQ, 1, 0, arch),
        _line(_RET, 0, 0, deny),
        _line(_LD, 0, 0, 0),
        _line(_JGE, 0, 1, _X32),
        _line(_RET, 0, 0, deny),
    ]
    for number in refused:
        lines += [_line(_JEQ, 0, 1, number), _line(_RET, 0, 0, deny)]
    for number in skipped:
        lines += [_line(_JEQ, 0, 1, number), _line(_RET, 0, 0, refusal(0))]
    for one in conditions:
        lines += _asking(one)
    lines.append(_line(_RET, 0, 0, ALLOW))
    return b"".join(lines)


def install(code: bytes) -> int:
    """Install a filter on the calling thread and its future children; return its listener.

    Raises OSError: EBUSY if a filter of the thread has a listener already, EINVAL or ENOSYS if the
    kernel is too old.
    """
    # WAIT_KILLABLE_RECV (5.19) prevents signals, such as those of Go's scheduler, from causing a
    # second notification of the same call.
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):
        found = _put_on(flags, code)
        if found != -errno.EINVAL:
            break
    if found < 0:
        raise OSError(-found, f"seccomp: {os.strerror(-found)}")
    return found


def install_filter(code: bytes) -> None:
    """Put a filter that asks about nothing on the calling thread and on all that it starts.

    Raises OSError.
    """
    if (found := _put_on(0, code)) < 0:
        raise OSError(-found, f"seccomp: {os.strerror(-found)}")


def receive(listener: int) -> Notification | None:
    """Return the waiting call; None if its thread was killed or interrupted meanwhile."""
    buffer = ctypes.create_string_buffer(_ROOM)
    if _libc.ioctl(listener, _RECEIVE, buffer):
        return None
    id, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack_from(buffer.raw)
    return Notification(id, thread, number, tuple(arguments))


def continue_call(listener: int, id: int) -> bool:
    """Let the kernel run the call; False if the call is not waiting any more."""
    return _respond(listener, _RESPONSE.pack(id, 0, 0, _CONTINUE))


def return_error(listener: int, id: int, number: int) -> bool:
    """Make the call return an errno without running it; False if it is not waiting any more.

    With 0 it succeeds without any effect.
    """
    return _respond(listener, _RESPONSE.pack(id, 0, -number, 0))


def why_impossible() -> str:
    """Return why processes cannot be supervised here, "" if they can.

    Probed with a thread of this process: it installs a filter and makes one harmless call, which is
    continued; the filter ends with the thread.
    """
    machine = architecture()
    if not machine:
        return f"the numbers of system calls on {os.uname().machine} are not known to this version"
    tried = _Tried(machine)
    tried.start()
    tried.ready.wait()
    try:
        problem = tried.answer()
    finally:
        tried.join()
        if tried.listener >= 0:
            os.close(tried.listener)
    return problem


class _Tried(threading.Thread):
    """A thread that installs a filter and makes the call at which it stops."""

    def __init__(self, machine: str) -> None:
        super().__init__(name="graphdriver-suite", daemon=True)
        self._code = program([Instruction(_GETPPID[machine])], [])
        self.listener = -1
        self.problem = ""
        self.ready = threading.Event()

    def run(self) -> None:
        try:
            self.listener = install(self._code)
        except OSError as error:
            self.problem = f"{error}; seccomp user notification needs Linux 5.5"
            if error.errno == errno.EBUSY:
                self.problem = "another supervisor has a seccomp listener on this process already"
        finally:
            self.ready.set()
        if self.listener >= 0:
            _libc.getppid()  # by ctypes, which releases the GIL for the thread that answers

    def answer(self) -> str:
        """Let the call continue; return an error, if any."""
        while self.listener >= 0 and not self.problem and self.is_alive():
            call = receive(self.listener)
            if call and not continue_call(self.listener, call.id):
                self.problem = "the kernel cannot let a supervised call go on; Linux 5.5 can"
                return_error(self.listener, call.id, errno.EPERM)
            if call:
                break
        return self.problem


def _asking(one: Instruction) -> list[bytes]:
    """Return the instructions for one call; the accumulator contains its number before and
    after.
    """
    if one.argument is None:
        return [_line(_JEQ, 0, 1, one.number), _line(_RET, 0, 0, NOTIFY)]
    low_half = 16 + 8 * one.argument
    test = (
        [_line(_JSET, 0, 1, one.mask)]
        if one.equals is None
        else [_line(_AND, 0, 0, one.mask), _line(_JEQ, 0, 1, one.equals)]
    )
    body = [
        _line(_LD, 0, 0, low_half),
        *test,
        _line(_RET, 0, 0, NOTIFY),
        _line(_LD, 0, 0, 0),
    ]
    return [_line(_JEQ, 0, len(body), one.number), *body]


def _line(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def _put_on(flags: int, code: bytes) -> int:
    """Put a filter on the calling thread; return what the kernel returns, or the negative errno."""
    number, _ = _MACHINES[architecture()]
    text = ctypes.create_string_buffer(code, len(code))
    head = ctypes.create_string_buffer(
        struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(text))
    )
    found = _seccomp(number, flags, head)
    if found == -errno.EACCES:
        # Without CAP_SYS_ADMIN the kernel wants to know that setuid programs stay harmless.
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0)
        found = _seccomp(number, flags, head)
    return found


def _seccomp(number: int, flags: int, head: object) -> int:
    """Return the listener, or the negative errno."""
    found = _libc.syscall(
        ctypes.c_long(number), ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(flags), head
    )
    return int(found) if found >= 0 else -ctypes.get_errno()


def _respond(listener: int, response: bytes) -> bool:
    buffer = ctypes.create_string_buffer(response, _ROOM)
    return not _libc.ioctl(listener, _SEND, buffer)
