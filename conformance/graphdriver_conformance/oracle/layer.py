"""The image-spec's rules on the model: applying a layer, and making the layer between two trees.

image-spec, layer.md, "Applying Changesets" and "Whiteouts": whiteouts first, as they hide lower
layers only; then the layer's own content.
"""

from collections.abc import Iterable, Sequence

from graphdriver_conformance.oracle.archive import (
    OPAQUE,
    LayerEntry,
    UnreadableArchive,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.tree import NodeKind, Tree, directory, parents

__all__ = ["apply_layer", "flatten", "make_layer"]


def apply_layer(below: Tree, entries: Iterable[LayerEntry]) -> Tree:
    """Return what a layer of `entries` makes of `below`."""
    cleaned = [(_clean(entry.name), entry) for entry in entries]
    tree = below
    for name, _ in cleaned:
        above, _, base = name.rpartition(b"/")
        if base == OPAQUE:
            for child in tree.children(above):
                tree = tree.without(child)
        elif base.startswith(b".wh."):
            hidden = base[4:]
            tree = tree.without(above + b"/" + hidden if above else hidden)
    for name, entry in cleaned:
        if name.rpartition(b"/")[2].startswith(b".wh."):
            continue
        for parent in parents(name):
            if parent not in tree or not tree[parent].is_directory:
                tree = tree.with_(parent, directory())
        if entry.hardlink is None:
            tree = tree.with_(name, entry.node.but(link=b""))
        else:
            tree = _link(tree, name, _clean(entry.hardlink))
    return tree.canonical()


def flatten(layers: Sequence[Iterable[LayerEntry]]) -> Tree:
    """Return the file system of a chain of layers, the base first."""
    tree = Tree()
    for layer in layers:
        tree = apply_layer(tree, layer)
    return tree


def make_layer(old: Tree, new: Tree, *, use_opaque: bool = False) -> list[LayerEntry]:
    """Return entries that turn `old` into `new`.

    `use_opaque` writes directories that lost everything as opaque instead of child by child.
    """
    entries: list[LayerEntry] = []
    if old[b""] != new[b""]:
        entries.append(LayerEntry(b"./", new[b""]))
    first: dict[bytes, bytes] = {}
    hidden = [name for name in new if use_opaque and _lost_all(old, new, name)]
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


def _lost_all(old: Tree, new: Tree, name: bytes) -> bool:
    if not name or name not in old or not (old[name].is_directory and new[name].is_directory):
        return False
    was = [one for one in old if one.startswith(name + b"/")]
    return bool(was) and not any(one in new for one in was)


def _link(tree: Tree, name: bytes, target: bytes) -> Tree:
    if target not in tree:
        raise UnreadableArchive(f"{name!r} is a hard link to {target!r}, which is not there")
    node = tree[target]
    group = node.link or target
    return tree.with_(target, node.but(link=group)).with_(name, node.but(link=group))


def _clean(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
