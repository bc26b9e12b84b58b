"""Calls by an ordinary user, in the process of the suite."""

import os
from collections.abc import Callable
from pathlib import Path

from graphdriver_conformance.host.syscalls import in_a_thread_of_its_own, set_filesystem_ids

__all__ = ["GROUP", "USER", "as_user"]

USER, GROUP = 1000, 1001


def as_user(call: Callable[[Path], object]) -> Callable[[Path], object]:
    """Make a call as an ordinary user, who need not be able to reach its directory."""

    def run(root: Path) -> object:
        # A home is private, so the path uses a descriptor.
        descriptor = os.open(root, os.O_PATH | os.O_CLOEXEC)

        def become_and_call() -> object:
            set_filesystem_ids(USER, GROUP)
            return call(Path(f"/proc/self/fd/{descriptor}"))

        try:
            return in_a_thread_of_its_own(become_and_call)
        finally:
            os.close(descriptor)

    return run
