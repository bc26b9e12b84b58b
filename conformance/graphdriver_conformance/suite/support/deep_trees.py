"""Trees with paths that are longer than PATH_MAX, made and read one directory at a time."""

import os
from collections.abc import Sequence
from pathlib import Path

from graphdriver_conformance.fixture.subject import Subject

__all__ = ["DEEP", "read_deep", "write_deep"]

_PARTS = tuple(b"%02d" % number + b"p" * 198 for number in range(25))
DEEP = b"/".join([*_PARTS, b"file"])
"""The path of the file, 5029 bytes."""


def write_deep(graphdriver: Subject, root: Path, content: bytes) -> None:
    """Write the file; the requirement is not provable in a view without such paths."""
    try:
        directory = _entered(root, _PARTS, create=True)
    except OSError as error:
        graphdriver.not_provable(f"the view has no path of {len(DEEP)} bytes: {error.strerror}")
    try:
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        with os.fdopen(os.open(b"file", flags, 0o644, dir_fd=directory), "wb") as stream:
            stream.write(content)
    finally:
        os.close(directory)


def read_deep(root: Path) -> bytes | None:
    """Return the content of the file, None if it or a directory above it is missing."""
    try:
        directory = _entered(root, _PARTS, create=False)
    except FileNotFoundError:
        return None
    try:
        with os.fdopen(os.open(b"file", os.O_RDONLY, dir_fd=directory), "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)


def _entered(root: Path, parts: Sequence[bytes], *, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(root, flags)
    try:
        for part in parts:
            if create:
                os.mkdir(part, dir_fd=descriptor)
            below = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
