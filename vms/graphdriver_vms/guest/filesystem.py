"""The environment of a cell: a new file system, and parameters of the overlay module."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["CannotPrepare", "mounted_filesystem", "parameters_set"]

_PARAMETERS = Path("/sys/module/overlay/parameters")
_IMAGE_SIZE = 1 << 30


class CannotPrepare(Exception):
    """The file system or parameter is not supported on this machine; the text names the
    attempts.
    """


@contextlib.contextmanager
def mounted_filesystem(cell: dict[str, Any]) -> Iterator[Path]:
    """Create and mount the file system of a cell. Raises CannotPrepare if the kernel lacks it."""
    base = Path(tempfile.mkdtemp(prefix="graphdriver-filesystem-", dir="/var/tmp"))
    filesystem = base / "mount"
    filesystem.mkdir()
    base.chmod(0o755)
    mounted = False
    try:
        if cell["make"]:
            _make_some(cell, base / "image", filesystem)
            mounted = True
        # Owned by its user, as a home directory is; files of mkfs in it are harmless.
        with contextlib.suppress(OSError):
            (filesystem / "lost+found").rmdir()
        shutil.chown(filesystem, cell["user"], cell["user"])
        yield filesystem
    finally:
        if mounted:
            subprocess.run(["umount", filesystem], check=True)
        shutil.rmtree(base, ignore_errors=True)


def _make_some(cell: dict[str, Any], image: Path, filesystem: Path) -> None:
    """Run mkfs with current defaults, or with those of this kernel's time. Raises CannotPrepare."""
    try:
        _make_and_mount(cell["make"], cell["mount"], image, filesystem)
    except CannotPrepare:
        if not cell["make_older"]:
            raise
        _make_and_mount(cell["make_older"], cell["mount"], image, filesystem)


def _make_and_mount(make: list[str], options: str, image: Path, filesystem: Path) -> None:
    if make == ["tmpfs"]:
        command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", filesystem]
    else:
        if not shutil.which(make[0]):
            raise CannotPrepare(f"there is no {make[0]} here")
        with image.open("wb") as file:
            file.truncate(_IMAGE_SIZE)
        _run([*make, image])
        joined = ",".join(filter(None, ("loop", options)))
        command = ["mount", "-o", joined, image, filesystem]
    _run(command)


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # Without the paths, which differ in every run.
        words = " ".join(str(one) for one in command if not str(one).startswith("/"))
        error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise CannotPrepare(f"{words} failed: {error.rpartition(': ')[2]}")


@contextlib.contextmanager
def parameters_set(wanted: dict[str, str]) -> Iterator[None]:
    """Set parameters of the overlay module, and restore them. Raises CannotPrepare if they do not
    exist.
    """
    before = {}
    try:
        for name, value in wanted.items():
            file = _PARAMETERS / name
            if not file.is_file():
                raise CannotPrepare(f"this kernel's overlay has no parameter {name}")
            before[file] = file.read_text().strip()
            file.write_text(value)
        yield
    finally:
        for file, value in before.items():
            file.write_text(value)
