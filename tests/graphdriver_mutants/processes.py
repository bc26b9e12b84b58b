"""Mutants that are correct in one process, or if one thread uses a diff stream."""

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []

_PATH_MAX = 4096


@mutant(
    "CON-018", bug="containers/storage #371, #693: a list of layers that no other process reads"
)
class ListOfOneProcess(Mutant):
    """All drivers of a process share a list of layers, which is read once."""

    _lists: ClassVar[dict[Path, set[str]]] = {}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        there = {path.name for path in self.home.iterdir()}
        self._known = self._lists.setdefault(self.home, there)

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        self._known.add(id)

    def exists(self, id: str) -> bool:
        return id in self._known and super().exists(id)


@mutant("CON-019", bug="fork(2): the counts of holds are copied or lost, the mounts are shared")
class ForkForgetsHolds(Mutant):
    """A forked child has no holds, and its put unmounts a view that its parent process holds."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._process = os.getpid()

    def put(self, id: str) -> None:
        super().put(id)
        merged = self.home / id / "merged"
        if os.getpid() != self._process and os.path.ismount(merged):
            subprocess.run(["umount", "--lazy", merged], check=True)


@mutant("CON-020", bug="python/cpython #84559: threads of a pool are missing in a forked child")
class PoolOfTheParentProcess(Mutant):
    """get waits for threads that a forked child does not have."""

    deadline = 5

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._pool = ThreadPoolExecutor(1)

    def get(self, id: str, mount_label: str = "") -> Path:
        return self._pool.submit(super().get, id, mount_label).result()


class _OneReader:
    """A stream that only the thread which read it last can close."""

    def __init__(self, stream: BinaryIO, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release = release
        self._reader = threading.get_ident()
        self._is_open = True

    def read(self, count: int = -1) -> bytes:
        self._reader = threading.get_ident()
        return self._stream.read(count)

    def close(self) -> None:
        if self._is_open and self._reader == threading.get_ident():
            self._is_open = False
            self._stream.close()
            self._release()

    def __enter__(self) -> "_OneReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@mutant("DIF-063", bug="a generator whose close() in another thread fails with `already executing`")
class ClosedByItsReaderOnly(Mutant):
    """diff holds the layer until the reading thread closes the stream."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        stream = super().diff(id, parent)
        self.wrapped.get(id)
        return cast(BinaryIO, _OneReader(stream, partial(self.wrapped.put, id)))


def _raise_if_too_long(home: Path, id: str) -> None:
    """Fail like a walk by full paths."""

    def fail(error: OSError) -> None:
        raise error

    for _ in os.walk(home / id / "diff", onerror=fail):
        pass


@mutant("DIF-062", bug="os.walk() and full paths, which are limited to PATH_MAX")
class LongPathsNotInDiffs(Mutant):
    """diff fails with ENAMETOOLONG if a path is longer than PATH_MAX."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        if self.wrapped.exists(id):
            _raise_if_too_long(self.home, id)
        return super().diff(id, parent)


@mutant("CHG-024", bug="os.walk() and full paths, which are limited to PATH_MAX")
class LongPathsNotInChanges(Mutant):
    """changes fails with ENAMETOOLONG if a path is longer than PATH_MAX."""

    def changes(self, id: str, parent: str = "") -> Any:
        if self.wrapped.exists(id):
            _raise_if_too_long(self.home, id)
        return super().changes(id, parent)


@mutant("LIF-036", bug="a copy by full paths that ignores ENAMETOOLONG, as moby's pkg/archive does")
class LongPathsNotCopied(Mutant):
    """create copies no file of the parent whose path is longer than PATH_MAX."""

    wrapped_name = "vfs"

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        for directory, names, _ in os.walk(self.home / "dir" / id) if parent else ():
            for name in names:
                if len(directory) + 1 + len(name) >= _PATH_MAX:
                    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
                    shutil.rmtree(name, dir_fd=descriptor)
                    os.close(descriptor)


@mutant("DIF-064", bug="buildah #1979, makisu #282: stat(2) instead of lstat(2)")
class LoopsAreFollowed(Mutant):
    """diff fails with ELOOP if a symlink leads back to itself."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        for directory, _, names in os.walk(self.home / id / "diff"):
            for name in names:
                try:
                    os.stat(os.path.join(directory, name))
                except OSError as error:
                    if error.errno == errno.ELOOP:
                        raise
        return super().diff(id, parent)


@mutant("DIF-064", bug="containers-storage 1.43, changes: stat(2) of the parent's file")
class ChangesFollowLoops(Mutant):
    """changes fails with ELOOP if a path is a loop of symlinks in the parent."""

    def changes(self, id: str, parent: str = "") -> Any:
        found = super().changes(id, parent)
        for one in found if parent else ():
            try:
                os.stat(os.fsencode(self.home / parent / "diff") + one.path)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise
        return found
