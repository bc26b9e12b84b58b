"""Pairs of trees that differ in metadata only: size, content, mode and time are the same."""

import struct

from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.tree import (
    Node,
    NodeKind,
    Tree,
    device,
    directory,
    fifo,
    file,
    symlink,
)
from graphdriver_conformance.suite.support.attributes import CAPABILITY, held_by_home

__all__ = ["changed_capabilities", "changed_devices", "changed_owners"]

# struct vfs_cap_data: cap_net_bind_service+ep.
_OTHER = frozenset({(CAPABILITY, struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))})


def changed_owners() -> tuple[Tree, Tree]:
    """Return nodes of root, and the same with another user, group or both."""
    nodes: dict[str | bytes, Node | bytes | str] = {}
    before = dict(nodes)
    for owner, (uid, gid) in {"u": (7, 0), "g": (0, 8), "both": (7, 8)}.items():
        for kind in (file(b"x"), directory(), symlink("to"), fifo()):
            name = f"{kind.kind.value}-{owner}"
            before[name], nodes[name] = kind, kind.but(uid=uid, gid=gid)
    return Tree.of(before), Tree.of(nodes)


def changed_capabilities(graphdriver: Subject) -> tuple[Tree, Tree]:
    """Return files, and the same with a capability that is added, removed or replaced."""
    own = held_by_home(graphdriver, "capability")
    with_own, with_other = file(b"x", 0o755, xattrs=own), file(b"x", 0o755, xattrs=_OTHER)
    bare = file(b"x", 0o755)
    return (
        Tree.of({"added": bare, "removed": with_own, "replaced": with_own}),
        Tree.of({"added": with_own, "removed": bare, "replaced": with_other}),
    )


def changed_devices() -> tuple[Tree, Tree]:
    """Return device nodes, and the same with another major or minor number."""
    before: dict[str | bytes, Node | bytes | str] = {}
    after = dict(before)
    for kind in (NodeKind.CHARACTER, NodeKind.BLOCK):
        for name, numbers in {"major": (8, 3), "minor": (7, 4)}.items():
            before[f"{name} of {kind.value}"] = device(kind, 7, 3)
            after[f"{name} of {kind.value}"] = device(kind, *numbers)
    return Tree.of(before), Tree.of(after)
