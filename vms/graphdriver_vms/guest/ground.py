"""The environment of a cell: a new file system, and parameters of the overlay module."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["NoGround", "made", "parameters_set"]

_PARAMETERS = Path("/sys/module/overlay/parameters")
_IMAGE_SIZE = 1 << 30


class NoGround(Exception):
    """The file system or parameter is not supported on this machine; the text names the
    attempts.
    """


@contextlib.contextmanager
def made(cell: dict[str, Any]) -> Iterator[Path]:
    """Create the file system of a cell and mount it. Raises NoGround if the kernel lacks it."""
    base = Path(tempfile.mkdtemp(prefix="graphdriver-ground-", dir="/var/tmp"))
    ground = base / "ground"
    ground.mkdir()
    base.chmod(0o755)
    mounted = False
    try:
        if cell["make"]:
            _make_some(cell, base / "image", ground)
            mounted = True
        # Owned by its user, as a home directory is; files of mkfs in it are harmless.
        with contextlib.suppress(OSError):
            (ground / "lost+found").rmdir()
        shutil.chown(ground, cell["user"], cell["user"])
        yield ground
    finally:
        if mounted:
            subprocess.run(["umount", ground], check=True)
        shutil.rmtree(base, ignore_errors=True)


def _make_some(cell: dict[str, Any], image: Path, ground: Path) -> None:
    """Run mkfs with today's defaults, or with those of the time of this kernel. Raises NoGround."""
    try:
        _make_and_mount(cell["make"], cell["mount"], image, ground)
    except NoGround:
        if not cell["make_older"]:
            raise
        _make_and_mount(cell["make_older"], cell["mount"], image, ground)


def _make_and_mount(make: list[str], options: str, image: Path, ground: Path) -> None:
    if make == ["tmpfs"]:
        command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", ground]
    else:
        if not shutil.which(make[0]):
            raise NoGround(f"there is no {make[0]} here")
        with image.open("wb") as file:
            file.truncate(_IMAGE_SIZE)
        _run([*make, image])
        joined = ",".join(filter(None, ("loop", options)))
        command = ["mount", "-o", joined, image, ground]
    _run(command)


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # Without the paths, which differ in every run.
        words = " ".join(str(one) for one in command if not str(one).startswith("/"))
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise NoGround(f"{words} failed: {said.rpartition(': ')[2]}")


@contextlib.contextmanager
def parameters_set(wanted: dict[str, str]) -> Iterator[None]:
    """Set parameters of the overlay module, and restore them. Raises NoGround if they do not
    exist.
    """
    before = {}
    try:
        for name, value in wanted.items():
            file = _PARAMETERS / name
            if not file.is_file():
                raise NoGround(f"this kernel's overlay has no parameter {name}")
            before[file] = file.read_text().strip()
            file.write_text(value)
        yield
    finally:
        for file, value in before.items():
            file.write_text(value)
