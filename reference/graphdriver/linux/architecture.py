"""Numbers that differ between architectures: ioctls and system calls.

The C headers compute them; here they are computed for the running machine.
"""

import os
import struct

__all__ = ["ioctl_read", "ioctl_write", "syscall_number"]

# include/uapi/asm-generic/ioctl.h, and the asm/ioctl.h of older architectures.
_OWN_IOCTLS = ("alpha", "mips", "powerpc", "ppc", "sparc")
_LONG = struct.calcsize("l")


def ioctl_read(kind: int | str, number: int, size: int, machine: str = "") -> int:
    """Return the request _IOR(kind, number, type of that size) of C."""
    return _request(2, kind, number, size, machine)


def ioctl_write(kind: int | str, number: int, size: int, machine: str = "") -> int:
    """Return the request _IOW(kind, number, type of that size) of C."""
    write = 4 if _has_own_ioctls(machine) else 1
    return _request(write, kind, number, size, machine)


def syscall_number(number: int, machine: str = "", word: int = _LONG) -> int:
    """Return the number of a system call that was added in 2019 or later, from 424 on.

    Such calls have the same number on all architectures, except on Alpha and MIPS, which add an
    offset.
    """
    machine = machine or os.uname().machine
    if machine.startswith("alpha"):
        return number + 110
    if machine.startswith("mips"):
        return number + (5000 if word == 8 else 4000)
    return number


def _request(direction: int, kind: int | str, number: int, size: int, machine: str) -> int:
    shift = 29 if _has_own_ioctls(machine) else 30
    letter = ord(kind) if isinstance(kind, str) else kind
    return direction << shift | size << 16 | letter << 8 | number


def _has_own_ioctls(machine: str) -> bool:
    return (machine or os.uname().machine).startswith(_OWN_IOCTLS)
