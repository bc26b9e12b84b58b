"""FUSE connections: a call that waits for a server which never answers outlasts even SIGKILL.

Once a server has read a request, the kernel waits for its answer without regard to signals
(fs/fuse/dev.c, request_wait_answer). Only the end of the connection ends the wait.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphdriver_conformance.host import mountinfo
from graphdriver_conformance.host.syscalls import mount, umount

__all__ = ["abort_below"]

_CONTROL = Path("/sys/fs/fuse/connections")


def abort_below(directory: Path | str, process: int) -> None:
    """Abort the connections of all FUSE mounts below `directory` that a process sees.

    All their calls fail from then on (ECONNABORTED, ENOTCONN). Without the privilege to mount the
    control file system nothing is done.
    """
    inside = f"{os.path.realpath(directory)}/"
    rows: list[mountinfo.Mount] = []
    with contextlib.suppress(OSError):
        rows = mountinfo.parse(Path(f"/proc/{process}/mountinfo").read_bytes())
    numbers = {
        row.device.partition(":")[2]
        for row in rows
        if row.type.partition(".")[0] == "fuse" and row.point.startswith(inside)
    }
    if numbers:
        with contextlib.suppress(OSError), _connections() as connections:
            for number in numbers:
                with contextlib.suppress(OSError):
                    (connections / number / "abort").write_text("1")


@contextlib.contextmanager
def _connections() -> Iterator[Path]:
    """Yield the directory of all connections, by the minor number of the device."""
    if any(_CONTROL.iterdir()):
        yield _CONTROL
        return
    with tempfile.TemporaryDirectory(prefix="graphdriver-fuse-") as scratch:
        mount("none", scratch, "fusectl", 0)
        try:
            yield Path(scratch)
        finally:
            umount(scratch)
