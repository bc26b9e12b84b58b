"""A home with real overlay mounts for the corner cases: layers are created, edited and exported."""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphdriver.contract import Change
from graphdriver.errors import DriverError
from graphdriver.overlay2 import Driver
from graphdriver_conformance.oracle.archive import LayerEntry, build_archive, read_archive
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import rebuild
from graphdriver_conformance.oracle.tree import Tree

ALL_BUT_ROOT = Aspect.ALL & ~Aspect.ROOT & ~Aspect.DIRECTORY_MTIME
# For slow cases that do not depend on the mount options.
ON_PLAIN_MOUNTS = pytest.mark.parametrize("layers", ["plain"], indirect=True)


class Layers:
    """A driver and shortcuts for the corner cases."""

    def __init__(self, home: Path, options: Sequence[str] = ()) -> None:
        self.home = home
        self.driver = Driver(home, options)
        self._numbers = itertools.count()

    def new(self, parent: str = "") -> str:
        """Create an empty layer."""
        id = f"layer-{next(self._numbers)}"
        self.driver.create_read_write(id, parent)
        return id

    def built(self, tree: Tree, parent: str = "") -> str:
        """Create a layer whose view contains `tree`."""
        id = self.new(parent)
        self.fill(id, tree)
        return id

    def fill(self, id: str, tree: Tree) -> None:
        """Change a layer's view to `tree`, with the system calls of a container."""
        with self.view(id) as root:
            rebuild(observe(root), tree, root)

    @contextmanager
    def view(self, id: str) -> Iterator[Path]:
        """Mount a layer for the duration of the block."""
        root = self.driver.get(id)
        try:
            yield root
        finally:
            self.driver.put(id)

    def tree(self, id: str) -> Tree:
        """Return the tree in a layer's view, newly mounted."""
        with self.view(id) as root:
            return observe(root)

    def upper(self, id: str) -> Path:
        """Return the upper directory of a layer."""
        return self.home / id / "diff"

    def archive(self, id: str, parent: str = "") -> bytes:
        """Return a layer's archive."""
        with self.driver.diff(id, parent) as stream:
            return stream.read()

    def entries(self, id: str, parent: str = "") -> list[LayerEntry]:
        """Return the members of a layer's archive, as the oracle reads them."""
        return read_archive(self.archive(id, parent))

    def names(self, id: str, parent: str = "") -> list[bytes]:
        """Return the normalized names of those members."""
        return [entry.name.rstrip(b"/") for entry in self.entries(id, parent)]

    def apply(self, id: str, what: bytes | Sequence[LayerEntry], parent: str = "") -> int:
        """Apply an archive, or one that is built from entries."""
        data = what if isinstance(what, bytes) else build_archive(what)
        return self.driver.apply_diff(id, parent, io.BytesIO(data))

    def applied(self, below: Tree, what: bytes | Sequence[LayerEntry]) -> Tree:
        """Return the tree of a new layer on `below` after the archive is applied."""
        layer = self.new(self.built(below))
        self.apply(layer, what)
        return self.tree(layer)

    def refuses(
        self, error: type[DriverError], words: str, what: bytes | Sequence[LayerEntry]
    ) -> None:
        """Assert that apply_diff fails with the error, and changes no layer."""
        below, content = Tree.of({"d/kept": b"kept", "top": b"top"}), Tree.of({"d/own": b"own"})
        base = self.built(below)
        layer = self.built(Tree({**below, **content}), base)
        before = self.tree(layer)
        with pytest.raises(error, match=words):
            self.apply(layer, what)
        assert_same_tree(before, self.tree(layer), "the refused archive left something")
        assert_same_tree(below, self.tree(base), "the refused archive changed the parent")

    def shown(self, id: str, parent: str) -> list[str]:
        """Return a layer's changes in the format of `docker diff`."""
        return [str(change) for change in self.changes(id, parent)]

    def changes(self, id: str, parent: str) -> list[Change]:
        """Return a layer's changes."""
        return self.driver.changes(id, parent)

    def assert_travels(self, id: str, parent: str, aspects: Aspect = ALL_BUT_ROOT) -> None:
        """Assert that the layer's archive creates an equal sibling."""
        sibling = self.new(parent)
        self.apply(sibling, self.archive(id, parent), parent)
        assert_same_tree(self.tree(id), self.tree(sibling), "the sibling differs", aspects)
