"""Many small archives in one: each case in its own directory, so that one layer contains them all.

A case that fails, or is refused with the others, is repeated in a layer of its own: the report then
has a program of three verbs.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphdriver.errors import DriverError
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import (
    OPAQUE,
    PLAIN,
    Dialect,
    LayerEntry,
    UnreadableArchive,
    build_archive,
    whiteout,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree, differences
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree, directory, file, parents

__all__ = [
    "Case",
    "applied",
    "assert_cases",
    "assert_cases_or_twice",
    "cases_of",
    "look",
    "refused_cases",
]


_DEEPEST = 2
"""No file was deleted from directories below this one."""
_TOGETHER = 16
"""The number of cases that are tried together if one of all is refused."""


@dataclass(frozen=True, slots=True)
class Case:
    """An archive of `entries` for a layer on `below`, and the resulting tree."""

    below: Tree
    entries: tuple[LayerEntry, ...]
    wanted: Tree

    def __str__(self) -> str:
        """Name the members in their order."""
        return " ".join(map(_shown, self.entries))


def cases_of(below: Tree, archives: Iterable[Sequence[LayerEntry]]) -> list[Case]:
    """Return a case for each archive that the image-spec defines, without duplicates.

    `below` is reduced to the paths that the members affect.
    """
    found: dict[tuple[LayerEntry, ...], Case] = {}
    for entries in archives:
        key = tuple(entries)
        if key in found:
            continue
        met = _met(below, key)
        try:
            found[key] = Case(met, key, apply_layer(met, key))
        except UnreadableArchive:
            continue
    return list(found.values())


def _met(below: Tree, entries: Sequence[LayerEntry]) -> Tree:
    """Return the part of `below` under the root names of the entries, and symlinks to it."""
    tops: set[bytes] = set()
    todo = [path for entry in entries for path in (entry.name, entry.hardlink or b"")]
    while todo:
        base = todo.pop().lstrip(b"/").partition(b"/")[0]
        if base == OPAQUE:
            return below
        top = base.removeprefix(b".wh.")
        if top not in tops:
            tops.add(top)
            todo += [below[top].target] if top in below else []
    return Tree({name: node for name, node in below.items() if name.partition(b"/")[0] in tops})


def assert_cases(
    graphdriver: Subject,
    cases: Sequence[Case],
    aspects: Aspect = Aspect.DEFAULT,
    dialect: Dialect = PLAIN,
) -> str:
    """Apply the cases as one archive, compare listing, stat and content; return the layer's id."""
    layer = _on(graphdriver, Tree(_below(cases)))
    graphdriver.apply_diff(layer, graphdriver.parent_of(layer), _archive_of(cases, dialect))
    _assert_shown(graphdriver, layer, cases, aspects, dialect)
    return layer


def assert_cases_or_twice(
    graphdriver: Subject,
    cases: Sequence[Case],
    aspects: Aspect = Aspect.DEFAULT,
    dialect: Dialect = PLAIN,
) -> None:
    """Do as `assert_cases`; but cases with a member that comes twice may be refused (DIF-041)."""
    twice = [case for case in cases if _has_duplicates(case.entries)]
    once = [case for case in cases if case not in twice]
    if once:
        assert_cases(graphdriver, once, aspects, dialect)
    if twice:
        refused = refused_cases(graphdriver, twice, aspects, dialect)
        graphdriver.note(f"refused, which is allowed: {[str(case) for case in refused]}")


def _has_duplicates(entries: Sequence[LayerEntry]) -> bool:
    """Say whether two members have one name; markers are no members."""
    names = [one.name for one in entries if not os.path.basename(one.name).startswith(b".wh.")]
    return len(set(names)) < len(names)


def refused_cases(
    graphdriver: Subject,
    cases: Sequence[Case],
    aspects: Aspect = Aspect.DEFAULT,
    dialect: Dialect = PLAIN,
) -> list[Case]:
    """Do as `assert_cases`, but return the refused cases instead of raising."""
    if _is_taken(graphdriver, cases, aspects, dialect):
        return []
    refused: list[Case] = []
    parents_of: dict[tuple[tuple[bytes, Node], ...], str] = {}
    for start in range(0, len(cases), _TOGETHER):
        some = cases[start : start + _TOGETHER]
        if len(some) == len(cases) or not _is_taken(graphdriver, some, aspects, dialect):
            refused += [
                one for one in some if _is_refused(graphdriver, one, aspects, dialect, parents_of)
            ]
    return refused


def _is_taken(
    graphdriver: Subject, cases: Sequence[Case], aspects: Aspect, dialect: Dialect
) -> bool:
    """Apply the cases as one archive; say whether it was taken. Raises AssertionError."""
    layer = _on(graphdriver, Tree(_below(cases)))
    if not applied(graphdriver, layer, _archive_of(cases, dialect)):
        return False
    _assert_shown(graphdriver, layer, cases, aspects, dialect)
    return True


def _is_refused(
    graphdriver: Subject,
    case: Case,
    aspects: Aspect,
    dialect: Dialect,
    parents_of: dict[tuple[tuple[bytes, Node], ...], str],
) -> bool:
    """Apply a case on the parent that others with the same tree below have; say if it is refused.

    Raises AssertionError, with a program that makes the parent as well.
    """
    graphdriver.start_example()
    key = tuple(sorted(case.below.items(), key=lambda item: item[0]))
    if key not in parents_of:
        parents_of[key] = _two_for(graphdriver, case.below)
    layer = graphdriver.new_layer(parents_of[key])
    if not applied(graphdriver, layer, build_archive(case.entries, dialect)):
        return True
    try:
        assert_same_tree(case.wanted, look(graphdriver, layer, case), str(case), aspects)
    except AssertionError:
        _assert_alone(graphdriver, [case], aspects, dialect)
        raise
    return False


def _archive_of(cases: Sequence[Case], dialect: Dialect = PLAIN) -> bytes:
    """Return the archives of the cases as one."""
    return build_archive(_all_entries(cases), dialect)


def applied(graphdriver: Subject, layer: str, archive: bytes) -> bool:
    """Apply an archive; return whether it was accepted."""
    try:
        graphdriver.apply_diff(layer, graphdriver.parent_of(layer), archive)
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return False
    return True


def look(graphdriver: Subject, layer: str, *cases: Case) -> Tree:
    """Return the tree of the layer. AssertionError if listings and stat disagree.

    Every name in the cases is looked up separately, listed or not.
    """
    names = {name for case in cases for name in (*case.below, *case.wanted, *_names(case))}
    return _seen(graphdriver, layer, names)


def _on(graphdriver: Subject, below: Tree) -> str:
    """Return a new layer on two that archives have made, and that hold `below` together."""
    return graphdriver.new_layer(_two_for(graphdriver, below))


def _two_for(graphdriver: Subject, below: Tree) -> str:
    """Return the upper one of the two.

    Every other file is in the upper one of them, which also deletes a file of the lower one in each
    directory: that file must not reappear.
    """
    names = sorted(name for name in below if name)
    files = [name for name in names if not below[name].is_directory]
    in_upper = set(files[::2]) if not any(below[name].link for name in files) else set()
    directories = [name for name in names if below[name].is_directory]
    deleted = [name + b"/deleted" for name in directories if name.count(b"/") < _DEEPEST]
    lower = [LayerEntry(name, below[name]) for name in names if name not in in_upper]
    lower += [LayerEntry(name, file(b"deleted")) for name in deleted]
    needed = {above for name in in_upper for above in parents(name)}
    upper = [LayerEntry(name, below[name]) for name in names if name in in_upper | needed]
    upper += [whiteout(name) for name in deleted]
    base = graphdriver.new_layer()
    graphdriver.apply_diff(base, "", build_archive(lower))
    middle = graphdriver.new_layer(base)
    graphdriver.apply_diff(middle, base, build_archive(upper))
    return middle


def _assert_shown(
    graphdriver: Subject, layer: str, cases: Sequence[Case], aspects: Aspect, dialect: Dialect
) -> None:
    names = {
        b"%d/%b" % (number, name)
        for number, case in enumerate(cases)
        for name in (*case.below, *_names(case))
        if name
    }
    try:
        shown = _split(_seen(graphdriver, layer, names))
        failed = [
            case
            for number, case in enumerate(cases)
            if differences(case.wanted, shown.get(b"%d" % number, Tree()), aspects)
        ]
    except AssertionError:
        failed = list(cases)
        _assert_alone(graphdriver, failed, aspects, dialect)
        raise
    _assert_alone(graphdriver, failed, aspects, dialect)
    for number, case in enumerate(cases):
        assert_same_tree(case.wanted, shown.get(b"%d" % number, Tree()), str(case), aspects)


def _assert_alone(
    graphdriver: Subject, cases: Sequence[Case], aspects: Aspect, dialect: Dialect
) -> None:
    """Assert that each case alone has the expected tree, the shortest first."""
    for case in sorted(cases, key=lambda case: len(case.entries)):
        graphdriver.start_example()
        layer = _on(graphdriver, case.below)
        graphdriver.apply_diff(
            layer, graphdriver.parent_of(layer), build_archive(case.entries, dialect)
        )
        assert_same_tree(case.wanted, look(graphdriver, layer, case), str(case), aspects)


def _seen(graphdriver: Subject, layer: str, names: Iterable[bytes]) -> Tree:
    with graphdriver.program.folded(f"look({layer!r})"), graphdriver.view(layer) as root:
        listed = _missing(os.fsencode(root))
        assert listed == [], f"{listed} are listed, but lstat fails"
        tree = observe(root)
        top = os.fsencode(root) + b"/"
        missing = [one for one in names if one not in tree and not _is_behind_symlink(tree, one)]
        found = sorted(one for one in missing if os.path.lexists(top + one))
        assert found == [], f"{found} are not listed, but lstat succeeds"
    return tree


def _is_behind_symlink(tree: Tree, name: bytes) -> bool:
    return any(above in tree and tree[above].target for above in parents(name))


def _missing(root: bytes) -> list[bytes]:
    """Return names below `root` that are listed but do not exist."""
    found = []
    todo = [b""]
    while todo:
        name = todo.pop()
        try:
            entries = list(os.scandir(root + b"/" + name))
        except FileNotFoundError:
            found.append(name)
            continue
        for entry in entries:
            child = name + b"/" + entry.name if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                todo.append(child)
            elif not os.path.lexists(root + b"/" + child):
                found.append(child)
    return found


def _names(case: Case) -> list[bytes]:
    """Return the names of the members, and those in markers."""
    names = [entry.name.strip(b"/") for entry in case.entries]
    return [*names, *(name.replace(b".wh.", b"", 1) for name in names)]


def _split(tree: Tree) -> dict[bytes, Tree]:
    """Return the trees of the directories in a tree's root."""
    found: dict[bytes, dict[bytes, Node]] = {}
    for name, node in tree.items():
        top, slash, rest = name.partition(b"/")
        if slash:
            target = node.target.removeprefix(b"/" + top) if node.target else b""
            own = node.but(link=node.link.partition(b"/")[2], target=target)
            found.setdefault(top, {})[rest] = own
    return {top: Tree(nodes) for top, nodes in found.items()}


def _below(cases: Sequence[Case]) -> dict[bytes, Node]:
    found: dict[bytes, Node] = {}
    for number, case in enumerate(cases):
        top = b"%d" % number
        found[top] = directory()
        for name, node in case.below.items():
            if name:
                found[top + b"/" + name] = _moved(node, top)
    return found


def _all_entries(cases: Sequence[Case]) -> list[LayerEntry]:
    return [
        LayerEntry(
            b"%d/%b" % (number, entry.name),
            _moved(entry.node, b"%d" % number),
            None if entry.hardlink is None else b"%d/%b" % (number, entry.hardlink),
        )
        for number, case in enumerate(cases)
        for entry in case.entries
    ]


def _moved(node: Node, top: bytes) -> Node:
    """Return the node in the directory `top`: absolute targets are moved there, too."""
    if node.kind is NodeKind.SYMLINK and node.target.startswith(b"/"):
        return node.but(target=b"/" + top + node.target)
    return node


def _shown(entry: LayerEntry) -> str:
    name = entry.name.decode("utf-8", "backslashreplace")
    if entry.hardlink is not None:
        return f"{name} (hard link to {entry.hardlink.decode()})"
    if entry.node.kind is NodeKind.SYMLINK:
        return f"{name} -> {entry.node.target.decode()}"
    return name + "/" if entry.node.is_directory else name
