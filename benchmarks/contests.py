"""The contests: what is measured, against whom, and what is aimed at."""

import itertools
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from benchmarks import trees
from benchmarks.contest import Contest, Contestant, hold
from benchmarks.memory import peak_above_idle
from benchmarks.peers import ContainersStorage
from graphdriver.overlay2 import Driver

__all__ = ["all_contests", "peaks"]

_BUFFER = 1 << 20


def all_contests(ground: Path, spare: Path) -> Iterator[Contest]:
    """Yield the contests one after the other, each with its trees made; `spare` is tmpfs."""
    driver = Driver(ground / "home")
    storage = ContainersStorage.if_installed(ground / "containers-storage")
    for title, plant, diff_aim, apply_aim in (
        ("10,000 files of 1 KiB", trees.many, 1.5, 1.3),
        ("one 1 GiB file", trees.big, 1.0, 1.2),
    ):
        tree = ground / "tree"
        tree.mkdir()
        plant(tree)
        archive = spare / "layer.tar"
        subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
        yield _diff(title, driver, storage, tree, archive, diff_aim)
        yield _apply(title, driver, storage, ground, archive, apply_aim)
        shutil.rmtree(tree)
        archive.unlink()
    yield _changes(driver, storage, ground, spare)
    for lowers, milliseconds in ((1, 2.0), (20, 2.0), (120, 5.0)):
        yield _cycle(driver, lowers, milliseconds)


def peaks(ground: Path, spare: Path) -> Iterator[tuple[str, float]]:
    """Yield verbs and their peak memory in MiB above an idle interpreter."""
    for title, plant in (("10,000 files of 1 KiB", trees.many), ("one 1 GiB file", trees.big)):
        tree = ground / "tree"
        tree.mkdir()
        plant(tree)
        archive = spare / "layer.tar"
        subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
        shutil.rmtree(tree)
        home = ground / f"peak-{abs(hash(title))}"
        setup = Driver(home)
        for layer in ("packed", "fresh"):
            setup.create(layer)
        with archive.open("rb") as stream:
            setup.apply_diff("packed", "", stream)
        yield f"diff, {title}", peak_above_idle(home, lambda driver: _drain(driver, "packed"))
        yield f"apply, {title}", peak_above_idle(home, partial(_unpack, archive))
        yield f"changes, {title}", peak_above_idle(home, lambda driver: driver.changes("packed"))
        archive.unlink()
        shutil.rmtree(home)


def _unpack(archive: Path, driver: Driver) -> None:
    with archive.open("rb") as stream:
        driver.apply_diff("fresh", "", stream)


def _diff(
    title: str,
    driver: Driver,
    storage: ContainersStorage | None,
    tree: Path,
    archive: Path,
    aim: float,
) -> Contest:
    layer = f"diff-{abs(hash(title))}"
    driver.create(layer)
    with archive.open("rb") as stream:
        driver.apply_diff(layer, "", stream)
    contestants = [
        Contestant("overlay2", partial(_drain, driver, layer)),
        Contestant("tar", partial(_shell, f"tar -C {tree} -cf - . | cat >/dev/null")),
        Contestant("tarfile", partial(_tarfile_create, tree)),
    ]
    if storage:
        storage.import_layer(layer, archive)
        contestants.append(Contestant("containers-storage", partial(storage.diff, layer)))
    return Contest(f"diff, {title}", tuple(contestants), against="tar", ratio=aim)


def _apply(
    title: str,
    driver: Driver,
    storage: ContainersStorage | None,
    ground: Path,
    archive: Path,
    aim: float,
) -> Contest:
    target = ground / "target"

    def apply() -> None:
        with archive.open("rb") as stream:
            driver.apply_diff("fresh", "", stream)

    contestants = [
        Contestant(
            "overlay2",
            apply,
            _fresh(partial(driver.create, "fresh"), partial(driver.remove, "fresh")),
        ),
        Contestant(
            "tar",
            partial(_shell, f"tar -C {target} -xf {archive}"),
            _fresh(target.mkdir, partial(shutil.rmtree, target)),
        ),
        Contestant(
            "tarfile",
            partial(_tarfile_extract, archive, target),
            _fresh(target.mkdir, partial(shutil.rmtree, target)),
        ),
    ]
    if storage:
        contestants.append(
            Contestant(
                "containers-storage",
                partial(storage.apply, "fresh", archive),
                _fresh(partial(storage.create, "fresh"), partial(storage.delete, "fresh")),
            )
        )
    return Contest(f"apply, {title}", tuple(contestants), against="tar", ratio=aim)


def _changes(
    driver: Driver, storage: ContainersStorage | None, ground: Path, spare: Path
) -> Contest:
    tree = ground / "wide"
    tree.mkdir()
    trees.wide(tree)
    archive = spare / "wide.tar"
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
    shutil.rmtree(tree)
    driver.create("wide")
    with archive.open("rb") as stream:
        driver.apply_diff("wide", "", stream)
    driver.create_read_write("rewritten", "wide")
    trees.rewrite_every_tenth(driver.get("rewritten"))
    driver.put("rewritten")
    contestants = [Contestant("overlay2", partial(driver.changes, "rewritten", "wide"))]
    if storage:
        storage.import_layer("wide", archive)
        storage.create("rewritten", "wide")
        trees.rewrite_every_tenth(storage.mount("rewritten"))
        storage.unmount("rewritten")
        contestants.append(Contestant("containers-storage", partial(storage.changes, "rewritten")))
    archive.unlink()
    title = "changes, 10,000 rewritten of 100,000 files"
    return Contest(title, tuple(contestants), against="containers-storage", ratio=1.0)


def _cycle(driver: Driver, lowers: int, milliseconds: float) -> Contest:
    parent = ""
    for number in range(lowers):
        layer = f"chain{lowers}-{number}"
        driver.create(layer, parent)
        view = driver.get(layer)
        (view / f"f{number}").write_bytes(b"x")
        driver.put(layer)
        parent = layer
    numbers = itertools.count()

    def cycle() -> None:
        layer = f"cycle{lowers}-{next(numbers)}"
        driver.create_read_write(layer, parent)
        driver.get(layer)
        driver.put(layer)
        driver.remove(layer)

    title = f"create+get+put+remove, {lowers} lower{'s' * (lowers > 1)}"
    return Contest(title, (Contestant("overlay2", cycle),), milliseconds=milliseconds)


def _fresh(
    before: Callable[[], object], after: Callable[[], object]
) -> Callable[[], AbstractContextManager[object]]:
    return partial(hold, before, after)


def _drain(driver: Driver, layer: str) -> None:
    buffer = bytearray(_BUFFER)
    with driver.diff(layer, "") as stream:
        while stream.readinto(buffer):  # type: ignore[attr-defined]
            pass


def _shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


def _tarfile_create(tree: Path) -> None:
    with open("/dev/null", "wb") as sink, tarfile.open(fileobj=sink, mode="w|") as archive:
        archive.add(tree, ".")


def _tarfile_extract(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="fully_trusted")
