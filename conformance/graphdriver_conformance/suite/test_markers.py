"""DIF-036 to DIF-040 and WHT-016: combinations of whiteouts, opaque markers and other members.

The sets are small, so that each pair is tested in both orders; larger combinations are random.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import (
    Dialect,
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.strategies import dialects
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink
from graphdriver_conformance.suite.support.batches import (
    Case,
    applied,
    assert_cases,
    assert_cases_or_twice,
    cases_of,
    look,
    refused_cases,
)
from graphdriver_conformance.suite.support.effort import examples
from graphdriver_conformance.suite.support.names import assert_same_names

Archive = tuple[LayerEntry, ...]

NEW = file(b"new")
# e2 is not part of e, although its name begins with e.
LOW = Tree.of({"d/x": b"x", "d/e/z": b"z", "d/e2": b"e2", "f": b"f", "s": "d"})
MARKERS = [
    whiteout("d"),
    whiteout("d/x"),
    whiteout("d/e"),
    whiteout("d/e/z"),
    opaque("d"),
    opaque("d/e"),
]
MEMBERS = [
    entry_of("d/x", NEW),
    entry_of("d/n", NEW),
    entry_of("d", directory(0o700)),
    entry_of("d/e", directory(0o700)),
    entry_of("d/e/n", NEW),
    entry_of("d", NEW),
]
LINKS = [entry_of("h", file(), b"d/x"), entry_of("d/h", file(), b"d/e/z")]
OF_A_FILE = [whiteout("f"), whiteout("f/q"), opaque("f")]
OVER_A_FILE = [entry_of("f", NEW), entry_of("f", directory()), entry_of("f/q", NEW)]
# Each alone; the last names only begin or end like markers.
SINGLE = [
    whiteout("s"),
    whiteout("n"),
    whiteout("d/n"),
    whiteout("n/o/p"),
    opaque("n"),
    entry_of("d/.wh..wh..opqX", file()),
    entry_of("d/.wh..wh..op", file()),
    entry_of("d/.wh..wh.aufs", file()),
    entry_of(".wh..wh..opq.d", file()),
    whiteout("d/x."),
    whiteout("d/.x"),
    entry_of("d/.whx", NEW),
    entry_of("d/.wh", NEW),
    entry_of("d/wh.x", NEW),
    entry_of("d/x.wh.", NEW),
]


def _pairs(some: Sequence[LayerEntry], others: Sequence[LayerEntry]) -> Iterator[Archive]:
    """Yield each pair of one of `some` and one of `others`, in both orders."""
    for one, other in itertools.product(some, others):
        yield one, other
        yield other, one


def _singles(entries: Iterable[LayerEntry]) -> Iterator[Archive]:
    return ((entry,) for entry in entries)


@verifies("DIF-036")
def test_pairs_of_markers_and_members(graphdriver: Subject) -> None:
    """Each marker twice, with each other marker, and with each member, in both orders."""
    archives = [
        *_singles(SINGLE),
        *_pairs(MARKERS, MARKERS),
        *_pairs(MARKERS, MEMBERS),
        *_pairs(OF_A_FILE, [*OF_A_FILE, *OVER_A_FILE]),
    ]

    assert_cases(graphdriver, cases_of(LOW, archives))


@verifies("DIF-036")
@given(seed=st.integers(0, 2**32), dialect=dialects())
@examples(15)
def test_mixes_of_markers_and_members(graphdriver: Subject, seed: int, dialect: Dialect) -> None:
    """Three to six in any order, twelve combinations in one archive."""
    chance = random.Random(seed)
    pool = [*MARKERS, *MARKERS, *MEMBERS, *OF_A_FILE, *OVER_A_FILE, *SINGLE]
    mixes = [chance.sample(pool, chance.randint(3, 6)) for _ in range(12)]

    cases = cases_of(LOW, filter(_is_a_tree, mixes))

    assert_cases_or_twice(graphdriver, cases, dialect=dialect)


def _is_a_tree(entries: Sequence[LayerEntry]) -> bool:
    """Return whether no member is below a non-directory: such an archive may be refused."""
    members = [entry for entry in entries if not _is_marker(entry)]
    solid = {entry.name for entry in members if not entry.node.is_directory}
    return all(
        entry.name.rpartition(b"/")[0] not in solid and entry.name.split(b"/")[0] not in solid
        for entry in members
        if b"/" in entry.name
    )


def _is_marker(entry: LayerEntry) -> bool:
    return entry.name.rpartition(b"/")[2].startswith(b".wh.")


ROOT = [
    [whiteout("d")],
    [whiteout("d/x"), whiteout("d")],
    [opaque("d"), entry_of("d/n", NEW)],
    [whiteout("d/x"), entry_of("d", directory(0o700)), whiteout("f")],
]


@verifies("DIF-036")
@pytest.mark.parametrize("is_last", [False, True], ids=["before", "after"])
def test_whiteouts_beside_an_opaque_root(graphdriver: Subject, is_last: bool) -> None:
    """A path with a whiteout is deleted, whether the opaque root is applied or not."""
    for entries in ROOT:
        layer, case = _with_root(graphdriver, entries, is_last=is_last)

        gone = {entry.name.replace(b".wh.", b"") for entry in entries if _is_marker(entry)}
        back = gone & set(look(graphdriver, layer, case)) - set(case.wanted)
        assert back == set(), f"{case}: {sorted(back)} are back"


@verifies("DIF-031")
@pytest.mark.parametrize("is_last", [False, True], ids=["before", "after"])
def test_opaque_root_beside_other_markers(graphdriver: Subject, is_last: bool) -> None:
    """No file of a lower layer is visible, and no member is missing."""
    for entries in ROOT:
        layer, case = _with_root(graphdriver, entries, is_last=is_last)

        assert_same_tree(case.wanted, look(graphdriver, layer, case), str(case))


def _with_root(
    graphdriver: Subject, entries: list[LayerEntry], *, is_last: bool
) -> tuple[str, Case]:
    """Apply the entries and an opaque marker at the root to a layer on LOW."""
    whole = [*entries, opaque("")] if is_last else [opaque(""), *entries]
    layer = graphdriver.new_layer(graphdriver.build(LOW))
    graphdriver.apply_diff(layer, graphdriver.parent_of(layer), build_archive(whole))
    return layer, cases_of(LOW, [whole])[0]


# s and a point to d, t to a file.
LED = Tree.of({"d/x": b"x", "q/x": b"qx", "s": "d", "a": "/d", "t": "d/x"})
TO_DIRECTORIES = ("s", "a")


def _of_symlink(name: str) -> Iterator[Archive]:
    """Yield markers at and below a symlink, with members that replace the symlink."""
    markers = [whiteout(name), whiteout(f"{name}/x"), opaque(name)]
    replacements = [
        entry_of(name, directory()),
        entry_of(name, NEW),
        entry_of(name, symlink("q")),
    ]
    yield from _pairs(markers, replacements)
    yield from _pairs(markers, markers[:1])
    yield from _pairs(markers[1:], [whiteout("d/x"), opaque("d"), entry_of("d/x", NEW)])
    yield from _singles(markers[1:])


@verifies("DIF-037")
def test_markers_do_not_follow_symlinks_that_are_deleted(graphdriver: Subject) -> None:
    """A symlink of its own archive, or a lower one that the archive replaces or deletes."""
    archives = [one for name in TO_DIRECTORIES for one in _of_symlink(name)]
    made = [entry_of("d", symlink("q")), entry_of("d", symlink("/q"))]
    archives += _pairs(made, [whiteout("d/x"), opaque("d"), whiteout("d")])
    archives += [
        (entry_of("q/n", NEW), entry_of("q", directory()), entry_of("d", symlink("q")), marker)
        for marker in (whiteout("d/n"), opaque("d"))
    ]
    refused = refused_cases(graphdriver, cases_of(LED, archives))

    graphdriver.note(f"refused, which is allowed: {[str(case) for case in refused]}")


@verifies("DIF-037")
def test_whiteout_of_a_symlink_deletes_the_symlink(graphdriver: Subject) -> None:
    """The file or directory that it points to is not deleted."""
    archives = _singles(whiteout(name) for name in ("s", "a", "t"))

    assert_cases(graphdriver, cases_of(LED, archives))


REPLACING = [
    entry_of("s", directory()),
    whiteout("s"),
    entry_of("s", symlink("q")),
    entry_of("s", NEW),
    entry_of("s", file(), b"d/x"),
]


@verifies("DIF-038")
@pytest.mark.parametrize("target", ["d", "/d"])
def test_members_do_not_follow_a_replaced_symlink(graphdriver: Subject, target: str) -> None:
    """A member through the symlink, then its replacement, then a member below that.

    The first may be on either side, the last only on the new one.
    """
    low = LED.with_(b"s", symlink(target))
    base = graphdriver.build(low)
    first, last = entry_of("s/n", NEW), entry_of("s/m", NEW)
    for before, replacing in itertools.product((True, False), REPLACING):
        entries = [first, replacing, last] if before else [replacing, last]
        layer = graphdriver.new_layer(base)
        if not applied(graphdriver, layer, build_archive(entries)):
            continue
        shown = look(graphdriver, layer, Case(low, tuple(entries), low))
        ends = [name for name in shown if name.endswith(b"/m")]
        real = b"q/m" if replacing.node.target else b"s/m"
        what = " ".join(entry.name.decode() for entry in entries)
        assert ends == [real], f"{what}: s/m is at {ends}"


@verifies("DIF-039")
def test_hard_link_to_a_file_whose_name_is_deleted(graphdriver: Subject) -> None:
    """The new name has the content, the old one is deleted; or both orders are refused."""
    markers = [*MARKERS, entry_of("d/x", NEW), entry_of("d", NEW)]
    together = [one for one in _pairs(LINKS, markers) if b"d/h" not in (one[0].name, one[1].name)]
    together += [(*LINKS, marker) for marker in (whiteout("d/x"), whiteout("d/e"), opaque("d/e"))]
    cases = cases_of(LOW, together)

    refused = [case.entries for case in refused_cases(graphdriver, cases)]

    # Replacements differ: a member after one is a link to the new file.
    pairs = [one for one in refused if len(one) == 2 and any(map(_is_marker, one))]
    assert_same_names(
        {str(Case(LOW, entries[::-1], LOW)) for entries in pairs},
        {str(Case(LOW, entries, LOW)) for entries in pairs},
        "refused in one order and accepted in the other",
    )


@verifies("DIF-040")
def test_applied_layer_can_be_exported(graphdriver: Subject) -> None:
    """The layer's own archive, applied to its parent, results in the same tree."""
    archives = [*_pairs(MARKERS, MEMBERS), *_pairs(MARKERS[:3], MARKERS[3:])]
    cases = cases_of(LOW, archives[::4])
    layer = assert_cases(graphdriver, cases)
    parent = graphdriver.parent_of(layer)
    sibling = graphdriver.new_layer(parent)

    graphdriver.apply_diff(sibling, parent, graphdriver.diff_bytes(layer, parent))

    assert_same_tree(
        graphdriver.tree(layer), graphdriver.tree(sibling), "the sibling differs from the layer"
    )


@verifies("DIF-040")
@pytest.mark.parametrize(
    "names",
    [["d/.wh.x/y"], [".wh.d/e/z"], ["d/.wh.x", "d/.wh.x/y"], ["d/.wh.e/.wh.z"], ["n/.wh.o/p"]],
    ids=lambda names: str(names[-1]),
)
def test_names_below_a_whiteout(graphdriver: Subject, names: list[str]) -> None:
    """Refused or without effect: Docker created directories, and could not push the image."""
    layer = graphdriver.new_layer(graphdriver.build(LOW))
    parent = graphdriver.parent_of(layer)
    if not applied(graphdriver, layer, build_archive([entry_of(name, NEW) for name in names])):
        return
    shown = graphdriver.tree(layer)
    found = [name for name in shown if b".wh." in name]
    assert found == [], f"the view shows {found}"
    sibling = graphdriver.new_layer(parent)

    graphdriver.apply_diff(sibling, parent, graphdriver.diff_bytes(layer, parent))

    assert_same_tree(shown, graphdriver.tree(sibling), "the sibling differs from the layer")


@verifies("WHT-016")
def test_whiteouts_without_anything_below(graphdriver: Subject) -> None:
    """In a layer without a parent, in a child, and in opaque directories."""
    entries = [
        whiteout("top"),
        entry_of("d", directory()),
        whiteout("d/gone"),
        entry_of("d/n", NEW),
        entry_of("o", directory()),
        opaque("o"),
        whiteout("o/gone"),
        opaque("implied"),
        whiteout("implied/gone"),
        opaque("nowhere"),
        whiteout("nothing/gone"),
    ]
    wanted = Tree.of({"d": directory(), "d/n": NEW, "o": directory()})
    case = Case(Tree(), tuple(entries), wanted)
    base = graphdriver.new_layer()
    graphdriver.apply_diff(base, "", build_archive(entries))
    child = graphdriver.new_layer(base)
    graphdriver.apply_diff(child, base, build_archive(entries))

    for layer in (base, child, graphdriver.new_layer(child)):
        shown = look(graphdriver, layer, case)
        for name in (b"implied", b"nowhere", b"nothing"):
            # A directory without an entry and without content may exist or not.
            if name in shown and shown[name].is_directory:
                shown = shown.without(name) if not shown.children(name) else shown
        assert_same_tree(wanted, shown, f"in layer {layer}", Aspect.CONTENT)
