"""The home in which faults are tested: layers that must not change, and the acts.

An act is one verb on a layer of its own, the victim, with its preparation. Trees are compared with
the trees that the same driver showed without a fault.
"""

import io
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from graphdriver.contract import Capability, Driver
from graphdriver_conformance.drivers.resolve import OwnProcess
from graphdriver_conformance.faults.processes import start
from graphdriver_conformance.faults.supervisor import without_flushes
from graphdriver_conformance.fixture.program import shown_call, shown_result
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.environment import umount_below
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink
from graphdriver_conformance.suite.support.effort import is_thorough

__all__ = ["ACTS", "Act", "Log", "Scene", "Victim", "first_line", "names_below"]

_BASE = [
    entry_of("bin", directory()),
    entry_of("bin/su", file(b"#!", 0o4755)),
    entry_of("d", directory()),
    entry_of("d/a", file(b"a")),
    entry_of("etc", directory()),
    entry_of("etc/hosts", file(b"one\n")),
    entry_of("etc/passwd", file(b"root\n", 0o640, uid=3)),
    entry_of("gone", file(b"g")),
    entry_of("link", symlink("bin/su")),
]
_MIDDLE = [
    entry_of("d", directory()),
    opaque("d"),
    entry_of("d/c", file(b"c")),
    entry_of("etc", directory()),
    entry_of("etc/hosts", file(b"two\n")),
    whiteout("gone"),
    entry_of("new", directory(0o700)),
    entry_of("new/f", file(b"n", 0o600, uid=7, gid=8)),
]
_TOP = [
    entry_of("d", directory()),
    opaque("d"),
    entry_of("d/z", file(b"z")),
    entry_of("etc", directory()),
    entry_of("etc/v", file(b"v" * 5000)),
    # With an entry: without one some drivers change its mode, by one of their ways to unpack.
    entry_of("new", directory(0o700)),
    whiteout("new/f"),
    entry_of("vdir", directory(0o750)),
    entry_of("vdir/s", symlink("p")),
]
# The content of a layer before the archive _TOP is applied to it: some stays, some is replaced.
_OLDER = [
    entry_of("etc", directory()),
    entry_of("etc/v", file(b"old" * 3000)),
    entry_of("etc/w", file(b"kept")),
    entry_of("first", file(b"linked")),
    entry_of("second", file(), hardlink=b"first"),
    entry_of("vdir", directory(0o700)),
    entry_of("vdir/q", file(b"q")),
]
_LONGEST_LINE = 240
BASE, MIDDLE, TOP = "base", "middle", "top"
_LAYERS: dict[str, tuple[str, list[LayerEntry]]] = {
    BASE: ("", _BASE),
    MIDDLE: (BASE, _MIDDLE),
    TOP: (MIDDLE, _TOP),
}


@cache
def _archive(id: str) -> bytes:
    """Return a layer's archive; in a user namespace with one id all members are owned by root."""
    entries = _LAYERS[id][1]
    if not _can_change_owners():
        entries = [replace(one, node=replace(one.node, uid=0, gid=0)) for one in entries]
    return build_archive(entries)


def _can_change_owners() -> bool:
    with tempfile.TemporaryFile() as probe:
        try:
            os.fchown(probe.fileno(), 7, 8)
        except OSError:
            return False
    return True


class Log:
    """The calls and their results, as lines for a report."""

    def __init__(self, graphdriver: Subject) -> None:
        self.lines: list[str] = []
        self._graphdriver = graphdriver

    def call(self, driver: Driver, verb: str, *arguments: Any) -> Any:
        """Call a verb and record it."""
        shown = [one for one in arguments if not hasattr(one, "read")]
        line = shown_call(verb, shown if len(shown) == len(arguments) else [*shown, "ARCHIVE"])
        try:
            with self._graphdriver.busy_with(line):
                answer = getattr(driver, verb)(*arguments)
        except Exception as error:
            self.lines.append(f"{line}  # raises {first_line(error)}")
            raise
        result = shown_result(answer)
        self.lines.append(f"{line}  # {result}" if result else line)
        return answer

    def tree(self, driver: Driver, id: str) -> Tree:
        """Return the tree of a layer's view."""
        view = Path(self.call(driver, "get", id))
        try:
            return self._graphdriver.look_at(id, view)
        finally:
            self.call(driver, "put", id)


@dataclass(slots=True)
class Victim:
    """The layer of an act: its id and parent, and its trees before and after the act.

    None is an absent layer; `answer` is the expected result of a verb that only reads.
    """

    id: str
    parent: str = MIDDLE
    before: Tree | None = None
    after: Tree | None = None
    answer: Any = None


Prepare = Callable[["Scene", Log, Driver, Victim], None]


@dataclass(frozen=True, slots=True)
class Act:
    """One verb on a victim.

    `requirement` says in which state a kill may leave the victim. `needs` are capabilities without
    which there is no such act. A victim that `is_held` is mounted meanwhile: its tree cannot be
    exchanged as a whole, so that an error may leave a part of the archive in it (docs/crashes.md).
    One that `is_thorough` is left to the thorough profile.
    """

    verb: str
    prepare: Prepare
    arguments: Callable[[Victim], tuple[Any, ...]]
    requirement: str
    parent: str = MIDDLE
    is_quick: bool = False
    needs: frozenset[Capability] = frozenset()
    is_held: bool = False
    is_thorough: bool = False

    def shown(self, victim: Victim) -> str:
        """Return the call for a report."""
        given = ["ARCHIVE" if hasattr(one, "read") else one for one in self.arguments(victim)]
        return shown_call(self.verb, given).replace("'ARCHIVE'", "ARCHIVE")

    def call(self, log: Log, driver: Driver, victim: Victim) -> Any:
        """Call the verb; a stream is read to its end. Returns a comparable result."""
        answer = log.call(driver, self.verb, *self.arguments(victim))
        if self.verb == "diff":
            with answer as stream:
                return stream.read()
        if self.verb == "changes":
            return sorted((int(one.kind), bytes(one.path)) for one in answer)
        return None


@dataclass(slots=True)
class Scene:
    """A home with three layers that no fault may change, and a new victim for each fault."""

    graphdriver: Subject
    place: Path = Path()
    trees: Mapping[str, Tree] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    shown_empty: Tree = field(default_factory=Tree)
    older: Tree = field(default_factory=Tree)
    """The tree of a layer on MIDDLE after the archive _OLDER; see there."""
    renewed: Tree = field(default_factory=Tree)
    """The tree of that layer after _TOP as well."""
    skips_flushes: bool = True
    """Whether drivers need not wait for the disk, which is so where no power cut follows."""
    _count: int = 0

    @property
    def home(self) -> Path:
        """The home, in a directory of its own, so that remnants beside it are detected."""
        return self.place / "home"

    def build(self) -> None:
        """Create a new home with its layers, and use the driver so that its initial files exist.

        Raises the driver's exceptions.
        """
        self.place = self.new_place()
        log = Log(self.graphdriver)
        process, driver = self.started()
        try:
            for id, (parent, _) in _LAYERS.items():
                log.call(driver, "create", id, parent)
                log.call(driver, "apply_diff", id, parent, io.BytesIO(_archive(id)))
            self.trees = {id: log.tree(driver, id) for id in _LAYERS}
            log.call(driver, "create", "empty")
            self.shown_empty = log.tree(driver, "empty")
            log.call(driver, "remove", "empty")
            if is_thorough():
                self._check_renewed(log, driver)
            log.call(driver, "create_read_write", "warm", MIDDLE)
            log.call(driver, "get", "warm")
            log.call(driver, "put", "warm")
            log.call(driver, "remove", "warm")
            log.call(driver, "cleanup")
        finally:
            process.end()
        self.names = names_below(self.place)

    def _check_renewed(self, log: Log, driver: Driver) -> None:
        log.call(driver, "create", "renewed", MIDDLE)
        log.call(driver, "apply_diff", "renewed", MIDDLE, io.BytesIO(build_archive(_OLDER)))
        self.older = log.tree(driver, "renewed")
        log.call(driver, "apply_diff", "renewed", MIDDLE, self.archive(MIDDLE))
        self.renewed = log.tree(driver, "renewed")
        log.call(driver, "remove", "renewed")

    def new_place(self) -> Path:
        """Create the directory for the next home."""
        if self._count:
            umount_below(self.place)
        self._count += 1
        place = self.graphdriver.home.parent / f"faults-{self._count}"
        place.mkdir()
        return place

    def start(self) -> OwnProcess:
        """Start a process that nobody supervises and that can make the driver."""
        return start(self.graphdriver.source, without_flushes if self.skips_flushes else None)

    def started(self) -> tuple[OwnProcess, Driver]:
        """Start an unsupervised driver on the home."""
        process = self.start()
        try:
            return process, self.init(process, Log(self.graphdriver))
        except BaseException:
            process.end()
            raise

    def init(self, process: OwnProcess, log: Log, home: Path | None = None) -> Driver:
        """Create the driver in a process that was started for it."""
        log.lines.append("driver = init(HOME)")
        with self.graphdriver.busy_with("init(HOME)"):
            return process.init(home or self.home, self.graphdriver.options)

    def tree_of_parent(self, parent: str) -> Tree:
        """Return the tree of a new layer on `parent`."""
        return self.trees[parent] if parent else self.shown_empty

    def archive(self, parent: str) -> io.BytesIO:
        """Return an archive for a layer on `parent`."""
        return io.BytesIO(_archive(TOP if parent else BASE))

    def tree_when_applied(self, parent: str) -> Tree:
        """Return the tree of a layer on `parent` after that archive was applied to it."""
        return self.trees[TOP if parent else BASE]


def first_line(error: BaseException) -> str:
    """Return the first line of an error: Go's programs may print the stacks of all goroutines."""
    lines = str(error).splitlines() or [""]
    return lines[0][:_LONGEST_LINE] + (" ..." if len(lines) > 1 else "")


def names_below(directory: Path) -> frozenset[str]:
    """Return the relative paths of everything below a directory, with a slash after directories.

    Mounts are not entered.
    """
    found: list[str] = []
    device = os.lstat(directory).st_dev
    skipped = len(str(directory)) + 1
    todo = [str(directory)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                name = entry.path[skipped:]
                found.append(f"{name}/" if is_directory else name)
                if is_directory and entry.stat(follow_symlinks=False).st_dev == device:
                    todo.append(entry.path)
    return frozenset(found)


def _nothing(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    victim.after = scene.tree_of_parent(victim.parent)


def _created(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    log.call(driver, "create", victim.id, victim.parent)
    victim.before = scene.tree_of_parent(victim.parent)
    victim.after = scene.tree_when_applied(victim.parent)


def _created_and_held(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    _created(scene, log, driver, victim)
    log.call(driver, "get", victim.id)


def _created_and_filled(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    _created(scene, log, driver, victim)
    log.call(driver, "apply_diff", victim.id, victim.parent, io.BytesIO(build_archive(_OLDER)))
    victim.before, victim.after = scene.older, scene.renewed


def _applied(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    _created(scene, log, driver, victim)
    archive = scene.archive(victim.parent)
    log.call(driver, "apply_diff", victim.id, victim.parent, archive)
    victim.before, victim.after = victim.after, None


def _applied_to_stay(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    _applied(scene, log, driver, victim)
    victim.after = victim.before


def _writable(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    log.call(driver, "create_read_write", victim.id, victim.parent)
    victim.before = victim.after = scene.tree_of_parent(victim.parent)


def _held_and_written(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    _writable(scene, log, driver, victim)
    view = Path(log.call(driver, "get", victim.id))
    (view / "written").write_bytes(b"w")
    (view / "etc" / "hosts").unlink()
    log.lines.append(f"write 'written' and delete 'etc/hosts' in the view of {victim.id!r}")
    victim.before = victim.after = scene.graphdriver.look_at(victim.id, view)


def _written(scene: Scene, log: Log, driver: Driver, victim: Victim) -> None:
    _held_and_written(scene, log, driver, victim)
    log.call(driver, "put", victim.id)
    victim.after = None


def _id(victim: Victim) -> tuple[Any, ...]:
    return (victim.id,)


def _id_and_parent(victim: Victim) -> tuple[Any, ...]:
    return (victim.id, victim.parent) if victim.parent else (victim.id,)


def _and_base(victim: Victim) -> tuple[Any, ...]:
    return victim.id, BASE


def _and_archive(victim: Victim) -> tuple[Any, ...]:
    archive = io.BytesIO(_archive(TOP if victim.parent else BASE))
    return victim.id, victim.parent, archive


def _none(victim: Victim) -> tuple[Any, ...]:
    return ()


_ATOMIC_CREATE, _ATOMIC_APPLY, _ATOMIC_REMOVE = "CRS-005", "CRS-006", "CRS-007"
_UNCHANGED = "CRS-008"
_CHANGES = frozenset({Capability.CHANGES})

ACTS: Mapping[str, Act] = {
    "create_base": Act("create", _nothing, _id, _ATOMIC_CREATE, ""),
    "create_child": Act("create", _nothing, _id_and_parent, _ATOMIC_CREATE, is_quick=True),
    "create_writable": Act("create_read_write", _nothing, _id_and_parent, _ATOMIC_CREATE),
    "apply_base": Act("apply_diff", _created, _and_archive, _ATOMIC_APPLY, ""),
    "apply_child": Act("apply_diff", _created, _and_archive, _ATOMIC_APPLY, is_quick=True),
    "apply_held": Act("apply_diff", _created_and_held, _and_archive, _ATOMIC_APPLY, is_held=True),
    "apply_again": Act(
        "apply_diff", _created_and_filled, _and_archive, _ATOMIC_APPLY, is_thorough=True
    ),
    "remove_base": Act("remove", _applied, _id, _ATOMIC_REMOVE, ""),
    "remove_child": Act("remove", _applied, _id, _ATOMIC_REMOVE, is_quick=True),
    "remove_written": Act("remove", _written, _id, _ATOMIC_REMOVE),
    "get": Act("get", _writable, _id, _UNCHANGED, is_quick=True),
    "put": Act("put", _held_and_written, _id, _UNCHANGED, is_quick=True),
    "cleanup": Act("cleanup", _held_and_written, _none, _UNCHANGED),
    "diff": Act("diff", _applied_to_stay, _id_and_parent, _UNCHANGED),
    "diff_grandparent": Act("diff", _applied_to_stay, _and_base, _UNCHANGED),
    "changes": Act("changes", _applied_to_stay, _id_and_parent, _UNCHANGED, needs=_CHANGES),
}
"""Every verb that can change a home, with its usual arguments."""
