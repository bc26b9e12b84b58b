"""LIF: creation and existence of layers; test_removal.py tests removal."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.program import shown_call
from graphdriver_conformance.fixture.subject import Subject, refusal
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.strategies import successors, trees
from graphdriver_conformance.oracle.tree import Tree, directory, file
from graphdriver_conformance.suite.support.beside import directory_beside
from graphdriver_conformance.suite.support.effort import examples
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)

PARENT = Tree.of({"etc/hosts": b"one\n", "bin/sh": file(b"#!", 0o755), "tmp": directory(0o1777)})
# "+" stands for an absolute path beside the home: no id here may be a path of the host.
PATHS = [
    *(".", "..", "a/b", "../escaped", "../new", "a/../../new", "../../new", "+/escaped", "+/new"),
    *("a\0b", "l", "x" * 300, "-rf", " ", "a\nb"),
]
EMPTY = Tree()
CANARY = Tree.of({"file": b"untouched", "inner": directory(0o750)})


def _assert_confined(graphdriver: Subject, id: str) -> None:
    """Call every verb with an id, and check the files outside the home after each call."""
    archive = build_archive([entry_of("new", file(b"x"))])
    calls: list[tuple[str, tuple[object, ...]]] = [
        *((verb, (id,)) for verb in ("exists", "get_metadata", "create", "create_read_write")),
        *((verb, (id,)) for verb in ("get", "put", "exists", "get_metadata", "remove")),
        ("apply_diff", (id, "", archive)),
        ("create", ("child-of-it", id)),
        ("create_read_write", (id, id)),
        ("remove", (id,)),
    ]
    before = _surroundings(graphdriver)
    for verb, arguments in calls:
        called = shown_call(verb, arguments)
        try:
            refusal(called, partial(getattr(graphdriver, verb), *arguments))
        finally:
            _assert_untouched(graphdriver, called, before)
    graphdriver.cleanup()
    _assert_untouched(graphdriver, "cleanup()", before)


def _assert_untouched(graphdriver: Subject, call: str, before: Mapping[str, object]) -> None:
    after = _surroundings(graphdriver)
    if before != after:
        raise AssertionError(f"{call} {_difference(before, after, graphdriver.home.parent)}")


def _surroundings(graphdriver: Subject) -> Mapping[str, object]:
    """Return the files around the home, two directories up, to which `..` and `../..` lead.

    Of the home itself only its existence, of all others everything that a verb could change.
    """
    home = os.fspath(graphdriver.home)
    found: dict[str, object] = {}
    todo = [os.path.dirname(os.path.dirname(home))]
    while todo:
        path = todo.pop()
        with suppress(FileNotFoundError):
            info = os.lstat(path)
            content, inner = b"", []
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb", buffering=0) as opened:
                    content = opened.read()
            elif stat.S_ISDIR(info.st_mode) and path != home:
                inner = [f"{path}/{name}" for name in os.listdir(path)]
            owned = () if path == home else (info.st_mode, info.st_uid, info.st_gid)
            found[path] = (info.st_ino, *owned, content)
            todo += inner
    return found


def _difference(before: Mapping[str, object], after: Mapping[str, object], start: Path) -> str:
    """Return a description of the files that were removed, created and changed.

    Paths are shown from `start` on.
    """
    names = {
        "removed": sorted(before.keys() - after.keys()),
        "made": sorted(after.keys() - before.keys()),
        "changed": sorted(
            name for name in before.keys() & after.keys() if before[name] != after[name]
        ),
    }
    shown = {verb: [os.path.relpath(one, start) for one in some] for verb, some in names.items()}
    return "; ".join(f"{verb} {', '.join(some)}" for verb, some in shown.items() if some)


@verifies("LIF-001")
def test_created_layer_exists(graphdriver: Subject) -> None:
    """exists decides whether an image is pulled again."""
    assert not graphdriver.exists("never-created"), "exists is true for an id that was not created"

    graphdriver.create("created")

    assert graphdriver.exists("created"), "exists is false for a layer just created"
    assert not graphdriver.exists("never-created"), "exists is true for an id that was not created"


@verifies("LIF-002")
def test_new_base_layer_is_an_empty_directory(graphdriver: Subject) -> None:
    """The layer of `FROM scratch`. containers-storage's root has Fedora's mode, 0555."""
    tree = graphdriver.tree(graphdriver.new_layer())

    held = sorted(set(tree) - {b"", b"lost+found"})
    assert not held, f"a new layer holds {held}"
    root = tree[b""]
    wanted = (graphdriver.root_mode, 0, 0)
    assert (root.mode, root.uid, root.gid) == wanted, f"its root is {root.mode:o} {root.uid}"


@verifies("LIF-003")
def test_base_layer_keeps_modes_and_owners(graphdriver: Subject) -> None:
    """graphtest's matrix: a sticky directory of 1:2, a setuid file without read permission."""
    wanted = Tree.of(
        {
            "a subdir": directory(0o1705, uid=1, gid=2),
            "a file": file(b"content", 0o4222, uid=0, gid=0),
        }
    )

    assert_same_tree(wanted, graphdriver.tree(graphdriver.build(wanted)))


@verifies("LIF-004")
@given(tree=trees())
@examples(20)
def test_child_shows_its_parents_tree(graphdriver: Subject, tree: Tree) -> None:
    """Otherwise a container does not have the files of its image."""
    parent = graphdriver.build(tree)
    child = graphdriver.new_layer(parent, writable=True)

    shown = graphdriver.tree(child)

    assert_same_tree(graphdriver.tree(parent), shown, "the child differs from its parent")
    assert_same_tree(tree, shown, "the child differs from the written tree")


@verifies("LIF-005")
@given(data=st.data(), tree=trees())
@examples(20)
def test_writing_in_a_child_does_not_change_the_parent(
    graphdriver: Subject, data: st.DataObject, tree: Tree
) -> None:
    """All containers of an image share its layers; a write in one has no effect on them."""
    parent = graphdriver.build(tree)
    child = graphdriver.new_layer(parent, writable=True)

    graphdriver.fill(child, data.draw(successors(tree)))

    assert_same_tree(
        tree, graphdriver.tree(parent), "the parent changed", Aspect.ALL & ~Aspect.ROOT
    )


@verifies("LIF-006")
@given(data=st.data(), tree=trees())
@examples(15)
def test_siblings_are_independent(graphdriver: Subject, data: st.DataObject, tree: Tree) -> None:
    """Two containers of one image run side by side."""
    parent = graphdriver.build(tree)
    first = graphdriver.new_layer(parent, writable=True)
    second = graphdriver.new_layer(parent, writable=True)
    wanted = data.draw(successors(tree))

    graphdriver.fill(first, wanted)

    assert_same_tree(tree, graphdriver.tree(second), "the sibling changed")
    assert_same_tree(wanted, graphdriver.tree(first), "the layer differs from the written tree")


@verifies("LIF-007")
def test_both_creates_make_readable_layers(graphdriver: Subject) -> None:
    """docker commit creates image layers on container layers, docker run the reverse."""
    base = graphdriver.build(PARENT)
    for first in (graphdriver.create, graphdriver.create_read_write):
        for second in (graphdriver.create, graphdriver.create_read_write):
            lower, upper = graphdriver.new_id(), graphdriver.new_id()
            first(lower, base)
            second(upper, lower)
            assert_same_tree(PARENT, graphdriver.tree(upper))


@verifies("LIF-008")
def test_create_on_an_unknown_parent_leaves_nothing(graphdriver: Subject) -> None:
    """In Docker the incomplete layer existed for the next pull, and its link was never removed."""
    before = settled_names(graphdriver)

    graphdriver.refuses("create", "orphan", "no-such-parent")
    graphdriver.refuses("create_read_write", "orphan", "no-such-parent")

    assert not graphdriver.exists("orphan"), "exists is true for the layer whose create failed"
    assert_same_names(before, home_names(graphdriver.home), "the failed create changed the home")


@verifies("LIF-009")
def test_create_of_an_existing_id_does_not_merge(graphdriver: Subject) -> None:
    """A repeated request must not mix two layers."""
    base = graphdriver.build(Tree.of({"base": b""}))
    graphdriver.create_read_write("twice")
    graphdriver.fill("twice", Tree.of({"old": b"old"}))

    try:
        graphdriver.create("twice", base)
        wanted = Tree.of({"base": b""})
    except (DriverError, OSError):
        wanted = Tree.of({"old": b"old"})

    assert_same_tree(wanted, graphdriver.tree("twice"), "the layer is mixed or destroyed")


@verifies("LIF-010")
def test_failing_create_keeps_an_existing_layer(graphdriver: Subject) -> None:
    """The cleanup of a failed create must not remove an existing layer."""
    id = graphdriver.build(PARENT)

    graphdriver.refuses("create", id, "no-such-parent")

    assert graphdriver.exists(id), "the failed create has removed the existing layer"
    assert_same_tree(PARENT, graphdriver.tree(id))


@verifies("LIF-011")
def test_layer_is_not_its_own_parent(graphdriver: Subject) -> None:
    """The chain would be endless."""
    graphdriver.refuses("create", "ouroboros", "ouroboros")

    assert not graphdriver.exists("ouroboros"), "exists is true for the layer whose create failed"


@verifies("LIF-012")
@pytest.mark.parametrize(
    "call",
    [
        ("create", ""),
        ("create_read_write", ""),
        ("get", ""),
        ("get_metadata", ""),
        ("diff", "", ""),
        ("changes", "", ""),
        ("diff_size", "", ""),
    ],
    ids=lambda call: call[0],
)
def test_empty_id_is_refused(graphdriver: Subject, call: tuple[str, ...]) -> None:
    """An unset variable must not refer to the whole home."""
    kept = graphdriver.build(PARENT)

    graphdriver.refuses(*call)

    assert not graphdriver.exists(""), "exists is true for the empty id"
    assert_same_tree(PARENT, graphdriver.tree(kept))


@verifies("LIF-012")
@pytest.mark.parametrize("verb", ["remove", "put"])
def test_removing_the_empty_id_removes_nothing(graphdriver: Subject, verb: str) -> None:
    """Docker's overlay2 deleted all layers (moby #36161)."""
    kept = graphdriver.build(PARENT)
    child = graphdriver.new_layer(kept)

    try:
        getattr(graphdriver, verb)("")
    except (DriverError, OSError):
        graphdriver.note("it was refused")

    assert graphdriver.exists(kept), f"{verb}('') has removed other layers"
    assert_same_tree(PARENT, graphdriver.tree(child))


@verifies("LIF-013")
@pytest.mark.parametrize("id", PATHS, ids=lambda id: ascii(id)[:12])
def test_ids_that_are_paths_stay_in_the_home(graphdriver: Subject, id: str) -> None:
    """Ids from registries were joined to a path without a check."""
    kept = graphdriver.build(PARENT)
    child = graphdriver.new_layer(kept)
    directory_beside(graphdriver, "escaped", CANARY)

    _assert_confined(graphdriver, id.replace("+", os.fspath(graphdriver.home.parent)))

    assert_same_tree(PARENT, graphdriver.tree(child), f"the id {id!r} damaged other layers")


@verifies("LIF-014")
@pytest.mark.parametrize(
    "id", ["0123456789abcdef" * 4, "0123456789abcdef" * 4 + "-init", "ABC", "a" * 128, "1_2.3-4"]
)
def test_ids_that_are_in_use_work(graphdriver: Subject, id: str) -> None:
    """64 hexadecimal digits are Docker's ids, -init is the suffix of its init layers."""
    base = graphdriver.build(PARENT)

    graphdriver.create_read_write(id, base)

    assert graphdriver.exists(id)
    assert_same_tree(PARENT, graphdriver.tree(id))
    graphdriver.remove(id)


@verifies("LIF-037")
def test_ids_that_differ_only_in_case(graphdriver: Subject) -> None:
    """A store on a case-insensitive file system has one directory for both."""
    base = graphdriver.build(PARENT)
    graphdriver.create_read_write("layer-of-one", base)

    assert not graphdriver.exists("Layer-Of-One"), "exists is true for an id in another case"
    if error := refusal("create", partial(graphdriver.create, "Layer-Of-One")):
        graphdriver.note(f"refused: {error}")
        assert not graphdriver.exists("Layer-Of-One"), "the refused layer exists"
    else:
        assert_same_tree(EMPTY, graphdriver.tree("Layer-Of-One"), "the second layer")
        graphdriver.remove("Layer-Of-One")
    assert graphdriver.exists("layer-of-one"), "the first layer is gone"
    assert_same_tree(PARENT, graphdriver.tree("layer-of-one"), "the first layer")


@verifies("LIF-023")
@given(data=st.data(), tree=trees())
@examples(10)
def test_layers_survive_a_restart(graphdriver: Subject, data: st.DataObject, tree: Tree) -> None:
    """The daemon is restarted, and its images still exist."""
    parent = graphdriver.build(tree)
    wanted = data.draw(successors(tree))
    child = graphdriver.build(wanted, parent)

    graphdriver.reopen()

    assert_same_tree(wanted, graphdriver.tree(child), "the child has changed")
    assert_same_tree(tree, graphdriver.tree(parent), "the parent has changed")


@verifies("LIF-024")
def test_childs_root_is_as_its_parents(graphdriver: Subject) -> None:
    """A child of an image whose root has mode 0711 must not have mode 0755."""
    parent = graphdriver.new_layer(writable=True)
    root = Tree({b"": directory(0o711, uid=1, gid=2)})
    graphdriver.fill(parent, root)
    child = graphdriver.new_layer(parent)

    for id in (child, graphdriver.new_layer(child, writable=True)):
        shown = graphdriver.tree(id)[b""]
        assert (shown.mode, shown.uid, shown.gid) == (0o711, 1, 2), (
            f"the root of {id} is {shown.mode:o} {shown.uid}:{shown.gid}, expected 711 1:2"
        )


@verifies("LIF-025")
@pytest.mark.parametrize(
    "option", [{"no-such-option": "1"}, {"size": "much"}, {"size": "-5G"}], ids=str
)
def test_bad_storage_option_is_refused(graphdriver: Subject, option: dict[str, str]) -> None:
    """A size limit that is silently ignored is worse than an error."""
    graphdriver.refuses("create_read_write", "limited", "", "", option)

    assert not graphdriver.exists("limited"), "the refused create has left a layer"


@verifies("LIF-026")
def test_no_storage_options_are_the_same_as_empty_ones(graphdriver: Subject) -> None:
    """Docker's client sends either, depending on the version."""
    graphdriver.create("none", "", "", None)
    graphdriver.create("empty", "", "", {})

    assert_same_tree(graphdriver.tree("none"), graphdriver.tree("empty"))
