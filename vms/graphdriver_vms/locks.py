"""Locks of the cache: several runs may use it at the same time.

They are flock(2)s of files in `CACHE/locks`, so the kernel releases those of a killed run.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["exclusive", "is_in_use", "shared"]


@contextlib.contextmanager
def exclusive(cache: Path, name: str) -> Iterator[None]:
    """Hold the lock of a part of the cache while it is built; wait for another run that builds
    it.
    """
    with _held(cache, name, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def shared(cache: Path, name: str) -> Iterator[None]:
    """Hold a lock of a part of the cache while it is used."""
    with _held(cache, name, fcntl.LOCK_SH):
        yield


def is_in_use(cache: Path, name: str) -> bool:
    """Return whether any process holds the lock."""
    try:
        with _held(cache, name, fcntl.LOCK_EX | fcntl.LOCK_NB, make=False):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


@contextlib.contextmanager
def _held(cache: Path, name: str, operation: int, *, make: bool = True) -> Iterator[None]:
    place = cache / "locks" / name
    if make:
        place.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
    while True:
        descriptor = os.open(place, flags, 0o644)
        try:
            fcntl.flock(descriptor, operation)
            # `matrix clean` removes the file: a lock of the removed file has no effect.
            is_current = _is_same(descriptor, place)
        except BaseException:
            os.close(descriptor)
            raise
        if is_current:
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def _is_same(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False
