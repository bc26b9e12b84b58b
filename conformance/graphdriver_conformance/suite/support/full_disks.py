"""Verbs on a disk with decreasing free space for their writes."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graphdriver.errors import DriverError
from graphdriver_conformance.drivers import NoAnswer
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import build_archive, entry_of, whiteout
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.tree import Tree, file, symlink
from graphdriver_conformance.suite.support.beside import directory_beside
from graphdriver_conformance.suite.support.disks import CannotMake
from graphdriver_conformance.suite.support.effort import by_profile
from graphdriver_conformance.suite.support.names import home_names, settled_names
from graphdriver_conformance.suite.support.small_disks import Resource, SmallDisk, small_disk

__all__ = [
    "APPLY_DIFF",
    "BASE",
    "CREATE",
    "GET",
    "VERBS",
    "Attempt",
    "DiskScene",
    "Verb",
    "disk_scene",
]

_LONG = b"0123456789" * 450
BASE = Tree.of(
    {
        "etc/hosts": b"one\n",
        "gone": b"gone",
        "lib/a": file(_LONG, 0o755),
        "lib/sub/b": b"b",
        "link": symlink("lib/a"),
    }
)
"""The tree of the base layer."""
_KEPT = Tree.of({"etc/hosts": b"two\n", "lib/a": file(_LONG, 0o755), "lib/new": b"new"})
_OWN = BASE.with_(b"own", file(b"own"))
_ENTRIES = [
    whiteout("gone"),
    entry_of("etc/hosts", file(b"three\n")),
    *(entry_of(f"lib/{name}", file(_LONG, 0o4755)) for name in ("c", "d", "e")),
    entry_of("lib/sub/link", symlink("../c")),
    entry_of("lib/hard", file(b"", 0o4755), b"lib/c"),
]
_ARCHIVE = build_archive(_ENTRIES)

# The numbers of free blocks or inodes, until a verb succeeds.
_FEW = (0, 1, 2, 4, 8, 16, 32, 64, 128)
_MORE = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128)
_SIZES = by_profile(_FEW, _MORE, (*range(48), *range(48, 129, 8)))


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb that needs space: its preparation, the call, and the tree after it."""

    name: str
    prepare: Callable[[Subject, str], str]
    """Prepare a layer on a base; return its id."""
    call: Callable[[Subject, str, str], None]
    """Call it for an id and its parent."""
    before: Tree | None
    """The tree of the layer if the verb fails; None for no layer."""
    after: Tree


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call of a verb with little free space: the call in words, and its error if any.

    `names` and `mounts` are those of the home before the call.
    """

    call: str
    layer: str
    error: DriverError | OSError | None
    names: set[str]
    mounts: list[str]


@dataclass(frozen=True, slots=True)
class DiskScene:
    """A driver on a small disk, with a base and a child of it that do not change."""

    graphdriver: Subject
    disk: SmallDisk
    base: str
    kept: str

    def attempts(self, verb: Verb, resource: Resource) -> Iterator[Attempt]:
        """Call a verb with increasing free space, until it succeeds; yield with the disk full."""
        driver = self.graphdriver
        for count in _SIZES:
            layer = verb.prepare(driver, self.base)
            names, mounts = home_names(driver.home), driver.mounts()
            self.disk.leave(resource, count)
            error = self._call(verb, layer)
            call = f"{verb.name} with {count} {resource.value} left"
            yield Attempt(call, layer, error, names, mounts)
            self.disk.free_space()
            if error is None and verb is GET:
                driver.put(layer)
            # Some drivers refuse to remove what they have not made.
            if error is None or verb.before is not None or driver.exists(layer):
                driver.remove(layer)
            if error is None:
                return
        driver.not_provable(f"{verb.name} needs more than {_SIZES[-1]} {resource.value}")

    def assert_others_whole(self, after: str) -> None:
        """Raise AssertionError if an unrelated layer has changed."""
        assert_same_tree(BASE, self.graphdriver.tree(self.base), f"the parent after {after}")
        assert_same_tree(_KEPT, self.graphdriver.tree(self.kept), f"another layer after {after}")

    def _call(self, verb: Verb, layer: str) -> DriverError | OSError | None:
        try:
            verb.call(self.graphdriver, layer, self.base)
        except NoAnswer:
            raise
        except (DriverError, OSError) as error:
            return error
        return None


@contextmanager
def disk_scene(graphdriver: Subject, type: str) -> Iterator[DiskScene]:
    """Let the driver use a small disk of a type for the block; it has free space at its end."""
    point = directory_beside(graphdriver, "small")
    try:
        disk = small_disk(type, point)
    except CannotMake as error:
        graphdriver.not_provable(str(error))
    try:
        graphdriver.move(point / "home")
    except (DriverError, OSError) as error:
        graphdriver.not_provable(f"the driver's home cannot be on a small {type}: {error}")
    before = disk.used()
    base = graphdriver.build(BASE)
    kept = graphdriver.build(_KEPT, base)
    if disk.used() < before + len(BASE):
        graphdriver.not_provable("the driver does not keep its layers on the disk of its home")
    try:
        settled_names(graphdriver)
        yield DiskScene(graphdriver, disk, base, kept)
    finally:
        disk.free_space()


def _new(graphdriver: Subject, base: str) -> str:
    return graphdriver.new_id("layer")


def _with_content(graphdriver: Subject, base: str) -> str:
    return graphdriver.build(_OWN, base)


def _empty(graphdriver: Subject, base: str) -> str:
    return graphdriver.new_layer(base, writable=True)


CREATE = Verb(
    "create_read_write", _new, lambda g, id, base: g.create_read_write(id, base), None, BASE
)
APPLY_DIFF = Verb(
    "apply_diff",
    _with_content,
    lambda g, id, base: _ignore(g.apply_diff(id, base, io.BytesIO(_ARCHIVE))),
    _OWN,
    apply_layer(_OWN, _ENTRIES),
)
GET = Verb("get", _empty, lambda g, id, base: _ignore(g.get(id)), BASE, BASE)
VERBS = {verb.name: verb for verb in (CREATE, APPLY_DIFF, GET)}


def _ignore(_: object) -> None:
    """Drop an answer."""
