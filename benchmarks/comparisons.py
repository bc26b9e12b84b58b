"""The comparisons: the work, the candidates, and the aims."""

import itertools
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast
from unittest.mock import patch

from benchmarks import trees
from benchmarks.comparison import Aim, Candidate, Comparison, between
from benchmarks.floor import SystemCalls
from benchmarks.peers import Docker
from benchmarks.workspace import Record, Workspace
from graphdriver.overlay2 import Driver

__all__ = [
    "CONTAINERD",
    "DOCKER",
    "OURS",
    "STORAGE",
    "TAR",
    "apply_comparison",
    "apply_file",
    "changes",
    "cycle",
    "cycle_comparison",
    "diff_and_apply",
    "diff_comparison",
    "drain",
    "grown",
    "shell",
    "sources",
    "synced",
    "unsynced",
]

OURS, TAR, DOCKER = "overlay2", "GNU tar", "Docker"
CONTAINERD, STORAGE = "containerd", "containers-storage"
UNSYNCED = "overlay2, nothing synced"
_CALLS = "its system calls from plain Python, nothing synced"
_BUFFER = 1 << 20


def diff_and_apply(workspace: Workspace, record: Record) -> None:
    """Diff and apply of many small files, and of a large one."""
    sizes = workspace.sizes
    for title, plant, diff_aims, apply_aims in (
        (
            f"{sizes.files:,} files of 1 KiB",
            partial(trees.many, files=sizes.files),
            (Aim(OURS, TAR, 1.4),),
            (Aim(OURS, TAR, 1.25),),
        ),
        (
            _big_title(workspace),
            partial(trees.big, size=sizes.big),
            (Aim(OURS, TAR, 1.0),),
            (Aim(OURS, DOCKER, 0.8),),
        ),
    ):
        tree, archive = workspace.archive(plant)
        record.measure(diff_comparison(workspace, title, tree, archive, diff_aims))
        record.measure(apply_comparison(workspace, title, archive, apply_aims))


def sources(workspace: Workspace, record: Record) -> None:
    """Apply of a large file from a pipe, and from a socket."""
    _, archive = workspace.archive(partial(trees.big, size=workspace.sizes.big))
    fresh, docker = _fresh_layer(workspace.driver), workspace.docker
    for name, opened_archive, path in (
        ("a pipe", _pipe, _fifo),
        ("a socket", _socket, _listener),
    ):
        candidates = [
            Candidate(
                OURS,
                partial(_apply_stream, workspace.driver, partial(opened_archive, archive)),
                fresh,
            )
        ]
        if docker:
            run = partial(_docker_apply, docker, partial(path, archive, workspace.spare / "feed"))
            candidates.append(Candidate(DOCKER, run, _fresh_of_docker(docker)))
        title = f"apply, {_big_title(workspace)}, from {name}"
        record.measure(Comparison(title, candidates, (Aim(OURS, DOCKER, 0.8),)))


def synced(workspace: Workspace, record: Record) -> None:
    """Apply with a sync of the layer before the return."""
    driver = Driver(workspace.place / "synced", ["overlay2.sync=true"])
    target = workspace.place / "target"
    for title, plant in (
        (
            f"{workspace.sizes.files:,} files of 1 KiB",
            partial(trees.many, files=workspace.sizes.files),
        ),
        (_big_title(workspace), partial(trees.big, size=workspace.sizes.big)),
    ):
        _, archive = workspace.archive(plant)
        candidates = (
            Candidate("overlay2.sync=true", partial(apply_file, driver, "fresh", "", archive),
                       _fresh_layer(driver)),
            Candidate("tar and sync -f",
                       partial(shell, f"tar -C {target} -xf {archive} && sync -f {target}"),
                       _fresh_directory(target)),
        )  # fmt: skip
        record.measure(Comparison(f"apply to the disk, {title}", candidates))


def changes(workspace: Workspace, record: Record) -> None:
    """Changes of a layer that rewrites a tenth of its parent's files."""
    driver, docker, storage = workspace.driver, workspace.docker, workspace.storage
    directories = max(workspace.sizes.wide // 100, 1)
    plant = partial(trees.many, files=workspace.sizes.wide, directories=directories, size=100)
    _, archive = workspace.archive(plant)
    driver.create("wide")
    apply_file(driver, "wide", "", archive)
    driver.create_read_write("rewritten", "wide")
    trees.rewrite_every_tenth(driver.get("rewritten"))
    driver.put("rewritten")
    candidates = [Candidate(OURS, partial(driver.changes, "rewritten", "wide"))]
    if docker:
        docker.call("create", "wide")
        docker.call("apply", "wide", "", archive)
        docker.call("create", "rewritten", "wide")
        trees.rewrite_every_tenth(Path(docker.call("get", "rewritten")[1]))
        docker.call("put", "rewritten")
        run = partial(docker.time, "changes", "rewritten", "wide")
        candidates.append(Candidate(DOCKER, run))
    if storage:
        storage.create("wide")
        storage.apply("wide", archive)
        storage.create("rewritten", "wide")
        trees.rewrite_every_tenth(storage.mount("rewritten"))
        storage.unmount("rewritten")
        candidates.append(Candidate(STORAGE, partial(storage.changes, "rewritten")))
    title = f"changes, {workspace.sizes.wide // 10:,} rewritten of {workspace.sizes.wide:,} files"
    aims = (Aim(OURS, STORAGE, 0.8), Aim(OURS, DOCKER, 1.0))
    record.measure(Comparison(title, candidates, aims))


def cycle(workspace: Workspace, record: Record) -> None:
    """Create, get, put and remove on chains of several lengths."""
    parent, made = "", 0
    for lowers in workspace.sizes.lowers:
        while made < lowers:
            layer = f"chain{made}"
            workspace.driver.create(layer, parent)
            if workspace.docker:
                workspace.docker.call("create", layer, parent)
            parent, made = layer, made + 1
        title = f"create+get+put+remove, {lowers} lower{'s' * (lowers > 1)}"
        record.measure(cycle_comparison(workspace, title, parent))


def cycle_comparison(workspace: Workspace, title: str, parent: str) -> Comparison:
    """Return the comparison of the cycle on `parent`, with the durability of Docker's driver."""
    docker, count = workspace.docker, workspace.sizes.repeats
    numbers = itertools.count()

    def run() -> float:
        start = time.perf_counter()
        for _ in range(count):
            layer = f"cycle-{next(numbers)}"
            workspace.driver.create_read_write(layer, parent)
            workspace.driver.get(layer)
            workspace.driver.put(layer)
            workspace.driver.remove(layer)
        return (time.perf_counter() - start) / count

    calls = SystemCalls(workspace.place / "home", parent)

    def run_calls() -> float:
        start = time.perf_counter()
        for _ in range(count):
            calls.cycle(f"calls-{next(numbers)}")
        return (time.perf_counter() - start) / count

    candidates = [
        Candidate(OURS, run),
        Candidate(UNSYNCED, run, unsynced),
        Candidate(_CALLS, run_calls, calls.ready),
    ]
    if docker:
        words = ("cycle", "cycle", parent, str(count))
        candidates.append(Candidate(DOCKER, lambda: docker.time(*words) / count))
    who = OURS if docker and Docker.syncs() else UNSYNCED
    return Comparison(title, candidates, (Aim(who, DOCKER, 1.0),))


def grown(workspace: Workspace, record: Record) -> None:
    """Apply of a small archive to layers with existing content."""
    driver, docker, sizes = workspace.driver, workspace.docker, workspace.sizes
    full = {
        f"{sizes.files:,} files": partial(trees.many, files=sizes.files),
        _big_title(workspace): partial(trees.big, size=sizes.big),
    }
    for number, plant in enumerate(full.values()):
        _, archive = workspace.archive(plant)
        driver.create(f"full{number}")
        apply_file(driver, f"full{number}", "", archive)
        if docker:
            docker.call("create", f"full{number}")
            docker.call("apply", f"full{number}", "", archive)
    _, small = workspace.archive(partial(trees.many, files=10, directories=1))
    empty = "overlay2, empty layer"
    candidates = [
        Candidate(empty, partial(apply_file, driver, "fresh", "", small), _fresh_layer(driver))
    ]
    aims = []
    for number, name in enumerate(full):
        run = partial(apply_file, driver, f"full{number}", "", small)
        candidates.append(Candidate(f"overlay2, {name}", run))
        aims.append(Aim(f"overlay2, {name}", empty, 1.5))
        if docker:
            timed = partial(docker.time, "apply", f"full{number}", "", small)
            candidates.append(Candidate(f"Docker, {name}", timed))
    record.measure(Comparison("apply of 10 files to a layer with content", candidates, tuple(aims)))


def diff_comparison(
    workspace: Workspace, title: str, tree: Path, archive: Path, aims: tuple[Aim, ...]
) -> Comparison:
    """Return the comparison of exporting a base layer."""
    driver, docker, storage = workspace.driver, workspace.docker, workspace.storage
    driver.remove("packed")
    driver.create("packed")
    apply_file(driver, "packed", "", archive)
    candidates = [
        Candidate(OURS, partial(drain, driver, "packed")),
        Candidate(TAR, partial(shell, f"tar -C {tree} -cf - . | cat >/dev/null")),
        Candidate("tarfile", partial(_tarfile_create, tree)),
    ]
    if docker:
        if (workspace.place / "docker" / "packed").exists():
            docker.call("remove", "packed")
        docker.call("create", "packed")
        docker.call("apply", "packed", "", archive)
        if int(docker.call("diff", "packed")[1]) * 2 < archive.stat().st_size:
            raise RuntimeError("Docker's diff lacks content, so its time is not comparable")
        candidates.append(Candidate(DOCKER, partial(docker.time, "diff", "packed")))
    if workspace.containerd:
        run = partial(workspace.containerd.time, "diff", "", tree)
        candidates.append(Candidate(CONTAINERD, run))
    if storage:
        layer = f"packed-{abs(hash(title))}"
        storage.create(layer)
        storage.apply(layer, archive)
        candidates.append(Candidate(STORAGE, partial(storage.diff, layer)))
    return Comparison(f"diff, {title}", candidates, aims)


def apply_comparison(
    workspace: Workspace, title: str, archive: Path, aims: tuple[Aim, ...]
) -> Comparison:
    """Return the comparison of unpacking a base layer."""
    driver, docker, storage = workspace.driver, workspace.docker, workspace.storage
    target = workspace.place / "target"
    directory = _fresh_directory(target)
    candidates = [
        Candidate(OURS, partial(apply_file, driver, "fresh", "", archive), _fresh_layer(driver)),
        Candidate(TAR, partial(shell, f"tar -C {target} -xf {archive}"), directory),
        Candidate("tarfile", partial(_tarfile_extract, archive, target), directory),
    ]
    if docker:
        run = partial(docker.time, "apply", "fresh", "", archive)
        candidates.append(Candidate(DOCKER, run, _fresh_of_docker(docker)))
    if workspace.containerd:
        run = partial(workspace.containerd.time, "apply", target, archive)
        candidates.append(Candidate(CONTAINERD, run, directory))
    if storage:
        around = partial(
            between, partial(storage.create, "fresh"), partial(storage.delete, "fresh")
        )
        candidates.append(Candidate(STORAGE, partial(storage.apply, "fresh", archive), around))
    return Comparison(f"apply, {title}", candidates, aims)


@contextmanager
def unsynced() -> Iterator[None]:
    """Disable the driver's fsync(2) in the block, because dockerd 20.10 does not call it."""
    nothing = patch.multiple(os, fsync=lambda _: None, posix_fadvise=lambda *_: None)
    with nothing:
        yield


def drain(driver: Driver, layer: str, parent: str = "") -> None:
    """Read a diff to its end."""
    buffer = bytearray(_BUFFER)
    with driver.diff(layer, parent) as stream:
        while stream.readinto(buffer):  # type: ignore[attr-defined]
            pass


def apply_file(driver: Driver, layer: str, parent: str, archive: Path) -> None:
    """Unpack an archive."""
    with archive.open("rb") as stream:
        driver.apply_diff(layer, parent, stream)


def _big_title(workspace: Workspace) -> str:
    return f"one file of {workspace.sizes.big >> 20:,} MiB"


def _fresh_layer(driver: Driver) -> Callable[[], AbstractContextManager[object]]:
    return partial(between, partial(driver.create, "fresh"), partial(driver.remove, "fresh"))


def _fresh_of_docker(docker: Docker) -> Callable[[], AbstractContextManager[object]]:
    create, remove = (
        partial(docker.call, "create", "fresh"),
        partial(docker.call, "remove", "fresh"),
    )
    return partial(between, create, remove)


def _fresh_directory(target: Path) -> Callable[[], AbstractContextManager[object]]:
    return partial(between, target.mkdir, partial(shutil.rmtree, target))


# Streams: `cat` writes the archive for every candidate.


def _apply_stream(
    driver: Driver, opened_archive: Callable[[], AbstractContextManager[BinaryIO]]
) -> None:
    with opened_archive() as stream:
        driver.apply_diff("fresh", "", stream)


def _docker_apply(
    docker: Docker, opened_archive: Callable[[], AbstractContextManager[str]]
) -> float:
    with opened_archive() as name:
        return docker.time("apply", "fresh", "", name)


@contextmanager
def _pipe(archive: Path) -> Iterator[BinaryIO]:
    with subprocess.Popen(["cat", archive], stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield cast(BinaryIO, process.stdout)


@contextmanager
def _socket(archive: Path) -> Iterator[BinaryIO]:
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen(["cat", archive], stdout=theirs.fileno()):
        theirs.close()
        with ours.makefile("rb") as stream:
            yield stream


@contextmanager
def _fifo(archive: Path, path: Path) -> Iterator[str]:
    os.mkfifo(path)
    try:
        with subprocess.Popen(["sh", "-c", 'exec cat "$0" > "$1"', archive, path]):
            yield str(path)
    finally:
        path.unlink()


@contextmanager
def _listener(archive: Path, path: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                subprocess.run(["cat", archive], stdout=connection.fileno(), check=False)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"@{path}"
            thread.join()
        finally:
            path.unlink()


def shell(command: str) -> None:
    """Run a shell command."""
    subprocess.run(command, shell=True, check=True)


def _tarfile_create(tree: Path) -> None:
    with open("/dev/null", "wb") as sink, tarfile.open(fileobj=sink, mode="w|") as archive:
        archive.add(tree, ".")


def _tarfile_extract(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="fully_trusted")
