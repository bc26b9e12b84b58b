"""DIF-041 to DIF-045: members of one archive with the same path, each pair in both orders.

An archive in which a path occurs twice, or a member replaces the target of a hard link, may be
refused; if it is accepted, the tree must be correct.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import LayerEntry, entry_of, whiteout
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.tree import (
    EPOCH,
    Node,
    Tree,
    directory,
    fifo,
    file,
    symlink,
)
from graphdriver_conformance.suite.support.attributes import (
    DEFAULT,
    named_acl,
    needs_attribute,
)
from graphdriver_conformance.suite.support.batches import (
    assert_cases,
    assert_cases_or_twice,
    cases_of,
    refused_cases,
)
from graphdriver_conformance.suite.support.effort import examples

# The files have one mode: whether a hard link's header changes the mode of its file is undefined.
LOW = Tree.of(
    {
        "a": directory(0o750),
        "a/b": file(b"lower", 0o640),
        "c": file(b"lower c", 0o640, mtime=EPOCH - 9),
        "s": "a",
    }
)
KINDS: list[Node] = [
    file(b"new", 0o640, mtime=EPOCH + 1),
    directory(0o1777, mtime=EPOCH + 2),
    symlink("c", mtime=EPOCH + 3),
    fifo(0o600, mtime=EPOCH + 4),
]
OTHER = file(b"other", 0o640, mtime=EPOCH + 5)
PROGRAM = file(b"program", 0o4755, mtime=EPOCH + 6)


def _link(name: str, target: str, node: Node) -> LayerEntry:
    """Return a hard link's entry; its header has the metadata of the file's own entry."""
    return entry_of(name, node.but(content=b"", link=b""), target.encode())


def _at(name: str) -> list[LayerEntry]:
    """Return a member of each type with a path."""
    target = "c" if name == "a" else "a/b"
    return [
        *(entry_of(name, node) for node in KINDS),
        _link(name, target, LOW[target.encode()]),
    ]


def _twice() -> Iterator[tuple[LayerEntry, ...]]:
    """Yield each type after each other for a path that is a lower directory, file, symlink, or new.

    The first of two directories has another mode.
    """
    for name in ("a", "c", "s", "n"):
        others = [entry_of(name, directory(0o700)), entry_of(name, PROGRAM)]
        yield from itertools.product([*_at(name), *others], _at(name))
        yield from itertools.product(_at(name), others)


def _nested() -> Iterator[tuple[LayerEntry, ...]]:
    """Yield a directory and its entries, in both orders, and replacements of a directory."""
    for above, name in (("a", "a/b"), ("n", "n/m"), ("s", "s/b"), ("c", "c/m")):
        made = entry_of(above, KINDS[1])
        for entry in _at(name):
            if entry.hardlink != name.encode():
                yield made, entry
                yield (entry, made) if above in ("a", "n") else (made, entry, made)
    for node in (KINDS[0], KINDS[2], KINDS[3]):
        yield entry_of("a/n", OTHER), entry_of("a", node)
        yield entry_of("n/m", OTHER), entry_of("n", node)
        yield entry_of("n", KINDS[1]), entry_of("n/m", OTHER), entry_of("n", node)


def _linked() -> Iterator[tuple[LayerEntry, ...]]:
    """Yield links and replacements of their targets."""
    made = entry_of("n", KINDS[0])
    link = _link("m", "n", KINDS[0])
    for node in (OTHER, *KINDS[1:]):
        yield made, link, entry_of("n", node)
        yield made, link, entry_of("m", node)
        yield made, link, _link("o", "m", KINDS[0]), entry_of("m", node)
        yield _link("n", "c", LOW[b"c"]), entry_of("c", node)
        yield _link("n", "a/b", LOW[b"a/b"]), entry_of("a", node)
    yield made, link, entry_of("n", OTHER), _link("o", "n", OTHER)
    yield made, link, entry_of("n", OTHER), _link("o", "m", KINDS[0])
    yield entry_of("c", OTHER), _link("n", "c", OTHER)
    yield made, entry_of("c", OTHER), _link("c", "n", KINDS[0])
    yield made, _link("a/b", "n", KINDS[0]), _link("c", "a/b", KINDS[0])


def _is_sound(entries: Sequence[LayerEntry]) -> bool:
    """Return whether no member is below a non-directory, or a link to a replaced file.

    Nor may the header of a link differ from the file's own.
    """
    solid: set[bytes] = set()
    last: dict[bytes, Node] = {}
    for entry in entries:
        above = entry.name.rpartition(b"/")[0]
        own = last.get(entry.hardlink or b"", entry.node)
        if (own.mode, own.mtime) != (entry.node.mode, entry.node.mtime):
            return False
        last[entry.name] = entry.node
        if above in solid or entry.hardlink == entry.name:
            return False
        if entry.hardlink is not None and entry.hardlink.startswith(entry.name + b"/"):
            return False
        solid.discard(entry.name)
        if not entry.node.is_directory or entry.hardlink is not None:
            solid.add(entry.name)
    return True


def _singles() -> Iterator[tuple[LayerEntry, ...]]:
    """Yield a member of each type alone with each path."""
    for name in ("a", "c", "s", "n"):
        yield from ((entry,) for entry in _at(name))


def _must_apply(entries: Sequence[LayerEntry]) -> bool:
    """Return whether no path is there twice, behind a symlink, or a link to a replaced file.

    Also no file or symlink replaces a directory with members.
    """
    names = [entry.name for entry in entries]
    replaced = [one for one in names if one in LOW]
    links = [entry.hardlink for entry in entries if entry.hardlink is not None]
    above = {entry.name.rpartition(b"/")[0] for entry in entries}
    return (
        _is_sound(entries)
        and len(set(names)) == len(names)
        and not any(name.startswith(b"s/") for name in names)
        and all(entry.node.is_directory for entry in entries if entry.name in above)
        and not any((link + b"/").startswith(one + b"/") for link in links for one in replaced)
    )


@verifies("DIF-041")
def test_two_members_of_each_kind(graphdriver: Subject) -> None:
    """Members with the same path, one in the other, and one linked to the other."""
    archives = filter(_is_sound, [*_twice(), *_nested(), *_linked()])

    refused = refused_cases(graphdriver, cases_of(LOW, archives))

    graphdriver.note(f"refused, which is allowed: {[str(case) for case in refused]}")


@verifies("DIF-041")
@given(seed=st.integers(0, 2**32))
@examples(10)
def test_three_members_of_each_kind(graphdriver: Subject, seed: int) -> None:
    """For the same paths, twenty archives at a time."""
    chance = random.Random(seed)
    pool = [entry for name in ("a", "c", "n", "a/b", "n/m") for entry in _at(name)]
    pool += [_link("m", "n", KINDS[0]), entry_of("a/b", OTHER), entry_of("n", OTHER)]
    archives = [chance.sample(pool, 3) for _ in range(40)]

    refused = refused_cases(graphdriver, cases_of(LOW, filter(_is_sound, archives))[:20])

    graphdriver.note(f"refused, which is allowed: {[str(case) for case in refused]}")


@verifies("DIF-040")
def test_layer_of_conflicting_members_can_be_exported(graphdriver: Subject) -> None:
    """The layer's own archive, applied to its parent, results in the same tree."""
    archives = filter(_must_apply, [*_singles(), *_nested(), *_linked()])
    layer = assert_cases(graphdriver, cases_of(LOW, archives))
    parent = graphdriver.parent_of(layer)
    sibling = graphdriver.new_layer(parent)

    graphdriver.apply_diff(sibling, parent, graphdriver.diff_bytes(layer, parent))

    assert_same_tree(graphdriver.tree(layer), graphdriver.tree(sibling), "the sibling differs")


def _is_plain(entries: Sequence[LayerEntry]) -> bool:
    """Return whether no path occurs twice, and no member is a hard link."""
    names = {entry.name for entry in entries}
    return len(names) == len(entries) and all(entry.hardlink is None for entry in entries)


@verifies("ARC-017")
def test_times_of_directories_with_conflicting_members(graphdriver: Subject) -> None:
    """The last entry determines the metadata, independent of its position and of its directory's
    entries.
    """
    early, late = directory(mtime=EPOCH - 5), directory(mtime=EPOCH + 5)
    changes = [
        entry_of("a/b", OTHER),
        entry_of("a/n", OTHER),
        entry_of("a/b", symlink("c")),
        _link("a/h", "c", LOW[b"c"]),
        whiteout("a/b"),
    ]
    low = LOW.without(b"s")
    archives = [
        order
        for change in changes
        for order in (
            (entry_of("a", early), change),
            (change, entry_of("a", early)),
            (entry_of("a", late), change, entry_of("a", early)),
        )
    ]
    archives.append((entry_of("a", early), entry_of("c", late), entry_of("c/n", OTHER)))
    cases, times = cases_of(low, archives), Aspect.MTIME | Aspect.DIRECTORY_MTIME
    plain = [case for case in cases if _is_plain(case.entries)]

    assert_cases(graphdriver, plain, times)
    # DIF-041 tests paths that occur twice, other requirements links to lower files.
    refused = refused_cases(graphdriver, [case for case in cases if case not in plain], times)
    graphdriver.note(f"refused, which is allowed: {[str(case) for case in refused]}")


@verifies("DIF-042")
def test_hard_links_to_replaced_members(graphdriver: Subject) -> None:
    """The remaining names are one file, and the new one is another."""
    archives = [entries for entries in _linked() if entries[0].name == b"n"]
    archives = [one for one in archives if one[0].hardlink is None and _is_sound(one)]

    refused = refused_cases(graphdriver, cases_of(LOW, archives), Aspect.CONTENT | Aspect.HARDLINKS)

    graphdriver.note(f"refused, which is allowed: {[str(case) for case in refused]}")


def _attributed(node: Node, *names: str) -> Node:
    return node.but(xattrs=frozenset((f"user.{name}", name.encode()) for name in names))


ATTRIBUTED = Tree.of(
    {
        "f": _attributed(file(b"f"), "old", "both"),
        "d": _attributed(directory(), "old", "both"),
        "d/f": _attributed(file(b"df"), "deep"),
    }
)


@verifies("DIF-043")
def test_attributes_of_replaced_members(graphdriver: Subject) -> None:
    """A lower file, and an earlier member of the archive."""
    nodes = [
        _attributed(OTHER, "both", "new"),
        OTHER,
        _attributed(directory(), "new"),
        directory(),
        symlink("d"),
    ]
    archives = [
        *((entry_of("f", node),) for node in nodes),
        *((entry_of("d", node),) for node in nodes[:2]),
        (_link("n", "f", ATTRIBUTED[b"f"]), entry_of("f", OTHER)),
        (entry_of("d/n", OTHER),),
    ]
    pairs = _pairs("n", [*nodes[:2], _attributed(OTHER, "both")])

    cases = cases_of(ATTRIBUTED, [*archives, *pairs])
    assert_cases_or_twice(graphdriver, cases, Aspect.CONTENT | Aspect.XATTRS)


def _pairs(name: str, nodes: Sequence[Node]) -> Iterator[tuple[LayerEntry, LayerEntry]]:
    for one, other in itertools.permutations(nodes, 2):
        yield entry_of(name, one), entry_of(name, other)


@verifies("DIF-044")
def test_attributes_of_a_directory_are_those_of_its_entry(graphdriver: Subject) -> None:
    """Xattrs that the lower directory has, and the entry has not, are removed."""
    nodes = [_attributed(directory(), "both", "new"), directory()]
    archives = [*((entry_of("d", node),) for node in nodes), *_pairs("n", nodes)]

    cases = cases_of(ATTRIBUTED, archives)
    assert_cases_or_twice(graphdriver, cases, Aspect.CONTENT | Aspect.XATTRS)


# All permissions for other users.
OPEN = named_acl(7, 7, others=7)
INHERITED = directory(xattrs=frozenset({(DEFAULT, OPEN)}))
WITH_ACL = Tree.of({"d": INHERITED, "d/old": file(b"old", 0o600)})


@verifies("DIF-045")
def test_members_do_not_inherit_access_control_lists(graphdriver: Subject) -> None:
    """In a lower directory with a default ACL, in one of the archive, and in an implied one."""
    needs_attribute(graphdriver, DEFAULT, OPEN)
    kinds = [*KINDS, file(b"", 0o4711), directory(0o700)]
    inside: list[Sequence[LayerEntry]] = [[entry_of("d/n", node)] for node in kinds]
    inside += [[entry_of("n", INHERITED), entry_of("n/m", node)] for node in kinds]
    inside += [
        [entry_of("n/m", KINDS[0]), entry_of("n", INHERITED), entry_of("n/o", KINDS[0])],
        [entry_of("n", INHERITED), entry_of("n", directory()), entry_of("n/m", KINDS[0])],
        [entry_of("d/old", OTHER)],
        [entry_of("d/i/n", OTHER)],
        [entry_of("n", INHERITED), entry_of("n/i/m", OTHER)],
        [_link("d/h", "d/old", WITH_ACL[b"d/old"])],
        [entry_of("d", directory()), entry_of("d/n", OTHER)],
    ]

    aspects = Aspect.MODE | Aspect.CONTENT | Aspect.XATTRS
    assert_cases_or_twice(graphdriver, cases_of(WITH_ACL, inside), aspects)
