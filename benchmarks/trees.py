"""The trees that are packed, unpacked and compared: the same bytes on every run."""

import random
from pathlib import Path

__all__ = ["big", "many", "rewrite_every_tenth"]

_SEED = 20_161_124


def many(root: Path, files: int = 10_000, directories: int = 100, size: int = 1024) -> None:
    """Write `files` files of `size` bytes, spread over `directories` directories."""
    source = random.Random(_SEED)
    for number in range(directories):
        directory = root / f"d{number:04}"
        directory.mkdir()
        for name in range(files // directories):
            (directory / f"f{name:04}").write_bytes(source.randbytes(size))


def big(root: Path, size: int = 1 << 30) -> None:
    """Write one file of `size` bytes, without holes."""
    block = random.Random(_SEED).randbytes(1 << 20)
    with (root / "big").open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)


def rewrite_every_tenth(root: Path) -> None:
    """Rewrite every tenth file of each directory with 120 bytes."""
    for directory in sorted(root.iterdir()):
        for file in sorted(directory.iterdir())[::10]:
            file.write_bytes(b"y" * 120)
