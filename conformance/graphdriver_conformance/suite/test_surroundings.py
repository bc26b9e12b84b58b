"""INI-015 to INI-019, CLN-011, CLN-012, LIF-030, MNT-029: effects of the home's environment.

The same sequence of verbs, with the checks of LIF-002, LIF-004, DIF-002, DIF-004 and ARC-009, is
run in each environment (docs/rulings.md, 34).
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.drivers import NoAnswer
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host import mountinfo
from graphdriver_conformance.host.mountinfo import mounts_below
from graphdriver_conformance.host.own_work import SuiteError, own_work
from graphdriver_conformance.host.syscalls import MountFlag
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    read_archive,
    whiteout,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import (
    Node,
    NodeKind,
    Tree,
    device,
    directory,
    fifo,
    file,
    symlink,
)
from graphdriver_conformance.suite.support.attributes import ATTRIBUTES
from graphdriver_conformance.suite.support.beside import bind_mounted, directory_beside
from graphdriver_conformance.suite.support.surroundings import (
    INHERITED,
    UMASKS,
    Surrounding,
    mounted_tmpfs,
    temporary_files_in,
    umask,
)

IMAGE = Tree.of(
    {
        "etc/hosts": b"one\n",
        "etc/shadow": file(b"", 0o600),
        "bin/su": file(b"#!", 0o4755),
        "bin/wall": file(b"#!", 0o2755),
        "tmp": directory(0o1777),
        "shared": directory(0o2775),
        "shared/notes": file(b"", 0o666),
        "pipe": fifo(0o622),
        "link": "etc/hosts",
    }
)
# Bytes in a file of each layer on a full disk, and how much a driver may write for a removal.
_WRITTEN, _BOOKS = 50_000, 16_384
# Without times: files that are created in a view have the current time.
_ASPECTS = Aspect.MODE | Aspect.OWNER | Aspect.CONTENT | Aspect.XATTRS | Aspect.ROOT
_OF_ROOT: dict[bytes, Node] = {
    b"null": device(NodeKind.CHARACTER, 1, 3, 0o666),
    b"disk": device(NodeKind.BLOCK, 259, 7, 0o640),
    b"ping": file(b"#!", 0o755, xattrs=ATTRIBUTES["capability"]),
}


def _members(*, of_root: bool) -> list[LayerEntry]:
    """Return a layer with one member of each type, and with implied directories."""
    return [
        entry_of("opt", directory(0o777)),
        entry_of("opt/app/run", file(b"#!", 0o6755)),
        entry_of("opt/data", file(b"x" * 5000, 0o664)),
        entry_of("opt/link", symlink("data")),
        entry_of("opt/pair", file(b"x" * 5000, 0o664), hardlink=b"opt/data"),
        entry_of("opt/pipe", fifo(0o666)),
        entry_of("made/here", directory(0o1777)),
        whiteout("etc/hosts"),
        *(entry_of(b"opt/" + name, node) for name, node in _OF_ROOT.items() if of_root),
    ]


@dataclass(frozen=True, slots=True)
class _Life:
    """Layers that are created, filled, read, copied and removed in a home described by `where`."""

    graphdriver: Subject
    home: Path
    where: str
    of_root: bool = False

    def live(self) -> None:
        """Raise AssertionError if a layer is affected by the environment of the home."""
        own = self.graphdriver.driver
        self.graphdriver.use(self.graphdriver.open_another(self.home))
        # Some drivers bind their home onto itself.
        made_by_init = {row.point for row in mounts_below(self.home)}
        base = self._base()
        self._container(base)
        carried = self._carried(base)
        self._held(carried)
        left = [str(row) for row in mounts_below(self.home) if row.point not in made_by_init]
        assert left == [], f"with {self.where}, mounts are left although every get was put"
        self.graphdriver.remove(carried)
        assert not self.graphdriver.exists(carried), f"with {self.where}, remove left the layer"
        self.graphdriver.cleanup()
        assert list(map(str, mounts_below(self.home))) == [], f"with {self.where}, mounts are left"
        self.graphdriver.use(own)

    def _base(self) -> str:
        """Create a layer of IMAGE and return it; its root must be as in any home."""
        base = self.graphdriver.new_layer()
        root = self._root()
        empty = self.graphdriver.tree(base).without(b"lost+found")
        self._same(Tree({b"": root}), empty, "a new layer")
        self.graphdriver.fill(base, self._image())
        self._same(self._image(), self.graphdriver.tree(base), "a filled layer")
        return base

    def _container(self, base: str) -> None:
        """Create a file and a directory in a child's view, as a program does."""
        layer = self.graphdriver.new_layer(base, writable=True)
        made = Tree({b"made": directory(0o755), b"made/file": file(b"", 0o644)})
        with self.graphdriver.view(layer) as root:
            with umask(0o022):
                (root / "made").mkdir()
                (root / "made/file").touch()
            self._same(Tree({**made, **self._image()}), observe(root), "the view of a child")

    def _carried(self, base: str) -> str:
        """Apply an archive on `base`, copy the layer by diff, and return the copy."""
        entries = _members(of_root=self.of_root)
        wanted = apply_layer(self._image(), entries)
        layer = self.graphdriver.new_layer(base)
        self.graphdriver.apply_diff(layer, base, build_archive(entries))
        shown = self.graphdriver.tree(layer)
        for implied in (b"opt/app", b"made"):
            found = shown.get(implied)
            assert found is not None, f"with {self.where}, /{implied.decode()} is missing"
            assert found.mode & 0o755 == 0o755, (
                f"with {self.where}, the implied /{implied.decode()} has mode {found.mode:o}"
            )
            wanted = wanted.with_(implied, wanted[implied].but(mode=found.mode))
        self._same(wanted, shown, "an applied archive")
        archive = self.graphdriver.diff_bytes(layer, base)
        self._same(wanted, apply_layer(self._image(), read_archive(archive)), "its diff")
        if self.graphdriver.claims(Capability.FLATTENED_DIFF):
            whole = apply_layer(Tree({b"": self._root()}), self._flattened(layer))
            self._same(wanted, whole, "its whole archive")
        return layer

    def _flattened(self, layer: str) -> list[LayerEntry]:
        return read_archive(self.graphdriver.diff_bytes(layer))

    def _held(self, layer: str) -> None:
        """Hold a view twice; after one put it still exists."""
        first, again = self.graphdriver.get(layer), self.graphdriver.get(layer)
        self.graphdriver.put(layer)
        assert again == first, f"with {self.where}, a second get returned another path"
        assert (again / "opt/data").exists(), f"with {self.where}, a held view does not exist"
        self.graphdriver.put(layer)

    def _root(self) -> Node:
        return directory(self.graphdriver.root_mode)

    def _image(self) -> Tree:
        return Tree({**IMAGE, b"": self._root()})

    def _same(self, expected: Tree, actual: Tree, what: str) -> None:
        assert_same_tree(expected, actual, f"with {self.where}, {what}", _ASPECTS)


@verifies("INI-015")
@pytest.mark.parametrize("what", INHERITED)
def test_metadata_of_directories_above_is_not_inherited(graphdriver: Subject, what: str) -> None:
    """An ACL on the data root gave a user access to all files of all containers."""
    _use_in(graphdriver, what, INHERITED[what])


@verifies("INI-016")
@pytest.mark.parametrize("what", UMASKS)
def test_umask_has_no_effect(graphdriver: Subject, what: str) -> None:
    """With the umask 027 of the daemon no ordinary user of a container could enter its root."""
    _use_in(graphdriver, what, UMASKS[what])


def _use_in(graphdriver: Subject, what: str, surrounding: Surrounding) -> None:
    with surrounding(graphdriver) as home:
        _Life(graphdriver, home, what).live()


@verifies("INI-017")
@pytest.mark.parametrize("where", ["above the home", "at the home"])
def test_disk_without_devices_setuid_and_programs(graphdriver: Subject, where: str) -> None:
    """Data disks are mounted nodev,nosuid,noexec, where the devices of an image were refused."""
    flags = MountFlag.NODEV | MountFlag.NOSUID | MountFlag.NOEXEC
    with mounted_tmpfs(graphdriver, graphdriver.home.parent / "disk", flags=flags) as point:
        home = point / "home" if where == "above the home" else point
        try:
            graphdriver.open_another(home).cleanup()
        except (DriverError, OSError) as error:
            graphdriver.note(f"refused: {error}")
            return
        _Life(graphdriver, home, f"nodev, nosuid, noexec {where}", of_root=True).live()


@verifies("INI-018")
def test_temporary_files_on_another_file_system(graphdriver: Subject) -> None:
    """A rename out of TMPDIR fails with EXDEV if /tmp is a tmpfs, as on most hosts."""
    place = graphdriver.home.parent
    with (
        mounted_tmpfs(graphdriver, place / "temporary") as temporary,
        temporary_files_in(temporary),
    ):
        graphdriver.program.line(f"TMPDIR={temporary}")
        _Life(graphdriver, place / "other", "TMPDIR on another file system").live()
        assert os.listdir(temporary) == [], "files are left in TMPDIR"


@verifies("INI-019")
@pytest.mark.parametrize("name", ["two  blanks", "line\u2028end", "cr\rtab\tnl\n#"])
def test_home_with_separators_of_the_mount_table(graphdriver: Subject, name: str) -> None:
    """If a reader of the mount table splits the path, the view is not found and not unmounted."""
    above = directory_beside(graphdriver, name)
    try:
        graphdriver.open_another(above / "home").cleanup()
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return
    _Life(graphdriver, above / "home", f"the name {name!r} above the home").live()


@contextlib.contextmanager
def _at_the_home(graphdriver: Subject, home: Path, how: str) -> Iterator[None]:
    """Make the home a mount point: of a disk, of itself, or of another directory."""
    if how == "a tmpfs":
        with mounted_tmpfs(graphdriver, home):
            yield
        return
    with own_work(f"make {home}"):
        home.mkdir()
    source = home if how == "itself" else directory_beside(graphdriver, "elsewhere")
    graphdriver.program.line(f"mount --bind {source} {home}")
    with bind_mounted(source, home):
        yield


@verifies("CLN-011")
@pytest.mark.parametrize("how", ["a tmpfs", "itself", "another directory"])
def test_mounts_of_others_stay(graphdriver: Subject, how: str) -> None:
    """The daemon's stop unmounted the disk of /var/lib/docker; the next start found no images."""
    home = graphdriver.home.parent / "mounted"
    own = graphdriver.driver
    with _at_the_home(graphdriver, home, how):
        if how == "a tmpfs":
            _use_disk(graphdriver, home, "that is a tmpfs")
        else:
            graphdriver.use(graphdriver.open_another(home))
        layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
        # Its name begins as the home's does.
        beside = home.with_name(f"{home.name}-too")
        with own_work("make directories for mounts of its own"):
            (home / "others").mkdir()
            beside.mkdir()
        with (
            mounted_tmpfs(graphdriver, beside),
            mounted_tmpfs(graphdriver, home / "others"),
        ):
            theirs = _mounts_of_others(home)
            graphdriver.get(layer)
            graphdriver.put(layer)
            _assert_there(theirs, home, "put")
            graphdriver.get(layer)
            graphdriver.cleanup()
            _assert_there(theirs, home, "cleanup")
            graphdriver.cleanup()
            _assert_there(theirs, home, "a second cleanup")
            if graphdriver.claims(Capability.RESTARTABLE):
                graphdriver.use(graphdriver.open_another(home))
                _assert_there(theirs, home, "Init")
            graphdriver.remove(graphdriver.new_layer(layer))
            _assert_there(theirs, home, "remove of a child")
        with own_work("remove the directory of its own mount"):
            (home / "others").rmdir()
            beside.rmdir()
        theirs = _mounts_of_others(home)
        if graphdriver.claims(Capability.RESTARTABLE):
            graphdriver.use(graphdriver.open_another(home))
            _assert_there(theirs, home, "Init")
            assert_same_tree(IMAGE, graphdriver.tree(layer), "after cleanup and a new Init")
        graphdriver.remove(layer)
        _assert_there(theirs, home, "remove")
        graphdriver.cleanup()
        _assert_there(theirs, home, "the last cleanup")
        graphdriver.use(own)


def _mounts_of_others(home: Path) -> dict[int, str]:
    """Return the mounts at the home and in the directory of other programs, by their ids."""
    points = {str(home), f"{home}-too", str(home / "others")}
    return {row.id: str(row) for row in mountinfo.read() if row.point in points}


def _assert_there(theirs: dict[int, str], home: Path, verb: str) -> None:
    there = {row.id for row in mountinfo.read()}
    ended = [shown for number, shown in theirs.items() if number not in there]
    assert ended == [], f"{verb} has unmounted mounts that the driver did not make"


def _use_disk(graphdriver: Subject, home: Path, what: str) -> None:
    """Let the verbs go to a driver on a disk of another kind; end the test where it refuses it.

    Some drivers work on one file system only, and some need more room for an index.
    """
    try:
        another = graphdriver.open_another(home)
    except NoAnswer:
        raise
    except (DriverError, OSError) as error:
        graphdriver.not_provable(f"Init refuses a home {what}: {error}")
    graphdriver.use(another)


@contextlib.contextmanager
def _small_disk(graphdriver: Subject) -> Iterator[Path]:
    """Use a home on a disk of 2 MiB and 600 inodes."""
    own = graphdriver.driver
    place, size = graphdriver.home.parent / "small", "size=2m,nr_inodes=600"
    with mounted_tmpfs(graphdriver, place, options=size) as disk:
        _use_disk(graphdriver, disk / "home", "on a tmpfs of 2 MiB")
        yield disk
        graphdriver.cleanup()
        graphdriver.use(own)


def _fill(graphdriver: Subject, disk: Path) -> None:
    """Use up the disk's blocks and inodes."""
    graphdriver.program.line(f"fill {disk} until ENOSPC, with bytes and with files")
    (disk / "filler").mkdir()
    numbers = itertools.count()
    # A daemon may free a block or an inode meanwhile.
    for _ in range(10):
        with (disk / "filler/bytes").open("ab", buffering=0) as opened:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        opened.write(b"x" * size)
        with contextlib.suppress(OSError):
            while True:
                os.mknod(disk / f"filler/{next(numbers)}")
        found = os.statvfs(disk)
        if (found.f_bavail, found.f_favail) == (0, 0):
            return
    raise SuiteError(f"{disk} has free space, although writing to it failed with ENOSPC")


def _written(graphdriver: Subject, count: int) -> list[str]:
    """Return held children of one base, each with a written file."""
    base = graphdriver.build(IMAGE)
    layers = [graphdriver.new_layer(base, writable=True) for _ in range(count)]
    for layer in layers:
        root = graphdriver.get(layer)
        (root / "data").write_bytes(b"y" * _WRITTEN)
        (root / "etc/hosts").unlink()
    return layers


def _make_space(disk: Path) -> None:
    with own_work(f"make space on {disk}"):
        shutil.rmtree(disk / "filler", ignore_errors=True)


def _assert_intact(graphdriver: Subject, disk: Path, layer: str) -> None:
    """Read the layer when there is free space again: the kernel needs some to mount an overlay."""
    _make_space(disk)
    shown = graphdriver.tree(layer)
    wanted = IMAGE.without(b"etc/hosts").with_(b"data", file(b"y" * _WRITTEN))
    assert_same_tree(wanted, shown, "the layer", Aspect.MODE | Aspect.CONTENT)


@verifies("MNT-029")
def test_put_on_a_full_disk(graphdriver: Subject) -> None:
    """containers-storage writes holds to a file: on a full disk it could not unmount."""
    with _small_disk(graphdriver) as disk:
        made_by_init = {row.point for row in mounts_below(disk)}
        (layer,) = _written(graphdriver, 1)
        graphdriver.get(layer)
        _fill(graphdriver, disk)

        graphdriver.put(layer)
        graphdriver.put(layer)

        left = [str(row) for row in mounts_below(disk) if row.point not in made_by_init]
        assert left == [], "mounts are left after the last put"
        _assert_intact(graphdriver, disk, layer)


@verifies("CLN-012")
def test_cleanup_on_a_full_disk(graphdriver: Subject) -> None:
    """A host with a full disk has to be shut down as well."""
    with _small_disk(graphdriver) as disk:
        layers = _written(graphdriver, 2)
        _fill(graphdriver, disk)

        graphdriver.cleanup()

        left = list(map(str, mounts_below(disk)))
        assert left == [], "mounts are left after cleanup"
        _make_space(disk)
        # A driver is not used between cleanup and its next start.
        graphdriver.use(graphdriver.open_another(disk / "home"))
        for layer in layers:
            _assert_intact(graphdriver, disk, layer)


@verifies("LIF-030")
def test_remove_on_a_full_disk(graphdriver: Subject) -> None:
    """Images are removed to free space, so the removal must not need any."""
    with _small_disk(graphdriver) as disk:
        first, second = _written(graphdriver, 2)
        for layer in (first, second):
            graphdriver.put(layer)
        _fill(graphdriver, disk)

        graphdriver.remove(first)

        assert not graphdriver.exists(first), "exists is true for the removed layer"
        found = os.statvfs(disk)
        free = found.f_bavail * found.f_frsize
        assert free >= _WRITTEN - _BOOKS, f"remove freed {free} bytes of {_WRITTEN}"
        _assert_intact(graphdriver, disk, second)
