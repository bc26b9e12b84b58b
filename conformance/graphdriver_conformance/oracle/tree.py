"""A file tree in memory: names to nodes; the root is b"".

Immutable: every change returns a new tree. This module does not access a disk.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum

__all__ = [
    "EPOCH",
    "Node",
    "NodeKind",
    "Tree",
    "device",
    "directory",
    "fifo",
    "file",
    "parents",
    "symlink",
]

EPOCH = 1_500_000_000
"""The default mtime of nodes: a whole second in the past."""


class NodeKind(Enum):
    """The type of a node."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    CHARACTER = "character device"
    BLOCK = "block device"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True, repr=False)
class Node:
    """One node. `mtime` is in whole seconds; `link` names its group of hard links, or is b""."""

    kind: NodeKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH
    content: bytes = b""
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: frozenset[tuple[str, bytes]] = frozenset()
    link: bytes = b""

    def __repr__(self) -> str:
        """Return the type, and the values that are not the default."""
        usual = Node(self.kind, 0o755 if self.is_directory else 0o644)
        own = [
            f"{one.name}={getattr(self, one.name)!r}"
            for one in fields(self)
            if one.name not in ("kind", "mode")
            and getattr(self, one.name) != getattr(usual, one.name)
        ]
        if self.mode != usual.mode and self.kind is not NodeKind.SYMLINK:
            own.insert(0, f"mode={self.mode:o}")
        return f"{self.kind.value}({', '.join(own)})" if own else self.kind.value

    def but(self, **changes: object) -> "Node":
        """Return this node with some fields changed."""
        return replace(self, **changes) if changes else self  # type: ignore[arg-type]

    @property
    def is_directory(self) -> bool:
        """Whether it can have entries."""
        return self.kind is NodeKind.DIRECTORY

    @property
    def size(self) -> int:
        """Its share of diff_size: 0 for directories."""
        return len(self.target) if self.kind is NodeKind.SYMLINK else len(self.content)


def file(content: bytes = b"", mode: int = 0o644, **fields: object) -> Node:
    """Return a regular file."""
    return Node(NodeKind.FILE, mode, content=content).but(**fields)


def directory(mode: int = 0o755, **fields: object) -> Node:
    """Return a directory."""
    return Node(NodeKind.DIRECTORY, mode).but(**fields)


def symlink(target: str | bytes, **fields: object) -> Node:
    """Return a symlink; its mode is the one that Linux reports for all symlinks."""
    raw = target.encode() if isinstance(target, str) else target
    return Node(NodeKind.SYMLINK, 0o777, target=raw).but(**fields)


def fifo(mode: int = 0o644, **fields: object) -> Node:
    """Return a fifo."""
    return Node(NodeKind.FIFO, mode).but(**fields)


def device(kind: NodeKind, major: int, minor: int, mode: int = 0o600, **fields: object) -> Node:
    """Return a device node."""
    return Node(kind, mode, rdev=(major, minor)).but(**fields)


_ROOT = directory()


class Tree(Mapping[bytes, Node]):
    """Names to nodes. Every name's parents are in it and are directories."""

    __slots__ = ("_nodes",)

    def __init__(self, nodes: Mapping[bytes, Node] | None = None) -> None:
        self._nodes = {b"": _ROOT, **(nodes or {})}

    @classmethod
    def of(cls, nodes: Mapping[str | bytes, Node | bytes | str]) -> "Tree":
        """Build a tree for a test: bytes are a file, a str is a symlink; parents are implied."""
        built: dict[bytes, Node] = {}
        for name, node in nodes.items():
            raw = name.encode() if isinstance(name, str) else name
            made = file(node) if isinstance(node, bytes) else node
            made = symlink(made) if isinstance(made, str) else made
            for parent in parents(raw):
                built.setdefault(parent, directory())
            built[raw] = made
        return cls(built)

    def __getitem__(self, name: bytes) -> Node:
        return self._nodes[name]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        shown = [f"/{name.decode('utf-8', 'backslashreplace')} {n!r}" for name, n in self.items()]
        return f"Tree({', '.join(sorted(shown))})"

    def with_(self, name: bytes, node: Node) -> "Tree":
        """Return the tree with `node` at `name`; only a directory keeps its entries."""
        both = self.get(name, node).is_directory and node.is_directory
        return Tree({**(self if both else self.without(name))._nodes, name: node})

    def without(self, name: bytes) -> "Tree":
        """Return the tree without `name` and its entries."""
        below = name + b"/"
        return Tree({k: v for k, v in self.items() if k != name and not k.startswith(below)})

    def children(self, name: bytes) -> list[bytes]:
        """Return the entries of `name`."""
        return [k for k in self if k and k.rpartition(b"/")[0] == name]

    def canonical(self) -> "Tree":
        """Return the tree with each group of hard links named after its first name."""
        groups: dict[bytes, list[bytes]] = {}
        for name in sorted(self):
            if self[name].link:
                groups.setdefault(self[name].link, []).append(name)
        renamed = {
            name: self[name].but(link=names[0] if len(names) > 1 else b"")
            for names in groups.values()
            for name in names
        }
        return Tree({**self._nodes, **renamed}) if renamed else self


def parents(name: bytes) -> Iterator[bytes]:
    """Yield the directories above `name`, outermost first, without the root."""
    parts = name.split(b"/")
    for count in range(1, len(parts)):
        yield b"/".join(parts[:count])
