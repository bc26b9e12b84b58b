"""Rulings 14 to 16, 31 to 33, 38: markers and their targets, in every order, on both drivers."""

import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from graphdriver.errors import BadArchive
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

LOW = Tree.of({"a/x": b"ax", "b/x": b"bx", "d/e/z": b"z", "l/t": "../b", "s": "b", "top": b"top"})
NOTHING = Tree()
ASPECTS = Aspect.ALL & ~Aspect.DIRECTORY_MTIME & ~Aspect.ROOT


def _but(*gone: str, **there: object) -> Tree:
    tree = LOW
    for name in gone:
        tree = tree.without(name.encode())
    made = Tree.of(there)  # type: ignore[arg-type]
    return Tree({**tree, **{name: node for name, node in made.items() if name}})


def _file(name: str) -> LayerEntry:
    return entry_of(name, file(name.encode()))


def _dir(name: str) -> LayerEntry:
    return entry_of(name, directory())


def _link(name: str, target: str) -> LayerEntry:
    return entry_of(name, file(), target.encode())


DIRECTORY = directory()
# The result of these does not depend on the order of the members.
IN_ANY_ORDER: dict[str, tuple[list[LayerEntry], Tree]] = {
    "opaque root and whiteout": ([opaque(""), whiteout("b")], NOTHING),
    "opaque root and deep whiteout": ([opaque(""), whiteout("d/e/z"), whiteout("d")], NOTHING),
    # Found by the differential test: the oracle deleted b/x.
    "whiteout through a symlink whose directory is replaced": (
        [whiteout("l/t/x"), _file("l")],
        _but("l", l=b"l"),
    ),
    "opaque through a symlink whose directory is replaced by a hard link": (
        [opaque("l/t"), _link("l", "d/e/z"), whiteout("d")],
        _but("l", "d", l=b"z"),
    ),
    "whiteout through a symlink whose directory is deleted": (
        [whiteout("l/t/x"), whiteout("l")],
        _but("l"),
    ),
    "opaque root and members": (
        [opaque(""), whiteout("a/x"), _file("n"), _file("a/m")],
        Tree.of({"n": b"n", "a/m": b"a/m"}),
    ),
    "whiteout in an opaque directory": ([whiteout("a/x"), opaque("a")], _but("a/x")),
    "whiteout deep in one": ([whiteout("d/e/z"), opaque("d")], _but("d/e")),
    "opaque in an opaque directory": ([opaque("d/e"), opaque("d"), whiteout("d/e")], _but("d/e")),
    "opaque directory is deleted": ([opaque("d/e"), whiteout("d")], _but("d")),
    "members in a deleted directory": (
        [whiteout("d"), opaque("d/e"), _file("d/e/n")],
        _but("d", **{"d/e/n": b"d/e/n"}),
    ),
    "whiteout beside its directory": (
        [whiteout("d"), entry_of("d", directory(0o700)), whiteout("d/e")],
        _but("d", d=directory(0o700)),
    ),
    "whiteout in a new symlink": ([entry_of("a", symlink("b")), whiteout("a/x")], _but("a", a="b")),
    "opaque new symlink": ([entry_of("a", symlink("b")), opaque("a")], _but("a", a="b")),
    "whiteout in a replaced symlink": ([whiteout("s/x"), _dir("s")], _but("s", s=DIRECTORY)),
    "opaque replaced symlink": ([opaque("s"), entry_of("s", symlink("a"))], _but("s", s="a")),
    "whiteout in a deleted symlink": ([whiteout("s/x"), whiteout("s")], _but("s")),
    "whiteout in a symlink that stays": ([whiteout("s/x")], _but("b/x")),
    "opaque symlink that stays": ([opaque("s"), whiteout("top")], _but("b/x", "top")),
    "link to a deleted file": ([_link("h", "a/x"), whiteout("a/x")], _but("a/x", h=b"ax")),
    "link to a file in a deleted directory": (
        [_link("h", "d/e/z"), whiteout("d")],
        _but("d", h=b"z"),
    ),
    "two links to a deleted file": (
        [_link("h", "a/x"), _link("i", "a/x"), opaque("a")],
        Tree(
            {
                **_but("a/x"),
                b"h": file(b"ax").but(link=b"h"),
                b"i": file(b"ax").but(link=b"h"),
            }
        ),
    ),
    "links and an opaque root": ([_link("h", "a/x"), opaque("")], Tree.of({"h": b"ax"})),
    "whiteouts of nothing": ([whiteout("no/such"), opaque("no"), whiteout("top/x")], LOW),
}
# Here a member may precede the marker that deletes a symlink in its path.
OR_REFUSED: dict[str, tuple[list[LayerEntry], list[Tree]]] = {
    "member in a deleted symlink": (
        [_file("s/n"), whiteout("s")],
        [_but("s", **{"s/n": b"s/n"})],
    ),
    "members around a deleted symlink": (
        [_file("s/n"), whiteout("s"), _file("s/m")],
        [_but("s", **{"s/n": b"s/n", "s/m": b"s/m"})],
    ),
    "member in a symlink below an opaque root": (
        [_file("s/n"), opaque("")],
        [Tree.of({"s/n": b"s/n"})],
    ),
    "member in a replaced symlink": (
        [_file("s/n"), _dir("s"), _file("s/m")],
        [
            _but("s", **{"s/n": b"s/n", "s/m": b"s/m"}),
            _but("s", s=DIRECTORY, **{"s/m": b"s/m", "b/n": b"s/n"}),
            _but("s", s=DIRECTORY, **{"s/n": b"s/n", "b/m": b"s/m"}),
            _but("s", s=DIRECTORY, **{"b/m": b"s/m", "b/n": b"s/n"}),
        ],
    ),
}


class _Held(Overlay2):
    """overlay2 with layers held during apply_diff: archives are applied through the views."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        self.get(id)
        try:
            return super().apply_diff(id, parent, diff)
        finally:
            self.put(id)


FACTORIES: dict[str, Callable[[Path], Overlay2 | Vfs]] = {
    "overlay2": Overlay2,
    "overlay2, held": _Held,
    "overlay2, redirecting": lambda home: Overlay2(
        home, ["overlay2.mountopt=redirect_dir=on,metacopy=on,index=on,xino=on"]
    ),
    "vfs": Vfs,
}


@pytest.fixture(params=FACTORIES)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Overlay2 | Vfs]:
    made = FACTORIES[request.param](tmp_path / "home")
    made.create("low")
    made.apply_diff("low", "", io.BytesIO(build_archive(_entries(LOW))))
    yield made
    made.cleanup()


def _entries(tree: Tree) -> list[LayerEntry]:
    return [LayerEntry(name, tree[name]) for name in sorted(tree) if name]


def _applied(driver: Overlay2 | Vfs, id: str, entries: list[LayerEntry]) -> Tree:
    driver.create(id, "low")
    driver.apply_diff(id, "low", io.BytesIO(build_archive(entries)))
    view = driver.get(id)
    try:
        return observe(view)
    finally:
        driver.put(id)


@pytest.mark.parametrize("case", IN_ANY_ORDER)
def test_markers_hide_the_same_in_any_order(driver: Overlay2 | Vfs, case: str) -> None:
    entries, expected = IN_ANY_ORDER[case]
    for number, order in enumerate(itertools.permutations(entries)):
        names = [entry.name for entry in order]
        assert_same_tree(expected, _applied(driver, f"n{number}", [*order]), f"{names}", ASPECTS)


@pytest.mark.parametrize("case", OR_REFUSED)
def test_members_do_not_follow_a_deleted_symlink(driver: Overlay2 | Vfs, case: str) -> None:
    entries, expected = OR_REFUSED[case]
    for number, order in enumerate(itertools.permutations(entries)):
        try:
            tree = _applied(driver, f"n{number}", [*order])
        except BadArchive as error:
            refusal = str(error)
        else:
            assert tree.keys() in [one.keys() for one in expected], [entry.name for entry in order]
            continue
        assert "goes through the symlink b's'" in refusal, refusal
        assert order[0].name == b"s/n" or b"s/m" in [e.name for e in order[:2]], "it need not be"


def test_whiteouts_first_are_never_refused(driver: Overlay2 | Vfs) -> None:
    tree = _applied(driver, "n", [whiteout("s"), _file("s/n"), _file("s/m")])

    assert_same_tree(_but("s", **{"s/n": b"s/n", "s/m": b"s/m"}), tree, aspects=ASPECTS)


def test_member_after_its_symlink_was_replaced_is_in_the_directory(driver: Overlay2 | Vfs) -> None:
    tree = _applied(driver, "n", [_file("s/n"), _dir("s"), _file("s/m")])

    assert tree.children(b"s") == [b"s/m"]
    assert b"b/n" in tree


def test_hard_link_through_the_symlink_that_it_replaces(driver: Overlay2 | Vfs) -> None:
    """Found by the differential test: the cached path was used for later members."""
    link = _link("s", "s/x")

    assert _applied(driver, "n", [_file("s/n"), link])[b"s"].content == b"bx"
    with pytest.raises(BadArchive, match="b's' is no directory in the archive"):
        _applied(driver, "m", [_file("s/n"), link, _file("s/y")])


def test_hard_link_through_a_deleted_symlink(driver: Overlay2 | Vfs) -> None:
    tree = _applied(driver, "n", [whiteout("s/x"), whiteout("s"), _link("s", "s/x")])

    assert tree[b"s"].link == tree[b"b/x"].link == b"b/x"


def test_hard_link_replaces_a_lower_symlink_on_its_own_path(
    driver: Overlay2 | Vfs,
) -> None:
    """Found by the differential test: later members were resolved through the old symlink."""
    base = [entry_of("b/s", symlink(".")), entry_of("b/a", symlink("/d")), _dir("d")]
    driver.create("base")
    driver.apply_diff("base", "", io.BytesIO(build_archive(base)))
    driver.create("n", "base")
    entries = [_file("b/s/n"), _link("b/s/s", "b/s/a"), _file("b/s/y")]
    driver.apply_diff("n", "base", io.BytesIO(build_archive(entries)))
    view = driver.get("n")
    try:
        tree = observe(view)
    finally:
        driver.put("n")

    assert tree[b"b/s"].target == b"/d"
    assert {b"b", b"b/a", b"b/n", b"b/s", b"d", b"d/y"} == {name for name in tree if name}


@pytest.mark.parametrize(
    "names", [["a/.wh.x/y"], ["a/.wh.x/.wh.y"], [".wh.d/e/f"], ["a/.wh.x", "a/.wh.x/y"]]
)
def test_names_below_a_whiteout_are_refused(driver: Overlay2 | Vfs, names: list[str]) -> None:
    with pytest.raises(BadArchive, match="is below a whiteout") as caught:
        _applied(driver, "n", [_file(name) for name in names])

    assert repr(names[-1].encode()) in str(caught.value)


def test_hard_link_of_aufs_is_refused_by_that_name(driver: Overlay2 | Vfs) -> None:
    plnk = ".wh..wh.plnk"
    with pytest.raises(BadArchive, match="b'h' is a hard link of aufs"):
        _applied(driver, "n", [_dir(plnk), _file(f"{plnk}/1.2"), _link("h", f"{plnk}/1.2")])


def test_hard_link_to_the_file_that_it_replaces_is_refused(driver: Overlay2 | Vfs) -> None:
    """Found by the differential test: FileNotFoundError escaped."""
    with pytest.raises(BadArchive, match="b'd' is a hard link to b'd/n', which it replaces"):
        _applied(driver, "n", [_file("d/n"), _link("d", "d/n")])


def test_time_of_a_directory_that_became_a_symlink_is_not_that_of_its_target(
    driver: Overlay2 | Vfs,
) -> None:
    old = directory().but(mtime=1_000_000_000)
    new = directory().but(mtime=1_100_000_000)
    entries = [entry_of("d/e", new), entry_of("q/e", old), entry_of("d", symlink("q"))]

    assert _applied(driver, "n", entries)[b"q/e"].mtime == 1_000_000_000


def test_marker_of_a_second_archive_keeps_members_of_that_archive(driver: Overlay2 | Vfs) -> None:
    """Content of an earlier archive is treated like that of a lower layer."""
    driver.create("n", "low")
    first = [_file("a/one"), _file("two"), whiteout("top")]
    second = [opaque("a"), _file("a/three"), whiteout("two"), _file("top")]
    for entries in (first, second):
        driver.apply_diff("n", "low", io.BytesIO(build_archive(entries)))
    view = driver.get("n")
    try:
        tree = observe(view)
    finally:
        driver.put("n")

    expected = _but("a/x", "top", **{"a/three": b"a/three", "top": b"top"})
    assert_same_tree(expected, tree, aspects=ASPECTS)
