"""The edits in a view, computed from its trees before and after."""

import stat
from collections.abc import Iterator, Mapping
from typing import Any

from graphdriver_conformance.repro.observe import Tree, moment

__all__ = ["Edit", "edits_between"]

Edit = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A function of `replay`, its arguments, and the metadata it sets."""


def edits_between(old: Tree, new: Tree) -> list[Edit]:
    """Return edits that turn `old` into `new`.

    Inode numbers distinguish a rename from a copy, and a recreated directory from an unchanged one,
    which differ in an overlay, too.
    """
    edits: list[Edit] = []
    old = dict(old)
    while pair := _renamed(old, new):
        edits.append(("rename", pair, {}))
        below = pair[0] + b"/"
        for name in [one for one in old if one == pair[0] or one.startswith(below)]:
            old[pair[1] + name[len(pair[0]) :]] = old.pop(name)
    gone = {name for name in old if name and not _stays(old, new, name)}
    edits += [("remove", (name,), {}) for name in sorted(gone) if not _above(name) & gone]
    edits += _made(old, new, gone)
    # Creating entries has changed the times of directories.
    for name in sorted(new, reverse=True):
        node = new[name]
        if node["kind"] == stat.S_IFDIR and old.get(name) != node:
            edits.append(("change", (name,), _metadata(node)))
    return edits


def _renamed(old: Tree, new: Tree) -> tuple[bytes, bytes] | None:
    """Return the outermost name that was moved to a free one."""
    now = {node["inode"]: name for name, node in new.items() if node["links"] == 1}
    for name in sorted(old):
        there = now.get(old[name]["inode"])
        if (
            name not in new
            and there is not None
            and there not in old
            and old[name]["kind"] == new[there]["kind"]
            and old[name]["links"] == 1
            and (there.rpartition(b"/")[0] in old)
        ):
            return name, there
    return None


def _stays(old: Tree, new: Tree, name: bytes) -> bool:
    for one in (*_above(name), name):
        if one not in new or old[one]["kind"] != new[one]["kind"]:
            return False
        if old[one]["inode"] != new[one]["inode"]:
            return False
    return old[name]["kind"] in (stat.S_IFDIR, stat.S_IFREG) or (
        old[name]["content"] == new[name]["content"]
    )


def _made(old: Tree, new: Tree, gone: set[bytes]) -> Iterator[Edit]:
    first = {node["inode"]: name for name, node in new.items() if name in old and name not in gone}
    for name in sorted(new):
        node, stays = new[name], name in old and name not in gone
        if stays:
            if node["kind"] != stat.S_IFDIR and _differs(old[name], node):
                rewritten = old[name]["content"] != node["content"]
                verb = ("write", (name, node["content"])) if rewritten else ("change", (name,))
                yield (*verb, _metadata(node))
        elif node["links"] > 1 and node["inode"] in first:
            yield "link", (first[node["inode"]], name), {}
        else:
            first[node["inode"]] = name
            yield _new(name, node)


def _new(name: bytes, node: Mapping[str, Any]) -> Edit:
    if node["kind"] == stat.S_IFDIR:
        return "mkdir", (name,), {}  # the other metadata is set when its entries exist
    if node["kind"] == stat.S_IFREG:
        return "write", (name, node["content"]), _metadata(node)
    if node["kind"] == stat.S_IFLNK:
        return "symlink", (node["content"], name), _metadata(node)
    return "mknod", (name, node["kind"], node["content"] or 0), _metadata(node)


def _differs(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    keys = ("mode", "uid", "gid", "mtime", "content", "xattrs")
    return any(old[key] != new[key] for key in keys)


def _metadata(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata to set, without a time of the run itself."""
    found: dict[str, Any] = {}
    if node["kind"] != stat.S_IFLNK:
        found["mode"] = node["mode"]
    found |= {key: node[key] for key in ("uid", "gid", "xattrs") if node[key]}
    if moment(node["mtime"] / 1e9) != "now":
        found["mtime"] = node["mtime"]
    return found


def _above(name: bytes) -> set[bytes]:
    parts = name.split(b"/")
    return {b"/".join(parts[:count]) for count in range(1, len(parts))}
