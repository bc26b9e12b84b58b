"""C-13 to C-18, C-46 to C-49, C-52 to C-56, C-66: paths of members, valid and invalid."""

import os
import resource
from collections.abc import Iterator

import pytest

from graphdriver.errors import BadArchive
from graphdriver_conformance.oracle.archive import LayerEntry, entry_of
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import plant
from graphdriver_conformance.oracle.tree import Node, Tree, directory, file, symlink
from reference.archive.corners.layers import ALL_BUT_ROOT, ON_PLAIN_MOUNTS, Layers

IMAGE = Tree.of({"d/a": b"a", "d/sub/b": b"b", "top": b"top"})


def _swaps(layers: Layers, old: Tree, new: Tree) -> list[str]:
    """Create both trees, assert that the archive of the second applies; return the changes."""
    base = layers.built(old)
    layer = layers.built(new, base)
    assert_same_tree(new, layers.tree(layer))
    layers.assert_travels(layer, base)
    return layers.shown(layer, base)


def test_c13_file_becomes_a_directory(layers: Layers) -> None:
    new = IMAGE.without(b"top").with_(b"top", directory(0o750)).with_(b"top/in", file(b"in"))

    assert _swaps(layers, IMAGE, new) == ["C /top", "A /top/in"]


def test_c14_directory_becomes_a_file(layers: Layers) -> None:
    assert _swaps(layers, IMAGE, IMAGE.with_(b"d", file(b"now a file"))) == ["C /d"]


def test_c15_directory_and_symlink_change_places(layers: Layers) -> None:
    old = Tree.of({"d/a": b"a", "other/a": b"kept", "s": symlink("other")})
    new = Tree.of({"d": symlink("other"), "other/a": b"kept", "s/a": b"in s"})

    assert _swaps(layers, old, new) == ["C /d", "C /s", "A /s/a"]


def test_c15_directory_entry_over_a_symlink_writes_nothing_through_it(layers: Layers) -> None:
    below = Tree.of({"other/a": b"kept", "s": symlink("other")})

    tree = layers.applied(below, [entry_of("s", directory()), entry_of("s/a", file(b"in s"))])

    assert (tree[b"other/a"].content, tree[b"s/a"].content) == (b"kept", b"in s")
    assert tree[b"s"].is_directory


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../usr/./lib", "../../../usr/lib"])
def test_c16_path_through_a_lower_symlink_stays_in_the_root(layers: Layers, target: str) -> None:
    below = Tree.of({"usr/lib/old": b"old", "lib": symlink(target)})

    tree = layers.applied(below, [entry_of("lib/new", file(b"new"))])

    assert_same_tree(Tree({**below, b"usr/lib/new": file(b"new")}), tree)


def test_c17_implied_directories(layers: Layers) -> None:
    """Existing parents keep mode, owner and time; missing ones are created as root's, 0755."""
    kept = directory(0o1770, uid=5, gid=6)
    below = Tree.of({"d": kept, "d/sub": directory(0o711), "d/sub/old": b""})

    tree = layers.applied(below, [entry_of("d/sub/new", file()), entry_of("x/y/z", file())])

    aspects = Aspect.DEFAULT | Aspect.DIRECTORY_MTIME
    wanted = Tree({**below, b"d/sub/new": file(), b"x": tree[b"x"], b"x/y": tree[b"x/y"]})
    assert_same_tree(wanted.with_(b"x/y/z", file()), tree, "", aspects)
    for name in (b"x", b"x/y"):
        assert (tree[name].mode, tree[name].uid, tree[name].gid) == (0o755, 0, 0)


def test_c18_dot_entry_sets_the_metadata_of_the_root(layers: Layers) -> None:
    attributes = frozenset({("user.root", b"yes")})
    root = directory(0o1711, uid=3, gid=4, mtime=1_000_000_000, xattrs=attributes)
    layer = layers.new(layers.built(IMAGE))

    layers.apply(layer, [LayerEntry(b"./", root), entry_of("new", file())])
    child = layers.new(layer)

    for id in (layer, child):
        found = layers.tree(id)[b""].but(mtime=root.mtime if id == child else None)
        assert found == root.but(mtime=found.mtime)
    assert layers.tree(layer)[b""].mtime == 1_000_000_000
    assert b"." in layers.names(layer, layers.driver.get_metadata(layer)["LowerDir"].split("/")[-2])


@pytest.mark.parametrize("length", [99, 100, 101, 155, 156, 255])
def test_c46_long_names_of_files_directories_and_whiteouts(layers: Layers, length: int) -> None:
    name = b"n" * length
    base = layers.built(Tree.of({b"d/" + name: b"x", b"gone/" + name: b"y", b"gone/z": b""}))
    new = Tree.of({b"d/" + name: b"changed", b"gone/z": b"", name + b"/" + name: b"inside"})

    layer = layers.built(new, base)

    layers.assert_travels(layer, base)
    assert b"gone/.wh." + name in layers.names(layer, base)


def test_c46_paths_beyond_path_max(layers: Layers) -> None:
    """A program can create them step by step; diff, changes, apply_diff and remove support them."""
    base, parts = layers.new(), [b"%d" % n + b"p" * 200 for n in range(25)]
    layer = layers.new(base)
    for id, content in ((base, b"lower"), (layer, b"upper")):
        with layers.view(id) as root:
            _write_deep(root, parts, content)
    sibling = layers.new(base)

    layers.apply(sibling, layers.archive(layer, base), base)

    for id, content in ((base, b"lower"), (layer, b"upper"), (sibling, b"upper")):
        with layers.view(id) as root:
            assert _read_deep(root, parts) == content
    assert layers.shown(layer, base)[-1] == "C /" + os.fsdecode(b"/".join([*parts, b"f"]))
    assert layers.driver.diff_size(layer, base) == 5
    for id in (sibling, layer, base):
        layers.driver.remove(id)


def _enter(root: os.PathLike[str], parts: list[bytes]) -> int:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        if part not in map(os.fsencode, os.listdir(descriptor)):
            os.mkdir(part, dir_fd=descriptor)
        below = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    return descriptor


def _write_deep(root: os.PathLike[str], parts: list[bytes], content: bytes) -> None:
    directory = _enter(root, parts)
    descriptor = os.open(b"f", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, dir_fd=directory)
    os.write(descriptor, content)
    os.close(descriptor)
    os.close(directory)


def _read_deep(root: os.PathLike[str], parts: list[bytes]) -> bytes:
    directory = _enter(root, parts)
    descriptor = os.open(b"f", os.O_RDONLY, dir_fd=directory)
    data = os.read(descriptor, 100)
    os.close(descriptor)
    os.close(directory)
    return data


@pytest.mark.parametrize("length", [99, 100, 101, 255, 256, 4095])
def test_c47_long_targets_of_links(layers: Layers, length: int) -> None:
    base = layers.built(IMAGE)
    layer = layers.built(IMAGE.with_(b"s", symlink(b"t" * length)), base)

    layers.assert_travels(layer, base)


def _assert_name_travels(layers: Layers, name: bytes) -> None:
    old = Tree.of({b"d/" + name: b"old", b"gone/" + name: b"", b"gone/kept": b""})
    new = Tree.of({b"d/" + name: b"new", b"gone/kept": b"", name: symlink(name)})

    base = layers.built(old)
    layer = layers.built(new, base)

    layers.assert_travels(layer, base)
    assert {change.path for change in layers.changes(layer, base)} == {
        b"/" + name,
        b"/d",
        b"/d/" + name,
        b"/gone",
        b"/gone/" + name,
    }


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9", b"\x80", b"\xed\xa0\x80"])
def test_c48_names_need_not_be_text(layers: Layers, name: bytes) -> None:
    _assert_name_travels(layers, name)


@pytest.mark.parametrize(
    "name", [b"new\nline", b"back\\slash", b"-rf", b"co:lon,comma", b" ", b"=", b"1 2=3", b'"']
)
def test_c49_names_with_special_characters(layers: Layers, name: bytes) -> None:
    _assert_name_travels(layers, name)


def test_c52_last_of_two_entries_counts(layers: Layers) -> None:
    twice = {
        "f": (file(b"1"), file(b"two")),
        "t": (directory(), file(b"f")),
        "u": (file(), directory()),
    }
    first = [entry_of(name, pair[0]) for name, pair in twice.items()]
    last = [entry_of(name, pair[1]) for name, pair in twice.items()]
    layer = layers.new(layers.built(IMAGE))

    size = layers.apply(layer, [*first, *last])

    tree = layers.tree(layer)
    assert {name: tree[name] for name in (b"f", b"t", b"u")} == {
        name.encode(): pair[1] for name, pair in twice.items()
    }
    assert 4 == size == layers.driver.diff_size(layer, "") - 5


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"..", b"d/..", b"/../x", b"./../x"])
def test_c53_names_with_dots_are_refused(layers: Layers, name: bytes) -> None:
    layers.refuses(BadArchive, "leaves the layer", [LayerEntry(name, file(b"x"))])


def test_c53_absolute_names_are_inside(layers: Layers) -> None:
    tree = layers.applied(IMAGE, [LayerEntry(b"//d//./new", file(b"x"))])

    assert tree[b"d/new"].content == b"x"


OUTSIDE = Tree.of({"secret": file(b"secret", 0o600)})
UP = "../" * 30


def _chains(victim: str) -> dict[str, list[tuple[str, Node, bytes | None]]]:
    out = UP + victim.lstrip("/")
    into = file(b"overwritten")
    return {
        "relative": [("s", symlink(out), None), ("s/secret", into, None)],
        "absolute": [("s", symlink(victim), None), ("s/secret", into, None)],
        "two": [("s", symlink("t/."), None), ("t", symlink(out), None), ("s/secret", into, None)],
        "to a file": [("s", symlink(out + "/secret"), None), ("s", into, None)],
        "link through": [("s", symlink(out), None), ("h", file(), b"s/secret"), ("h", into, None)],
        "link to": [("s", symlink(out + "/secret"), None), ("h", file(), b"s"), ("h", into, None)],
    }


@pytest.mark.parametrize("name", list(_chains("/v")))
def test_c54_chains_of_links_end_inside(layers: Layers, name: str) -> None:
    victim = layers.home.parent / "victim"
    victim.mkdir()
    plant(OUTSIDE, victim)
    entries = [entry_of(*member) for member in _chains(str(victim))[name]]
    layer = layers.new(layers.built(IMAGE))

    try:
        layers.apply(layer, entries)
    except BadArchive:
        assert_same_tree(IMAGE, layers.tree(layer), "the refused archive left something")

    assert_same_tree(OUTSIDE, observe(victim), name, ALL_BUT_ROOT)


@pytest.mark.parametrize("target", [b"../outside", b"/etc/passwd", b"d/../../x", b"nowhere"])
def test_c55_hard_link_to_what_is_not_in_the_layer_is_refused(
    layers: Layers, target: bytes
) -> None:
    layers.refuses(BadArchive, "leaves the layer|is not there", [entry_of("h", file(), target)])


def test_c56_loop_of_symlinks_is_refused(layers: Layers) -> None:
    entries = [entry_of("x", symlink("y")), entry_of("y", symlink("x")), entry_of("x/f", file())]

    layers.refuses(BadArchive, "loop of symlinks", entries)
    below = Tree.of({"x": symlink("y/z"), "y": symlink("x")})
    layer = layers.new(layers.built(below))
    with pytest.raises(BadArchive, match="loop of symlinks"):
        layers.apply(layer, [entry_of("x/f", file())])


def test_c66_directory_of_many_entries(layers: Layers) -> None:
    base = layers.built(Tree.of({f"d/f{n}": b"" for n in range(3000)}))
    layer = layers.new(base)
    with layers.view(layer) as root:
        for number in range(0, 3000, 2):
            (root / f"d/f{number}").unlink()
        for number in range(1000):
            (root / f"d/new{number}").touch()

    layers.assert_travels(layer, base)
    assert len(layers.changes(layer, base)) == 2501


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Set the limit to the number of descriptors that the walks require."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_c66_more_levels_than_descriptors(layers: Layers) -> None:
    """And more than the recursion limit of Python; a program can create them step by step."""
    base = layers.new()
    layer = layers.new(base)
    with layers.view(layer) as root:
        os.close(_enter(root, [b"d"] * 1500))
        (root / "d/.removed-2").write_bytes(b"a name that remove would like to use")
    sibling = layers.new(base)

    layers.apply(sibling, layers.archive(layer, base), base)

    assert len(layers.changes(sibling, base)) == 1501
    assert layers.driver.changes(sibling, layer) == []
    for id in (sibling, layer):
        layers.driver.remove(id)


@ON_PLAIN_MOUNTS
@pytest.mark.usefixtures("few_descriptors")
def test_c66_ten_thousand_levels_in_one_name(layers: Layers) -> None:
    layer = layers.new(layers.built(IMAGE))

    layers.apply(layer, [LayerEntry(b"d/" * 10_000 + b"f", file(b"x"))])

    assert layers.driver.diff_size(layer, "") == 6
    layers.driver.remove(layer)
