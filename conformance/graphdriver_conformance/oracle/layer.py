"""The image-spec's rules on the model: applying a layer, and computing the layer between two trees.

image-spec, layer.md, "Applying Changesets" and "Whiteouts": whiteouts first, because they hide
lower layers only; then the layer's own content.
"""

from collections.abc import Iterable, Sequence

from graphdriver_conformance.oracle.archive import (
    OPAQUE,
    LayerEntry,
    UnreadableArchive,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree, directory

__all__ = ["apply_layer", "flatten", "make_layer"]


def apply_layer(below: Tree, entries: Iterable[LayerEntry]) -> Tree:
    """Return the tree that results from applying a layer of `entries` to `below`.

    A path through a symlink is resolved inside the tree. Markers follow only symlinks of `below`
    that the layer does not replace or delete. Raises UnreadableArchive for a loop, and for a hard
    link to a missing file.
    """
    cleaned = [(_clean(entry.name), entry) for entry in entries]
    markers = [name for name, _ in cleaned if _is_marker(name)]
    content = [(name, entry) for name, entry in cleaned if not _is_marker(name)]
    placed = _Content(_without(below, _hidden(below, markers, None)), below).apply(content).placed
    hidden = _hidden(below, markers, placed)
    return _Content(_without(below, hidden), below).apply(content).tree.canonical()


def flatten(layers: Sequence[Iterable[LayerEntry]]) -> Tree:
    """Return the tree of a chain of layers, the base first."""
    tree = Tree()
    for layer in layers:
        tree = apply_layer(tree, layer)
    return tree


def make_layer(old: Tree, new: Tree, *, use_opaque: bool = False) -> list[LayerEntry]:
    """Return entries that turn `old` into `new`.

    With `use_opaque`, directories that lost all entries are opaque instead of one whiteout for each
    entry.
    """
    entries: list[LayerEntry] = []
    if old[b""] != new[b""]:
        entries.append(LayerEntry(b"./", new[b""]))
    first: dict[bytes, bytes] = {}
    hidden = [name for name in new if use_opaque and _all_deleted(old, new, name)]
    entries += [opaque(name) for name in hidden]
    for name in sorted(set(old) - set(new)):
        above = name.rpartition(b"/")[0]
        covered = any(above == one or above.startswith(one + b"/") for one in hidden)
        if above in new and new[above].is_directory and not covered:
            entries.append(whiteout(name))
    for name in sorted(new):
        node = new[name]
        if not name or node.kind is NodeKind.SOCKET:
            continue
        linked = node.link and node.link in first
        if node.link:
            first.setdefault(node.link, name)
        if old.get(name) == node and not node.link and name not in hidden:
            continue
        entries.append(LayerEntry(name, node, first[node.link] if linked else None))
    return entries


def _all_deleted(old: Tree, new: Tree, name: bytes) -> bool:
    if not name or name not in old or not (old[name].is_directory and new[name].is_directory):
        return False
    was = [one for one in old if one.startswith(name + b"/")]
    return bool(was) and not any(one in new for one in was)


class _Content:
    """The members of a layer that are not markers, applied to the tree that its markers leave.

    A hard link may refer to a file that a marker of the layer hides: therefore `whole`, the tree
    with all lower files, is updated as well. `placed` has the names of the members, and those that
    a member removed: a file that replaces a directory removes the symlinks in it.
    """

    def __init__(self, tree: Tree, whole: Tree) -> None:
        self.tree = tree
        self.whole = whole
        self.placed: set[bytes] = set()
        self._groups = 0

    def apply(self, content: Iterable[tuple[bytes, LayerEntry]]) -> "_Content":
        for name, entry in content:
            if entry.hardlink is None:
                self._place(name, entry.node.but(link=b""))
            else:
                self._link(name, _clean(entry.hardlink))
        return self

    def _place(self, name: bytes, node: Node) -> None:
        before = self.whole.keys()
        self.tree, path = _with(self.tree, name, node)
        self.whole, _ = _with(self.whole, name, node)
        self.placed |= {path} | (before - self.whole.keys())

    def _new_group(self) -> bytes:
        """Return a separate name for a group: names of files may reappear as other files."""
        self._groups += 1
        return b"\0%d" % self._groups

    def _link(self, name: bytes, target: bytes) -> None:
        path, _ = _resolve(self.tree, target)
        found = self.tree.get(path) if path is not None else None
        hidden, _ = _resolve(self.whole, target)
        if found is None and hidden is not None and self.tree.get(hidden) == self.whole.get(hidden):
            # Only the symlink in the path is hidden.
            path, found = hidden, self.tree.get(hidden)
        if found is None and hidden is not None and hidden in self.whole:
            node = self.whole[hidden]
            group = node.link or self._new_group()
        elif found is not None and path is not None:
            node, group = found, found.link or self._new_group()
            self.tree = self.tree.with_(path, node.but(link=group))
        else:
            raise UnreadableArchive(f"a hard link to {target!r}, which does not exist")
        if node.is_directory:
            raise UnreadableArchive(f"a hard link to the directory {target!r}")
        if hidden is not None and hidden in self.whole:
            self.whole = self.whole.with_(hidden, self.whole[hidden].but(link=group))
        self._place(name, node.but(link=group))


def _is_marker(name: bytes) -> bool:
    return name.rpartition(b"/")[2].startswith(b".wh.")


class _Loop(UnreadableArchive):
    """A path goes `through` symlinks in a loop."""

    def __init__(self, name: bytes, through: list[bytes]) -> None:
        super().__init__(f"{name!r} goes through a loop of symlinks")
        self.through = through


def _hidden(below: Tree, markers: Sequence[bytes], placed: set[bytes] | None) -> set[bytes]:
    """Return the names of `below` that markers delete.

    `placed` has the names that the layer's members took or removed; None while that is unknown.
    Raises _Loop for a marker in a loop of symlinks that the layer leaves as it is.
    """
    found: list[tuple[set[bytes], list[bytes]]] = []
    loops: list[_Loop] = []
    for marker in markers:
        above, _, base = marker.rpartition(b"/")
        try:
            path, through = _resolve(below, above + b"/." if above else b"")
        except _Loop as error:
            loops.append(error)
            continue
        if path is None or path not in below or not below[path].is_directory:
            continue
        if not placed or placed.isdisjoint(through):
            hidden = path + b"/" + base[4:] if path else base[4:]
            tops = below.children(path) if base == OPAQUE else [hidden]
            names = {one for one in below for top in tops if (one + b"/").startswith(top + b"/")}
            found.append((names, through))
    every = set().union(*(names for names, _ in found))
    for loop in loops:
        if placed is not None and (placed | every).isdisjoint(loop.through):
            raise loop
    return set().union(*(names for names, through in found if every.isdisjoint(through)))


def _without(tree: Tree, names: set[bytes]) -> Tree:
    return Tree({name: node for name, node in tree.items() if name not in names})


def _resolve(tree: Tree, name: bytes) -> tuple[bytes | None, list[bytes]]:
    """Return the real path of `name`, whose last component may be missing, and symlinks in it.

    None if its parent is not a directory. Raises _Loop.
    """
    path = b""
    through: list[bytes] = []
    todo = name.split(b"/")[::-1]
    while todo:
        part = todo.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            path = path.rpartition(b"/")[0]
            continue
        child = path + b"/" + part if path else part
        node = tree.get(child)
        if not todo:
            return child, through
        if node is not None and node.kind is NodeKind.SYMLINK:
            through.append(child)
            if len(through) > 40:
                raise _Loop(name, through)
            todo += node.target.split(b"/")[::-1]
            path = b"" if node.target.startswith(b"/") else path
        elif node is None or not node.is_directory:
            return None, through
        else:
            path = child
    return path, through


def _with(tree: Tree, name: bytes, node: Node) -> tuple[Tree, bytes]:
    """Return the tree with `node` at `name`, with missing parent directories, and its path."""
    above, _, base = name.rpartition(b"/")
    path, symlinks = b"", 0
    todo = above.split(b"/")[::-1]
    while todo:
        part = todo.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            path = path.rpartition(b"/")[0]
            continue
        child = path + b"/" + part if path else part
        there = tree.get(child)
        if there is not None and there.kind is NodeKind.SYMLINK:
            symlinks += 1
            if symlinks > 40:
                raise UnreadableArchive(f"{name!r} goes through a loop of symlinks")
            todo += there.target.split(b"/")[::-1]
            path = b"" if there.target.startswith(b"/") else path
            continue
        if there is None or not there.is_directory:
            tree = tree.with_(child, directory())
        path = child
    full = path + b"/" + base if path else base
    return tree.with_(full, node), full


def _clean(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
