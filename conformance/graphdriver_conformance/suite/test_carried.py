"""DIF-052 to DIF-057: losses in archives that tests of single files do not detect.

The root directory, new hard links to files of the parent, deletions above a recreated directory,
and spellings of hard link targets.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import (
    build_archive,
    entry_of,
    read_archive,
)
from graphdriver_conformance.oracle.changes import change_findings
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import EPOCH, Node, Tree, directory, fifo, file, symlink
from graphdriver_conformance.suite.support.attributes import held_by_home

IMAGE = Tree.of({"etc/hosts": b"one\n", "kept": b""})
_ROOT = Aspect.MODE | Aspect.OWNER | Aspect.XATTRS | Aspect.DIRECTORY_MTIME | Aspect.ROOT


def _root_only(tree: Tree) -> Tree:
    return Tree({b"": tree[b""]})


@verifies("DIF-052")
@pytest.mark.parametrize("mode", [0o555, 0o1777, 0o2750])
def test_metadata_of_the_root_is_carried(graphdriver: Subject, mode: int) -> None:
    """The mode of / changed by a Dockerfile was missing in the image."""
    _carry_root(graphdriver, directory(mode, uid=7, gid=8, mtime=EPOCH + 99))


@verifies("DIF-056")
def test_user_attributes_of_the_root_are_carried(graphdriver: Subject) -> None:
    """user.* xattrs of / are in the image."""
    _carry_root(graphdriver, directory(xattrs=held_by_home(graphdriver, "user")))


@verifies("DIF-057")
def test_access_control_lists_of_the_root_are_carried(graphdriver: Subject) -> None:
    """setfacl of / gives a user access; after a pull on another host the access is lost."""
    # The group bits of the mode are the mask of the ACL.
    _carry_root(graphdriver, directory(0o674, xattrs=held_by_home(graphdriver, "acl")))


def _carry_root(graphdriver: Subject, root: Node) -> None:
    base = graphdriver.build(IMAGE)
    layer = graphdriver.build(Tree({**IMAGE, b"": root}), base)
    wanted = Tree({b"": root})
    _assert_root(graphdriver, layer, wanted, "the layer that was written")

    sibling = graphdriver.new_layer(base)
    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
    _assert_root(graphdriver, sibling, wanted, "after diff and apply_diff")
    child = _root_only(graphdriver.tree(graphdriver.new_layer(sibling)))
    # A new layer has its own mtime.
    assert_same_tree(wanted, child, "the root, in a child of that", _ROOT ^ Aspect.DIRECTORY_MTIME)

    if graphdriver.claims(Capability.FLATTENED_DIFF):
        whole = graphdriver.new_layer()
        graphdriver.apply_diff(whole, "", graphdriver.diff_bytes(layer))
        _assert_root(graphdriver, whole, wanted, "after the whole archive")


def _assert_root(graphdriver: Subject, id: str, wanted: Tree, when: str) -> None:
    shown = _root_only(graphdriver.tree(id))
    assert_same_tree(wanted, shown, f"the root, {when}", _ROOT)


@verifies("DIF-052")
def test_metadata_of_the_root_in_an_archive(graphdriver: Subject) -> None:
    """The member is `./`; without it the layer keeps the metadata of its parent's root."""
    first, second = directory(0o711, uid=1, gid=2), directory(0o1555, uid=3, gid=4)
    base = graphdriver.new_layer()
    graphdriver.apply_diff(base, "", build_archive([entry_of("./", first), entry_of("a", file())]))
    _assert_root(graphdriver, base, Tree({b"": first}), "after a member ./")

    layer = graphdriver.new_layer(base)
    graphdriver.apply_diff(
        layer, base, build_archive([entry_of("b", file()), entry_of("./", second)])
    )
    _assert_root(graphdriver, layer, Tree({b"": second}), "after ./ as the last member")

    kept = graphdriver.new_layer(base)
    graphdriver.apply_diff(kept, base, build_archive([entry_of("b", file())]))
    shown = graphdriver.tree(kept)[b""]
    assert (shown.mode, shown.uid, shown.gid) == (first.mode, 1, 2), "without a member ./"


_LINKED = Tree.of(
    {
        "one": file(b"1"),
        "two": file(b"2", 0o4755),
        "three": file(b"3"),
        "four": file(b"4"),
        "pipe": fifo(),
        "symlink": symlink("one"),
        "d/deep": file(b"deep", 0o640),
    }
)


def _link(root: Path, old: str, *new: str) -> None:
    for name in new:
        os.link(root / old, root / name, follow_symlinks=False)


def _link_and_remove(root: Path) -> None:
    _link(root, "two", "two-b", "d/two-c")
    (root / "two").unlink()


def _link_and_write(root: Path) -> None:
    _link(root, "three", "three-b")
    (root / "three-b").write_bytes(b"written")


def _rename_and_link(root: Path) -> None:
    (root / "four").rename(root / "d/four")
    _link(root, "d/four", "four-b")


_WAYS: Mapping[str, Callable[[Path], None]] = {
    "one new name": lambda root: _link(root, "one", "d/one-b"),
    "two, and the old one removed": _link_and_remove,
    "one, and written through it": _link_and_write,
    "one, after a rename": _rename_and_link,
    "of a fifo": lambda root: _link(root, "pipe", "pipe-b", "pipe-c"),
    "of a symlink": lambda root: _link(root, "symlink", "d/symlink-b"),
    "of a file in a directory": lambda root: _link(root, "d/deep", "d/a", "top"),
}


@verifies("DIF-053")
def test_new_names_of_lower_files_are_one_file(graphdriver: Subject) -> None:
    """ln in a Dockerfile: each name became a separate file, and chmod changed only one."""
    base = graphdriver.build(_LINKED)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        for make in _WAYS.values():
            make(root)
    wanted = graphdriver.tree(layer)
    for names in (("one", "d/one-b"), ("two-b", "d/two-c"), ("d/deep", "d/a", "top")):
        groups = {wanted[name.encode()].link for name in names}
        assert len(groups) == 1, f"in the view {', '.join(names)} are not one file: {groups}"
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    aspects = Aspect.DEFAULT | Aspect.HARDLINKS
    assert_same_tree(wanted, graphdriver.tree(sibling), "after diff and apply_diff", aspects)


# The depth of the deleted directory, and of the recreated one.
_DEPTHS = [(1, 2), (1, 3), (2, 3)]
_GROUPS = ("at-once", "in-two-layers", "below-a-third")


def _path(group: str, gone: int, depth: int, made: int) -> str:
    """Return a directory of depth `depth` from the tree of one case."""
    return "/".join([f"{group}-{gone}-{made}", "b", "c"][:depth])


def _old_tree() -> Tree:
    nodes: dict[str | bytes, Node | bytes | str] = {}
    for group in _GROUPS:
        for gone, made in _DEPTHS:
            for depth in (1, 2, 3):
                nodes[f"{_path(group, gone, depth, made)}/old-{depth}"] = b"old"
    return Tree.of(nodes)


def _deleted(tree: Tree, group: str) -> Tree:
    for gone, made in _DEPTHS:
        tree = tree.without(_path(group, gone, gone, made).encode())
    return tree


def _made_again(tree: Tree, group: str) -> Tree:
    for gone, made in _DEPTHS:
        for depth in range(gone, made + 1):
            tree = tree.with_(_path(group, gone, depth, made).encode(), directory())
        tree = tree.with_(f"{_path(group, gone, made, made)}/new".encode(), file(b"new"))
    return tree


def _delete(root: Path, group: str) -> None:
    for gone, made in _DEPTHS:
        shutil.rmtree(root / _path(group, gone, gone, made))


def _make_again(root: Path, group: str) -> None:
    for gone, made in _DEPTHS:
        deepest = root / _path(group, gone, made, made)
        deepest.mkdir(parents=True)
        (deepest / "new").write_bytes(b"new")
        os.utime(deepest / "new", (EPOCH, EPOCH))


@verifies("DIF-054")
def test_directories_deleted_above_one_that_is_there_again(graphdriver: Subject) -> None:
    """rm -r a, mkdir -p a/b: an exporter checked a/b only for the mark, and a/b/foo reappeared.

    The directory is deleted and recreated in one layer, in two, and below a third one that adds
    entries; at each depth.
    """
    once, twice, third = _GROUPS
    trees = [_old_tree()]
    ids = [graphdriver.build(trees[0])]
    for step in range(3):
        layer = graphdriver.new_layer(ids[-1], writable=True)
        tree = trees[-1]
        with graphdriver.view(layer) as root:
            for group in {0: (third,), 1: (twice,), 2: (once,)}[step]:
                _delete(root, group)
                tree = _deleted(tree, group)
            for group in {0: (third,), 1: (), 2: (once, twice)}[step]:
                _make_again(root, group)
                tree = _made_again(tree, group)
            if step == 2:
                for gone, made in _DEPTHS:
                    name = f"{_path(third, gone, made, made)}/later"
                    (root / name).write_bytes(b"later")
                    os.utime(root / name, (EPOCH, EPOCH))
                    tree = tree.with_(name.encode(), file(b"later"))
            assert_same_tree(tree, observe(root), f"the view of layer {step}")
        ids.append(layer)
        trees.append(tree)
    _assert_archives(graphdriver, ids, trees)


def _assert_archives(graphdriver: Subject, ids: list[str], trees: list[Tree]) -> None:
    """Every archive of the top layer, and a sibling built from it, results in the same tree."""
    top, tree = ids[-1], trees[-1]
    assert_same_tree(tree, graphdriver.tree(top), "the top layer, mounted again")
    for parent, below in zip(ids[:-1], trees[:-1], strict=True):
        entries = read_archive(graphdriver.diff_bytes(top, parent))
        assert_same_tree(tree, apply_layer(below, entries), f"diff against {parent}")
    if graphdriver.claims(Capability.FLATTENED_DIFF):
        entries = read_archive(graphdriver.diff_bytes(top))
        assert_same_tree(tree, apply_layer(Tree(), entries), "diff without a parent")
    if graphdriver.claims(Capability.CHANGES):
        found = change_findings(trees[-2], tree, graphdriver.changes(top, ids[-2]))
        assert found == [], "changes"
    sibling = graphdriver.new_layer(ids[-2])
    graphdriver.apply_diff(sibling, ids[-2], graphdriver.diff_bytes(top, ids[-2]))
    assert_same_tree(tree, graphdriver.tree(sibling), "after diff and apply_diff")


@verifies("DIF-055")
@pytest.mark.parametrize("target", ["/d/one", "./d/one", "d/one", "d/./one"])
def test_targets_of_hard_links_are_relative_to_the_root(graphdriver: Subject, target: str) -> None:
    """Some builders write targets with a leading slash; Docker 29.7 refused their images."""
    content = file(b"content", 0o640)
    entries = [
        entry_of("d/one", content),
        entry_of("two", content, hardlink=target.encode()),
        entry_of("d/three", content, hardlink=target.encode()),
    ]
    layer = graphdriver.new_layer(graphdriver.build(IMAGE))

    graphdriver.apply_diff(layer, graphdriver.parent_of(layer), build_archive(entries))

    wanted = Tree.of({"d/one": content, "two": content, "d/three": content})
    wanted = Tree({**IMAGE, **wanted})
    assert_same_tree(wanted, graphdriver.tree(layer), f"hard links to {target}")
