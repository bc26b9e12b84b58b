"""pytest, loaded once and forked for each cell: under emulation a start takes half a minute.

The suite is only called through pytest's command line.
"""

import ctypes
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["run", "warm_up"]

_PERSONALITIES = {"": None, "uname-2.6": 0x0020000}  # include/uapi/linux/personality.h
_QUIET = ("--tb=no", "-rN", "--no-header", "-q", "-p", "no:cacheprovider")
# pytest imports its plugins again, and warns about each.
_AGAIN = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
_libc = ctypes.CDLL(None, use_errno=True)


def warm_up() -> None:
    """Let pytest collect the suite, without a driver: its modules are then loaded, and
    rewritten.
    """
    arguments = [*_QUIET, "--collect-only", "--pyargs", "graphdriver_conformance.suite"]
    sys.stdout.flush()
    kept = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        pytest.main(arguments)
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def run(arguments: Sequence[str], directory: str, log: Path, user: str, personality: str) -> int:
    """Run pytest in a child, as `user` in `directory`; return its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 70
        try:
            _redirect(log)
            os.chdir(directory)
            _become(user, personality)
            code = int(pytest.main([*_QUIET, *_AGAIN, *arguments]))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 70
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _redirect(log: Path) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.close(nothing)


def _become(user: str, personality: str) -> None:
    number = _PERSONALITIES[personality]
    if number is not None and _libc.personality(ctypes.c_ulong(number)) == -1:
        raise OSError(ctypes.get_errno(), f"personality {personality}")
    if user == "root":
        return
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setresgid(*[entry.pw_gid] * 3)
    os.setresuid(*[entry.pw_uid] * 3)
    # A process with changed ids cannot write its own uid_map until it is dumpable again.
    _libc.prctl(4, 1)
    os.environ.update(HOME=entry.pw_dir, LOGNAME=user, USER=user)
