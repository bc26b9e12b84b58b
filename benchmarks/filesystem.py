"""The file system of all measurements: ext4 in a loop image on tmpfs, until the process ends."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["enter_private_namespace", "ext4_on_tmpfs"]

_INSIDE = "GRAPHDRIVER_BENCHMARKS_INSIDE"


def enter_private_namespace() -> None:
    """Restart in a private mount namespace, so that every mount ends with the process."""
    if os.environ.get(_INSIDE):
        return
    os.environ[_INSIDE] = "1"
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "benchmarks"]
    os.execvp("unshare", [*command, *sys.argv[1:]])


def ext4_on_tmpfs(base: Path, size: str, room: str) -> tuple[Path, Path]:
    """Mount tmpfs of size `room` at `base`, and ext4 from an image in it; return (ext4, tmpfs).

    On ext4 of a disk the same work took 1 to 9 s in different runs; here it varies by a third.
    """
    _run("mount", "-t", "tmpfs", "-o", f"size={room}", "none", str(base))
    image, point = base / "image", base / "ext4"
    _run("truncate", "-s", size, str(image))
    _run(
        "mkfs.ext4",
        "-q",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
        *("-i", "6144"),
        str(image),
    )
    point.mkdir()
    _run("mount", "-o", "loop", str(image), str(point))
    return point, base


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
