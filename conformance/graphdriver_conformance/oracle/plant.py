"""Create a model's nodes on disk, with the system calls of a program in a container."""

import os
import stat
from pathlib import Path

from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree

__all__ = ["make_node", "plant", "rebuild"]

_REMOVABLE = ("user.", "security.capability")
_FORMATS = {
    NodeKind.FIFO: stat.S_IFIFO,
    NodeKind.CHARACTER: stat.S_IFCHR,
    NodeKind.BLOCK: stat.S_IFBLK,
    NodeKind.SOCKET: stat.S_IFSOCK,
}


def plant(tree: Tree, root: Path) -> None:
    """Create every node of `tree` below `root`, which is an empty directory; times are set last."""
    base = os.fsencode(root)
    set_metadata(base, tree[b""])
    first: dict[bytes, bytes] = {}
    for name in sorted(one for one in tree if one):
        _make_or_link(tree, name, base, first)
    set_times(tree, root)


def _make_or_link(tree: Tree, name: bytes, base: bytes, first: dict[bytes, bytes]) -> None:
    """Create the node, or link it to the first of its group; `first` has each group's first
    name.
    """
    node, path = tree[name], base + b"/" + name
    there = first.setdefault(node.link, name) if node.link else name
    if there == name:
        make_node(path, node)
        return
    # One inode cannot have two contents; such a model would later be reported as a driver's error.
    if tree[there] != node:
        raise ValueError(f"{there!r} and {name!r} are one group of hard links, but differ")
    os.link(base + b"/" + there, path, follow_symlinks=False)


def rebuild(old: Tree, new: Tree, root: Path) -> None:
    """Change the tree `old` on disk below `root` to `new`: remove old nodes, create the others.

    A file with changed content is written in place, as by a program in a container, so that an
    overlay copies it up.
    """
    base = os.fsencode(root)
    groups = {old[name].link for name in old if name not in new or old[name] != new[name]} - {b""}

    def stays(name: bytes) -> bool:
        if name not in new or old[name].kind is not new[name].kind:
            return False
        if old[name].link or new[name].link:
            return old[name] == new[name] and old[name].link not in groups
        return old[name] == new[name] or old[name].kind in (NodeKind.DIRECTORY, NodeKind.FILE)

    for name in sorted((one for one in old if one and not stays(one)), reverse=True):
        path = base + b"/" + name
        if old[name].is_directory:
            os.rmdir(path)
        else:
            os.unlink(path)
    first: dict[bytes, bytes] = {}
    for name in sorted(new):
        node, path = new[name], base + b"/" + name
        if name and not (name in old and stays(name)):
            _make_or_link(new, name, base, first)
            continue
        if node.link:
            first.setdefault(node.link, name)
        if old[name] != node:
            if old[name].content != node.content:
                _write_in_place(path, node.content)
            set_metadata(path if name else base, node)
    set_times(new, root)


def _write_in_place(path: bytes, content: bytes) -> None:
    os.chmod(path, 0o600)  # an ordinary user may have made it read-only
    with open(path, "r+b") as opened:
        opened.write(content)
        opened.truncate()


def _write_new(path: bytes, content: bytes) -> None:
    """Make a file, by fewer system calls than open() takes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def make_node(path: bytes, node: Node) -> None:
    """Create one node with all its metadata."""
    if node.kind is NodeKind.DIRECTORY:
        os.mkdir(path)
    elif node.kind is NodeKind.FILE:
        _write_new(path, node.content)
    elif node.kind is NodeKind.SYMLINK:
        os.symlink(node.target, path)
    else:
        os.mknod(path, _FORMATS[node.kind] | 0o600, os.makedev(*node.rdev))
    set_metadata(path, node)


def set_metadata(path: bytes, node: Node) -> None:
    """Set owner, mode, xattrs and mtime; remove xattrs that the node does not have."""
    found = os.lstat(path)
    if (found.st_uid, found.st_gid) != (node.uid, node.gid):
        os.chown(path, node.uid, node.gid, follow_symlinks=False)
    if node.kind is not NodeKind.SYMLINK:
        os.chmod(path, node.mode)
        for name in os.listxattr(path):
            if name.startswith(_REMOVABLE) and name not in dict(node.xattrs):
                os.removexattr(path, name)
    for name, value in node.xattrs:
        os.setxattr(path, name, value, follow_symlinks=False)
    _set_time(path, node)


def set_times(tree: Tree, root: Path) -> None:
    """Set the mtimes of directories, deepest first: creating their entries has changed them."""
    base = os.fsencode(root)
    for name in sorted((one for one in tree if tree[one].is_directory), reverse=True):
        _set_time(base + b"/" + name if name else base, tree[name])


def _set_time(path: bytes, node: Node) -> None:
    nanoseconds = node.mtime * 1_000_000_000
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)
