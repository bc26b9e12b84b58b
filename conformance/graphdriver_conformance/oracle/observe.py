"""Read a tree from disk, without following symlinks."""

import os
import stat
from pathlib import Path

from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree

__all__ = ["TRUSTED", "observe"]

_KINDS = {
    stat.S_IFREG: NodeKind.FILE,
    stat.S_IFDIR: NodeKind.DIRECTORY,
    stat.S_IFLNK: NodeKind.SYMLINK,
    stat.S_IFIFO: NodeKind.FIFO,
    stat.S_IFCHR: NodeKind.CHARACTER,
    stat.S_IFBLK: NodeKind.BLOCK,
    stat.S_IFSOCK: NodeKind.SOCKET,
}
_CONTENT = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_BLOCK = 1 << 16
TRUSTED = "trusted.suite."
"""The prefix of `trusted.*` names that tests set; file systems have others of their own."""


def observe(root: Path | str) -> Tree:
    """Return the tree below `root`, with the root's own metadata. Raises OSError."""
    nodes: dict[bytes, Node] = {}
    todo = [(os.fsencode(root), b"")]
    while todo:
        path, name = todo.pop()
        node = nodes[name] = _node(path)
        if node.is_directory:
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries]
            todo += [(path + b"/" + base, name + b"/" + base if name else base) for base in names]
    return Tree(nodes).canonical()


def _node(path: bytes) -> Node:
    found = os.lstat(path)
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    is_device = kind in (NodeKind.CHARACTER, NodeKind.BLOCK)
    linked = found.st_nlink > 1 and kind is not NodeKind.DIRECTORY
    return Node(
        kind,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns // 1_000_000_000,
        _content(path, found.st_size) if kind is NodeKind.FILE else b"",
        os.readlink(path) if kind is NodeKind.SYMLINK else b"",
        (os.major(found.st_rdev), os.minor(found.st_rdev)) if is_device else (0, 0),
        _xattrs(path),
        b"%d:%d" % (found.st_dev, found.st_ino) if linked else b"",
    )


def _content(path: bytes, size: int) -> bytes:
    """Return the content of a file, read to its end even if that is not at `size`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, size + 1)
        while more := os.read(descriptor, _BLOCK):
            content += more
        return content
    finally:
        os.close(descriptor)


def _xattrs(path: bytes) -> frozenset[tuple[str, bytes]]:
    """Return the xattrs that are content; not labels, nor overlay's own."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return frozenset()
    wanted = [
        name
        for name in names
        if name in _CONTENT
        or name.startswith(TRUSTED)
        or (name.startswith("user.") and not name.startswith("user.overlay."))
    ]
    return frozenset((name, os.getxattr(path, name, follow_symlinks=False)) for name in wanted)
