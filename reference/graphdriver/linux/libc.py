"""Call the C library and raise what it left in errno.

Only `graphdriver.linux` imports ctypes. Each function of this package bears the name of the
system call it makes.
"""

import ctypes
import os

__all__ = ["AT_FDCWD", "call", "syscall"]

AT_FDCWD = -100

# use_errno keeps a copy per thread; reading errno after other Python code ran would be a lottery.
_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object, path: bytes | str | os.PathLike[str] | None = None) -> int:
    """Call the libc function `name`; raise OSError, naming it and `path`, when it returns -1.

    Integers go as C int unless wrapped in a ctypes type, bytes as char pointers.
    """
    return _checked(name, getattr(_libc, name)(*arguments), path)


def syscall(
    name: str, number: int, *arguments: object, path: bytes | str | os.PathLike[str] | None = None
) -> int:
    """Make a system call that the C library of Debian 12 has no wrapper for."""
    function = _libc.syscall
    function.restype = ctypes.c_long
    # Variadic: a plain int would be passed as 32 bits, leaving rubbish in the upper half.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(name, function(ctypes.c_long(number), *wide), path)


def _checked(name: str, result: int, path: bytes | str | os.PathLike[str] | None) -> int:
    if result != -1:
        return result
    number = ctypes.get_errno()
    raise OSError(
        number, f"{name}: {os.strerror(number)}", None if path is None else os.fspath(path)
    )
