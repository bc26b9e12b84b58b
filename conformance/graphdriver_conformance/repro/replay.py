"""Replay of a recorded program: verbs, edits in views, and the recorded results.

Pasted into every script after `observe`; therefore it uses the standard library only.
"""

import base64
import contextlib
import importlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graphdriver_conformance.repro.observe import (
    home_names,
    mounts_below,
    observed_answer,
    observed_archive,
    observed_home,
    observed_tree,
    scan,
    xattrs_of,
)

RAISES = "raises"
"""The result of a call that raised."""

Edit = Callable[[bytes], object]
"""A function that edits the tree of a view, given its root."""

_UNOBSERVED = object()


class IDMap(NamedTuple):
    """As the driver's contract has it."""

    container_id: int
    host_id: int
    size: int


def blob(text: str) -> bytes:
    """Return the bytes that the script contains compressed, as base64."""
    return zlib.decompress(base64.b64decode(text))


def remove(name: bytes) -> Edit:
    """Remove it, with its tree."""

    def edit(root: bytes) -> None:
        path = root + b"/" + name
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    return edit


def rename(old: bytes, new: bytes) -> Edit:
    """Rename it."""
    return lambda root: os.rename(root + b"/" + old, root + b"/" + new)


def link(old: bytes, new: bytes) -> Edit:
    """Create a hard link."""
    return lambda root: os.link(root + b"/" + old, root + b"/" + new, follow_symlinks=False)


def mkdir(name: bytes, **metadata: Any) -> Edit:
    """Make a directory."""
    return _making(name, os.mkdir, metadata)


def symlink(target: bytes, name: bytes, **metadata: Any) -> Edit:
    """Make a symlink."""
    return _making(name, lambda path: os.symlink(target, path), metadata)


def mknod(name: bytes, kind: int, device: int = 0, **metadata: Any) -> Edit:
    """Create a fifo, a socket or a device."""
    return _making(name, lambda path: os.mknod(path, kind | 0o600, device), metadata)


def _making(name: bytes, make: Callable[[bytes], None], metadata: Mapping[str, Any]) -> Edit:
    def edit(root: bytes) -> None:
        make(root + b"/" + name)
        _set(root + b"/" + name, **metadata)

    return edit


def write(name: bytes, content: bytes | int, **metadata: Any) -> Edit:
    """Write a file, in place if it exists; a number instead of content is the size of a hole."""

    def edit(root: bytes) -> None:
        path = root + b"/" + name
        there = os.path.lexists(path)
        if there:
            os.chmod(path, 0o600)
        with open(path, "r+b" if there else "xb") as opened:
            if isinstance(content, bytes):
                opened.write(content)
            opened.truncate(len(content) if isinstance(content, bytes) else content)
        _set(path, **metadata)

    return edit


def change(name: bytes, **metadata: Any) -> Edit:
    """Set owner, mode, xattrs and time."""
    return lambda root: _set(root + b"/" + name if name else root, **metadata)


def _set(
    path: bytes,
    mode: int | None = None,
    uid: int = 0,
    gid: int = 0,
    xattrs: Mapping[str, bytes] | None = None,
    mtime: int | None = None,
) -> None:
    os.chown(path, uid, gid, follow_symlinks=False)
    if mode is not None:
        os.chmod(path, mode)
    for name in xattrs_of(path):
        if name.startswith("user.") and name not in (xattrs or {}):
            os.removexattr(path, name, follow_symlinks=False)
    for name, value in (xattrs or {}).items():
        os.setxattr(path, name, value, follow_symlinks=False)
    if mtime is not None:
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


# The replay.


class ReplayMismatch(Exception):
    """The driver returned another result than in the test."""


class Replay:
    """The drivers of a program; each verb is a method, `observed` its recorded result."""

    def __init__(self, factory: Callable[..., Any], place: str) -> None:
        self.factory, self.place = factory, Path(place)
        self.drivers: dict[int, Any] = {}
        self.views: dict[str, str] = {}
        self.mounts_before = 0
        self.names_before: Counter[str] = Counter()

    def init(
        self,
        home: str = "home",
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
        driver: int = 0,
        observed: object = _UNOBSERVED,
    ) -> None:
        """Create a driver on the home."""

        def made() -> None:
            where = self.place / home
            self.drivers[driver] = self.factory(where, options, uid_maps, gid_maps)

        self._answered("init", made, observed)

    def edit(self, id: str, *edits: Edit) -> None:
        """Edit the layer's view."""
        try:
            for one in edits:
                one(os.fsencode(self.views[id]))
        except OSError as error:
            raise ReplayMismatch(f"an edit in {id!r} that the test made: {error}") from error

    def look(self, id: str, observed: str) -> None:
        """Compare a view that the call before has changed."""
        self._compared(f"the view of {id!r}", observed_tree(scan(self.views[id])), observed)

    def start(self) -> None:
        """Count mounts and names from this point."""
        self.mounts_before = len(mounts_below(self.place))
        self.names_before = home_names(self.place)

    def umask(self, mask: int) -> None:
        """Set the process's umask."""
        os.umask(mask)

    def mounts(self, observed: int) -> None:
        """Count the mounts below the home."""
        found = len(mounts_below(self.place)) - self.mounts_before
        self._compared("the number of mounts", found, observed)

    def home(self, observed: str) -> None:
        """Compare the files beside and below the home."""
        self._compared(
            "the names in the home",
            observed_home(home_names(self.place), self.names_before),
            observed,
        )

    def __getattr__(self, verb: str) -> Callable[..., None]:
        """Return a verb."""

        def call(*arguments: Any, driver: int = 0, observed: object = _UNOBSERVED) -> None:
            def answer() -> object:
                given = [io.BytesIO(one) if isinstance(one, bytes) else one for one in arguments]
                got = getattr(self.drivers[driver], verb)(*given)
                if verb == "get":
                    self.views[arguments[0]] = got
                if verb == "diff":
                    with contextlib.closing(got):
                        part = re.match(r"the first (\d+) bytes", str(observed))
                        if part:
                            got.read(int(part[1]))
                            return part[0]
                        return observed_archive(got.read())
                return observed_answer(verb, got, self.place)

            self._answered(f"{verb}{arguments!r}"[:120], answer, observed)

        return call

    def _answered(self, what: str, answer: Callable[[], object], observed: object) -> None:
        try:
            found = answer()
        except Exception as error:
            if observed == RAISES:
                return
            raise ReplayMismatch(f"{what} raises {type(error).__name__}: {error}") from error
        self._compared(what, found, observed)

    def _compared(self, what: str, found: object, observed: object) -> None:
        if observed is not _UNOBSERVED and observed != found:
            raise ReplayMismatch(f"{what}: {found!r}, where the test observed {observed!r}")


def _is_on_overlay(place: str) -> bool:
    command = ["stat", "-f", "-c%T", place]
    return subprocess.run(command, capture_output=True, check=False).stdout == b"overlayfs\n"


def _umount_below(place: str) -> None:
    """Unmount all mounts, also those hidden by another mount."""
    left = -1
    while (points := mounts_below(place)) and len(points) != left:
        left = len(points)
        for point in reversed(points):
            command = ["umount", "--lazy", point]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)


def _resolved(spec: str) -> Callable[..., Any]:
    if not re.match(r"[\w.]+(:[\w.]+)?$", spec):
        from graphdriver_conformance.drivers.resolve import resolve  # an adapter of the suite

        return resolve(spec).factory
    sys.path.insert(0, os.getcwd())
    if ":" not in spec:
        points = importlib.metadata.entry_points(group="graphdriver.drivers")
        factory: Callable[..., Any] = points[spec].load()
        return factory
    module, _, path = spec.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    named: Callable[..., Any] = found
    return named


def main(spec: str, program: Callable[[Replay], None], expected: str, actual: str) -> int:
    """Replay; 1 if it reproduces, 0 if not, 2 without a driver."""
    if os.environ.get("GRAPHDRIVER_REPLAY") != "inside":
        # In a mount namespace of its own, so that mounts end with the process.
        flags = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
        os.environ["GRAPHDRIVER_REPLAY"] = "inside"
        os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.argv])
    spec = sys.argv[1] if len(sys.argv) > 1 else spec
    place = os.path.realpath(tempfile.mkdtemp(prefix="graphdriver-repro-"))
    try:
        if _is_on_overlay(place):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
        program(Replay(_resolved(spec), place))
    except ReplayMismatch as error:
        print(f"{spec}: not reproduced\n  {error}")
        return 0
    except (ImportError, AttributeError, KeyError) as error:
        print(f"{spec}: there is no such driver ({error!r})", file=sys.stderr)
        return 2
    finally:
        _umount_below(place)
        shutil.rmtree(place, ignore_errors=True)
    print(f"{spec}: reproduced\n  expected: {expected}\n  actual:   {actual}")
    return 1
