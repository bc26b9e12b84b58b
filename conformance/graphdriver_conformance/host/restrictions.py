"""Simulation of hosts that a driver must refuse, for one thread each.

Capabilities and the personality belong to the thread, not to the process (capabilities(7),
personality(2)); threads that the driver starts inherit them. So an in-process driver runs on a host
without mounts, or with an old kernel, while the rest of the run is not affected.
"""

import ctypes
from collections.abc import Callable
from typing import TypeVar

from graphdriver_conformance.host.syscalls import call, in_a_thread_of_its_own

__all__ = ["as_linux_2_6", "without_mounting"]

_Result = TypeVar("_Result")

_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SYS_ADMIN = 21
_UNAME26 = 0x0020000


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def without_mounting(work: Callable[[], _Result]) -> _Result:
    """Return the result of `work` in a thread that may not mount. Raises its exceptions."""
    return _in_thread(_drop_sys_admin, work)


def as_linux_2_6(work: Callable[[], _Result]) -> _Result:
    """Return the result of `work` in a thread whose uname(2) reports 2.6. Raises its exceptions."""
    return _in_thread(lambda: call("personality", ctypes.c_ulong(_UNAME26)), work)


def _in_thread(prepare: Callable[[], None], work: Callable[[], _Result]) -> _Result:
    def prepare_and_work() -> _Result:
        prepare()
        return work()

    return in_a_thread_of_its_own(prepare_and_work)


def _drop_sys_admin() -> None:
    header, sets = _Header(_CAPABILITY_VERSION_3, 0), (_Sets * 2)()
    call("capget", ctypes.byref(header), sets)
    sets[0].effective &= ~(1 << _CAP_SYS_ADMIN)
    sets[0].permitted &= ~(1 << _CAP_SYS_ADMIN)
    call("capset", ctypes.byref(header), sets)
