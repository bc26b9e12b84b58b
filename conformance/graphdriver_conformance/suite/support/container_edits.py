"""An image, and edits by a container that make overlayfs write marks to the upper directory."""

import errno
import os
import shutil
from pathlib import Path

from graphdriver_conformance.oracle.tree import EPOCH, Tree, file

__all__ = ["IMAGE", "edit"]

IMAGE = Tree.of(
    {
        "d/a": b"a",
        "d/sub/b": b"b",
        "e/old": b"old",
        "big": file(b"x" * 9000, 0o644),
        "gone": b"",
        "top": "d/a",
    }
)
"""The lower layer."""


def edit(root: Path) -> None:
    """Rename a directory and recreate one, change only metadata, delete."""
    try:
        (root / "d").rename(root / "moved")
    except OSError as error:
        if error.errno != errno.EXDEV:  # without redirects mv(1) copies
            raise
        shutil.copytree(root / "d", root / "moved", symlinks=True)
        shutil.rmtree(root / "d")
    shutil.rmtree(root / "e")
    (root / "e").mkdir()
    for name in ("moved/new", "e/other"):
        (root / name).write_bytes(b"new")
        os.utime(root / name, (EPOCH, EPOCH))
    (root / "big").chmod(0o600)
    (root / "gone").unlink()
