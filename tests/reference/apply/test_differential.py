"""Random archives, applied to a chain of layers: overlay2, vfs and the oracle have the same tree.

Markers, symlinks, hard links, changes of type and implied parents, in any order. A driver may
refuse an archive only if paths pass through symlinks or the target of a hard link is deleted.
"""

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from graphdriver.errors import BadArchive
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.tree import (
    NodeKind,
    Tree,
    directory,
    fifo,
    file,
    parents,
    symlink,
)

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "60"))
numbers = itertools.count()

parts = st.sampled_from(["a", "b", "s", "x"])
names = st.lists(parts, min_size=1, max_size=3)
targets = st.sampled_from(["a", "b", "s", "../b", "/a", ".", "a/x", "x"])
nodes = st.one_of(
    st.builds(file, st.sampled_from([b"", b"one", b"three"]), st.sampled_from([0o644, 0o600])),
    st.builds(directory, st.sampled_from([0o755, 0o700, 0o1777])),
    st.builds(symlink, targets),
    st.builds(fifo),
)


@st.composite
def chains(draw: st.DrawFn) -> list[list[LayerEntry]]:
    """Draw a base layer and up to two on top of it, with entries from a small set of names."""
    known: list[str] = []

    def name() -> str:
        extends, is_known = draw(st.integers(0, 2)) > 0, draw(st.booleans())
        if not known or not extends:
            return "/".join(draw(names))
        above = draw(st.sampled_from(known))
        return above if is_known or above.count("/") > 2 else f"{above}/{draw(parts)}"

    def entry(most: int) -> LayerEntry:
        kind = draw(st.integers(0, most))
        if kind == 5 and known:
            target = draw(st.sampled_from(known)).encode()
            return entry_of(name(), file(), target)
        if kind in (6, 7):
            return whiteout(name())
        if kind == 8:
            return opaque(name() if draw(st.integers(0, 3)) else "")
        made = name()
        known.append(made)
        return entry_of(made, draw(nodes))

    base = [entry(5) for _ in range(draw(st.integers(2, 8)))]
    above = [
        [entry(8) for _ in range(draw(st.integers(1, 6)))] for _ in range(draw(st.integers(1, 2)))
    ]
    return [base, *above]


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[list[Overlay2 | Vfs]]:
    made: list[Overlay2 | Vfs] = [Overlay2(tmp_path / "overlay2"), Vfs(tmp_path / "vfs")]
    yield made
    for driver in made:
        driver.cleanup()


@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes of mounts
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chains(), st.booleans())
def test_drivers_and_oracle_agree(
    drivers: list[Overlay2 | Vfs], chain: list[list[LayerEntry]], in_one_layer: bool
) -> None:
    expected = [Tree()]
    for entries in chain:
        try:
            expected.append(apply_layer(expected[-1], entries))
        except ValueError:
            assume(len(expected) > 1)
            chain = chain[: len(expected) - 1]
            break

    for driver in drivers:
        _compare(driver, chain, expected, in_one_layer)


def _compare(
    driver: Overlay2 | Vfs, chain: list[list[LayerEntry]], expected: list[Tree], in_one_layer: bool
) -> None:
    """Apply each archive to a layer of its own, or all but the first to the second layer."""
    prefix, parent = f"layer-{next(numbers)}", ""
    made: list[str] = []
    try:
        for number, entries in enumerate(chain):
            is_new = number < 2 or not in_one_layer
            if is_new:
                id = f"{prefix}-{number}"
                driver.create(id, parent)
                made.append(id)
            refusal: BadArchive | None = None
            try:
                size = driver.apply_diff(id, parent, io.BytesIO(build_archive(entries)))
            except BadArchive as error:
                refusal = error
            if refusal:
                assert _may_refuse(expected[number], entries), f"{driver} refuses it: {refusal}"
                tree = _tree(driver, id)
                assert_same_tree(expected[number], tree, "it is refused, but a part stays")
                return
            linked = any(entry.hardlink is not None for below in chain[:number] for entry in below)
            # As in the kernel, copy-up of one name separates it from the other names of the lower
            # file.
            without = Aspect.DIRECTORY_MTIME | (Aspect.HARDLINKS if linked else Aspect(0))
            aspects = Aspect.ALL & ~without
            tree = _tree(driver, id)
            assert_same_tree(expected[number + 1], tree, f"layer {number} on {driver}", aspects)
            # The archive may contain a file that equals the lower one, which is not a change.
            assert not is_new or driver.diff_size(id, parent) <= size
            _assert_travels(driver, id, parent, tree, f"{prefix}-sibling-{number}", made)
            parent = id if number == 0 or not in_one_layer else parent
    finally:
        for id in reversed(made):
            driver.remove(id)


def _assert_travels(
    driver: Overlay2 | Vfs, id: str, parent: str, tree: Tree, sibling: str, made: list[str]
) -> None:
    """Assert that the layer's own archive creates the same tree on the parent."""
    with driver.diff(id, parent) as stream:
        archive = stream.read()
    driver.create(sibling, parent)
    made.append(sibling)
    driver.apply_diff(sibling, parent, io.BytesIO(archive))
    aspects = Aspect.ALL & ~Aspect.DIRECTORY_MTIME & ~Aspect.HARDLINKS
    assert_same_tree(tree, _tree(driver, sibling), f"what {driver} makes of its own diff", aspects)


def _tree(driver: Overlay2 | Vfs, id: str) -> Tree:
    view = driver.get(id)
    try:
        return observe(view)
    finally:
        driver.put(id)


def _may_refuse(below: Tree, entries: list[LayerEntry]) -> bool:
    """Return whether rulings allow a driver to refuse the archive (31 to 33, corner case 55)."""
    symlinks = {name for name, node in below.items() if node.kind is NodeKind.SYMLINK}
    symlinks |= {entry.name for entry in entries if entry.node.kind is NodeKind.SYMLINK}
    solid = {
        entry.name
        for entry in entries
        if not entry.node.is_directory and not entry.name.rpartition(b"/")[2].startswith(b".wh.")
    }
    # The target of a hard link cannot be replaced by a parent directory of another member.
    solid |= {entry.hardlink for entry in entries if entry.hardlink is not None}
    for entry in entries:
        if entry.hardlink == entry.name:
            return True
        for path in (entry.name, entry.hardlink or b""):
            if not (symlinks | solid).isdisjoint(parents(path)):
                return True
    return any(entry.hardlink is not None and entry.hardlink not in below for entry in entries)
