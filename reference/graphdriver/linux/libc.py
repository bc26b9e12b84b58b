"""Call the C library and raise errors from errno.

Only `graphdriver.linux` imports ctypes. Each function of this package has the name of its system
call.
"""

import ctypes
import os

__all__ = ["AT_FDCWD", "call", "syscall"]

AT_FDCWD = -100

# use_errno keeps a copy per thread; errno may be overwritten before Python reads it.
_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object, path: bytes | str | os.PathLike[str] | None = None) -> int:
    """Call the libc function `name`; raise OSError with it and `path` if it returns -1.

    Integers are passed as C int unless wrapped in a ctypes type, bytes as char pointers.
    """
    return _checked(name, getattr(_libc, name)(*arguments), path)


def syscall(
    name: str, number: int, *arguments: object, path: bytes | str | os.PathLike[str] | None = None
) -> int:
    """Make a system call for which the C library of Debian 12 has no wrapper."""
    function = _libc.syscall
    function.restype = ctypes.c_long
    # Variadic: a plain int would be passed as 32 bits, with an undefined upper half.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(name, function(ctypes.c_long(number), *wide), path)


def _checked(name: str, result: int, path: bytes | str | os.PathLike[str] | None) -> int:
    if result != -1:
        return result
    number = ctypes.get_errno()
    raise OSError(
        number, f"{name}: {os.strerror(number)}", None if path is None else os.fspath(path)
    )
