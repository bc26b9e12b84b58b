"""Hypothesis strategies for trees and edits of trees."""

from functools import cache

from hypothesis import strategies as st

from graphdriver_conformance.oracle.archive import PLAIN, Dialect, Long
from graphdriver_conformance.oracle.tar_blocks import Format
from graphdriver_conformance.oracle.tree import EPOCH, Node, Tree, directory, fifo, file, symlink

__all__ = ["dialects", "names", "nodes", "successors", "trees"]

# Few, so that layers have common names; unusual, so that quoting and encoding are tested too.
_PLAIN = [b"a", b"b", b"c", b"dir", b"etc"]
_AWKWARD = [b"\xff\xfe", b"new\nline", b"-dash", b"co:lon,comma", b"back\\slash", b" ", b"x" * 255]


# Cached: the first draw of a new strategy validates it, which takes longer than the draw.
@cache
def names() -> st.SearchStrategy[bytes]:
    """Return single file names."""
    return st.one_of(st.sampled_from(_PLAIN), st.sampled_from(_PLAIN + _AWKWARD))


def _mtimes() -> st.SearchStrategy[int]:
    return st.integers(0, 3).map(lambda offset: EPOCH + offset)


def _files() -> st.SearchStrategy[Node]:
    content = st.sampled_from([b"", b"one", b"two", b"x" * 512, b"y" * 5000])
    mode = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o444])
    return st.builds(lambda c, m, t: file(c, m, mtime=t), content, mode, _mtimes())


@cache
def nodes() -> st.SearchStrategy[Node]:
    """Return nodes that an ordinary user can create, too."""
    targets = st.sampled_from([b"a", b"../b", b"/etc", b"nowhere", b"dir/c"])
    return st.one_of(
        _files(),
        _files(),
        st.builds(lambda m: directory(m), st.sampled_from([0o755, 0o700, 0o1777])),
        st.builds(lambda t, m: symlink(t, mtime=m), targets, _mtimes()),
        st.builds(lambda m: fifo(mtime=m), _mtimes()),
    )


@cache
def dialects() -> st.SearchStrategy[Dialect]:
    """Return archive formats that every engine reads."""
    return st.sampled_from(
        [
            PLAIN,
            Dialect(slashes=True, root=b"./", root_of_links=b"./"),
            Dialect(slashes=True, root=b"./"),
            Dialect(root=b"/", root_of_links=b"/"),
            Dialect(root_of_links=b"/", comment=True),
            Dialect(always_long=True, slashes=True, record=1024),
            Dialect(Format.V7, Long.GNU, slashes=True, old_files=True),
            Dialect(Format.V7, slashes=True, old_files=True, old_directories=True),
            Dialect(Format.GNU, Long.GNU, slashes=True),
            Dialect(Format.GNU, Long.GNU, base256=True, root=b"./", record=512),
            Dialect(Format.GNU, Long.GNU, always_long=True),
            Dialect(Format.STAR, slashes=True),
        ]
    )


@st.composite
def trees(draw: st.DrawFn, most: int = 8) -> Tree:
    """Draw a tree of up to `most` nodes, some of them hard links to each other."""
    return _grown(draw, Tree(), draw(st.integers(0, most)))


@st.composite
def successors(draw: st.DrawFn, tree: Tree, most: int = 6) -> Tree:
    """Draw the result of a few edits of `tree`: nodes removed, replaced, changed and added."""
    for _ in range(draw(st.integers(0, 3))):
        there = sorted(name for name in tree if name)
        if there:
            tree = tree.without(draw(st.sampled_from(there)))
    return _grown(draw, tree.canonical(), draw(st.integers(0, most)))


def _grown(draw: st.DrawFn, tree: Tree, count: int) -> Tree:
    for _ in range(count):
        inner = sorted(name for name in tree if tree[name].is_directory and name.count(b"/") < 3)
        above = draw(st.sampled_from(inner))
        name = above + b"/" + draw(names()) if above else draw(names())
        files = sorted(one for one in tree if one and not tree[one].is_directory and one != name)
        if files and draw(st.integers(0, 5)) == 0:
            target = draw(st.sampled_from(files))
            group = tree[target].link or target
            tree = tree.with_(target, tree[target].but(link=group))
            tree = tree.with_(name, tree[target])
        else:
            tree = tree.with_(name, draw(nodes()))
        # At every step: a group whose first name was removed would be confused with a later one.
        tree = tree.canonical()
    return tree
