"""WHT: deletions in views."""

import errno
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.strategies import trees
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink
from graphdriver_conformance.suite.support.beside import mount_beside
from graphdriver_conformance.suite.support.effort import examples, scaled
from graphdriver_conformance.suite.support.names import assert_same_names
from graphdriver_conformance.suite.support.users import GROUP, USER, as_user

IMAGE = Tree.of({"d/a": b"a", "d/b": b"b", "d/sub/c": b"c", "top": b"top"})


def _on(graphdriver: Subject, tree: Tree = IMAGE) -> str:
    return graphdriver.new_layer(graphdriver.build(tree), writable=True)


@verifies("WHT-001")
@given(data=st.data(), tree=trees())
@examples(15)
def test_deleted_names_are_gone(graphdriver: Subject, data: st.DataObject, tree: Tree) -> None:
    """In the layer, in its children, and after a restart."""
    layer = _on(graphdriver, tree)
    names = sorted(name for name in tree if name)
    gone = data.draw(st.sampled_from(names)) if names else b""
    wanted = tree.without(gone).canonical() if gone else tree

    graphdriver.fill(layer, wanted)
    child = graphdriver.new_layer(layer)

    assert_same_tree(wanted, graphdriver.tree(layer), f"after deleting {gone!r}")
    assert_same_tree(wanted, graphdriver.tree(child), f"in a child, after deleting {gone!r}")
    if graphdriver.claims(Capability.RESTARTABLE):
        graphdriver.reopen()
        assert_same_tree(wanted, graphdriver.tree(child), f"after a restart, {gone!r} deleted")


@verifies("WHT-002")
def test_directory_made_again_is_empty(graphdriver: Subject) -> None:
    """rm -r d; mkdir d."""
    layer = _on(graphdriver)
    wanted = Tree.of({"d": directory(), "top": b"top"})

    graphdriver.fill(layer, Tree.of({"top": b"top"}))
    graphdriver.fill(layer, wanted)

    assert_same_tree(wanted, graphdriver.tree(layer))
    assert_same_tree(wanted, graphdriver.tree(graphdriver.new_layer(layer)), "in a child")


@verifies("WHT-003")
def test_hidden_content_stays_hidden(graphdriver: Subject) -> None:
    """Three layers write, hide and rewrite the same directory; a fourth adds to the second."""
    first = graphdriver.build(Tree.of({"d/old": b"1", "d/both": b"1"}))
    second = graphdriver.new_layer(first, writable=True)
    graphdriver.fill(second, Tree())
    graphdriver.fill(second, Tree.of({"d/hidden": b"2", "d/both": b"2"}))
    third = graphdriver.new_layer(second, writable=True)
    graphdriver.fill(third, Tree())
    wanted = Tree.of({"d/new": b"3"})
    graphdriver.fill(third, wanted)

    assert_same_tree(wanted, graphdriver.tree(third))
    assert_same_tree(wanted, graphdriver.tree(graphdriver.new_layer(third)), "in a child")

    # Linux before 4.8 copied the opaque xattr of the second layer up, which then hid that layer.
    fourth = graphdriver.new_layer(second, writable=True)
    wanted = Tree.of({"d/hidden": b"2", "d/both": b"2", "d/more": b"4"})
    graphdriver.fill(fourth, wanted)
    assert_same_tree(wanted, graphdriver.tree(fourth), "in a child that writes there")


@verifies("WHT-004")
def test_types_can_change(graphdriver: Subject) -> None:
    """Each file type replaces each other type."""
    kinds = [file(b"f"), directory(), symlink("top")]
    for old in kinds:
        for new in kinds:
            layer = _on(
                graphdriver, Tree.of({"x": old, **({"x/y": b"y"} if old.is_directory else {})})
            )
            wanted = Tree.of({"x": new, **({"x/z": b"z"} if new.is_directory else {})})
            graphdriver.fill(layer, Tree())
            graphdriver.fill(layer, wanted)
            what = f"a {old.kind.value} became a {new.kind.value}"
            assert_same_tree(wanted, graphdriver.tree(layer), what)


@verifies("WHT-005")
@given(present=st.lists(st.booleans(), min_size=2, max_size=8))
@examples(8)
def test_alternate_deletion_and_creation(graphdriver: Subject, present: list[bool]) -> None:
    """The same name at two depths."""
    layer = ""
    for number, there in enumerate(present):
        content = b"%d" % number
        tree = Tree.of({"x": content, "d/e/x": content}) if there else Tree.of({"d/e": directory()})
        layer = graphdriver.build(tree, layer)
        assert_same_tree(tree, graphdriver.tree(layer), f"at layer {number}")


@verifies("WHT-006")
def test_whiteouts_do_not_show(graphdriver: Subject) -> None:
    """Not in the layer, nor in its children; and the name can be created again by rename."""
    layer = _on(graphdriver)
    graphdriver.fill(layer, Tree.of({"d/b": b"b"}))
    above = graphdriver.new_layer(graphdriver.new_layer(layer), writable=True)

    for id in (layer, above):
        with graphdriver.view(id) as root:
            shown = sorted(path.name for path in root.rglob("*"))
            assert_same_names(["b", "d"], shown, "the listing")
            assert not (root / "top").exists()
    with graphdriver.view(above) as root:
        (root / "d" / "b").rename(root / "top")
    wanted = Tree.of({"d": directory(), "top": b"b"})
    assert_same_tree(wanted, graphdriver.tree(above), "after the rename", Aspect.CONTENT)


@verifies("WHT-007")
def test_longest_name_can_be_deleted(graphdriver: Subject) -> None:
    """Also through an archive, in which the whiteout's name exceeds the maximum length."""
    name = b"x" * 255
    base = graphdriver.build(Tree.of({name: b"", b"other": b""}))
    layer = graphdriver.build(Tree.of({"other": b""}), base)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    for id in (layer, sibling):
        assert_same_names({b"", b"other"}, graphdriver.tree(id), "the layer")


@verifies("WHT-008")
def test_users_whiteout_named_file_deletes_nothing(graphdriver: Subject) -> None:
    """The view refuses the name, diff refuses the file, or apply_diff does not delete the other."""
    base = graphdriver.build(Tree.of({"precious": b"data"}))
    layer = graphdriver.new_layer(base, writable=True)
    sibling = graphdriver.new_layer(base)
    try:
        with graphdriver.view(layer) as root:
            (root / ".wh.precious").touch()
        archive = graphdriver.diff_bytes(layer, base)
        graphdriver.apply_diff(sibling, base, archive)
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")

    assert b"precious" in graphdriver.tree(sibling), "a user's file .wh.NAME deleted another file"


@verifies("WHT-009")
def test_rename_over_a_lower_file(graphdriver: Subject) -> None:
    """Names of the layer itself and of its lowers."""
    layer = _on(graphdriver, Tree.of({"a": b"a", "b": b"b", "c": b"c"}))
    with graphdriver.view(layer) as root:
        (root / "new").write_bytes(b"new")
        (root / "new").rename(root / "a")
        (root / "c").rename(root / "b")

    wanted = Tree.of({"a": b"new", "b": b"c"})
    assert_same_tree(wanted, graphdriver.tree(layer), "after the renames", Aspect.CONTENT)


@verifies("WHT-010")
def test_directory_of_deleted_files_can_be_removed(graphdriver: Subject) -> None:
    """In the layer that deleted them, and in its child."""
    layer = _on(graphdriver, Tree.of({"d/a": b"", "e/a": b""}))
    with graphdriver.view(layer) as root:
        (root / "d/a").unlink()
        (root / "d").rmdir()
        (root / "e/a").unlink()
    above = graphdriver.new_layer(layer, writable=True)
    with graphdriver.view(above) as root:
        (root / "e").rmdir()

    assert_same_names({b""}, graphdriver.tree(above), "the layer")


@verifies("WHT-011")
def test_new_file_in_place_of_a_deleted_one(graphdriver: Subject) -> None:
    """Owned by user 1000 after a chown by root, and created by that user."""
    layer = _on(graphdriver, Tree.of({"a": file(b"old", 0o600)}))
    wanted = Tree.of({"a": file(b"new", 0o640, uid=1000, gid=1001)})

    graphdriver.fill(layer, Tree())
    graphdriver.fill(layer, wanted)

    assert_same_tree(wanted, graphdriver.tree(layer))

    layer = _on(graphdriver, Tree.of({"d": directory(0o777), "d/a": file(b"old", 0o600)}))
    create = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with graphdriver.view(layer) as root:
        (root / "d/a").unlink()
        as_user(lambda place: os.close(os.open(place / "a", create, 0o640)))(root / "d")
        made = (root / "d/a").lstat()
    assert (stat.S_IMODE(made.st_mode), made.st_uid, made.st_gid) == (0o640, USER, GROUP)


@verifies("WHT-012")
def test_listing_while_deleting(graphdriver: Subject) -> None:
    """Names of the lower and of the layer, deleted during a listing."""
    count = scaled(400)
    layer = _on(graphdriver, Tree.of({f"d/low{n}": b"" for n in range(count)}))
    with graphdriver.view(layer) as root:
        for number in range(count):
            (root / "d" / f"up{number}").touch()
        seen: set[str] = set()
        with os.scandir(root / "d") as entries:
            for entry in entries:
                if entry.name in seen:
                    raise AssertionError(f"{entry.name} was deleted and is listed again")
                seen.add(entry.name)
                os.unlink(entry.path)
        left = os.listdir(root / "d")

    assert set(left).isdisjoint(seen), "a deleted name is listed again"


@verifies("WHT-013")
def test_same_name_elsewhere_is_untouched(graphdriver: Subject) -> None:
    """x in the root, in d, and in d/d."""
    layer = _on(graphdriver, Tree.of({"x": b"1", "d/x": b"2", "d/d/x": b"3"}))
    wanted = Tree.of({"d/x": b"2", "d/d/x": b"3"})

    graphdriver.fill(layer, wanted)

    assert_same_tree(wanted, graphdriver.tree(layer))


@verifies("WHT-014")
def test_directory_rename_loses_nothing(graphdriver: Subject) -> None:
    """A lower directory, a new one, and one with both old and new entries."""
    layer = _on(graphdriver)
    with graphdriver.view(layer) as root:
        (root / "d/new").write_bytes(b"new")
        (root / "fresh").mkdir()
        (root / "fresh/file").write_bytes(b"file")
        _move(root / "fresh", root / "moved")
        _move(root / "d", root / "e")

    tree = graphdriver.tree(layer)
    where = b"e" if b"e" in tree else b"d"
    wanted = {where + b"/" + name for name in (b"a", b"b", b"sub", b"sub/c", b"new")}
    assert wanted <= set(tree), f"lost in the rename: {wanted - set(tree)}"
    assert b"moved/file" in tree or b"fresh/file" in tree, "the new directory's file is lost"
    assert not {b"d", b"e"} <= set(tree), "both names exist"
    child = graphdriver.tree(graphdriver.new_layer(layer))
    assert_same_tree(tree, child, "in a child", Aspect.DEFAULT)


def _move(old: Path, new: Path) -> None:
    try:
        old.rename(new)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the program copies instead
            raise


@verifies("WHT-015")
def test_deletion_on_a_full_disk(graphdriver: Subject) -> None:
    """A whiteout needs an inode; without one the file keeps its current content, not the
    lower one.
    """
    disk = mount_beside(graphdriver, "tmpfs", "nr_inodes=200,mode=755")
    try:
        graphdriver.use(graphdriver.open_another(disk / "home"))
    except (DriverError, OSError) as error:
        graphdriver.not_provable(f"the driver's home cannot be on a tmpfs that is full: {error}")
    layer = _on(graphdriver, Tree.of({"f": b"old", "other": b"other"}))
    with graphdriver.view(layer) as root:
        (root / "f").write_bytes(b"new")
        fillers = _use_up_inodes(disk)
        gone = {name for name in (b"f", b"other") if _unlinked(root / name.decode())}
    for filler in fillers:
        filler.unlink()

    wanted = Tree.of({"f": b"new", "other": b"other"})
    for name in gone:
        wanted = wanted.without(name)
    message = f"unlink reported success for {sorted(gone)}"
    assert_same_tree(wanted, graphdriver.tree(layer), message, Aspect.CONTENT)


def _use_up_inodes(disk: Path) -> list[Path]:
    made: list[Path] = []
    try:
        for number in range(1000):
            path = disk / f"filler-{number}"
            path.touch()
            made.append(path)
    except OSError:
        return made
    raise RuntimeError("a tmpfs of 200 inodes held 1000 files")


def _unlinked(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
