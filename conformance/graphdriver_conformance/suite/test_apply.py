"""DIF-002 and DIF-018 on: apply_diff of valid and invalid archives."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import (
    PLAIN,
    Dialect,
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer, flatten, make_layer
from graphdriver_conformance.oracle.strategies import dialects, successors, trees
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink
from graphdriver_conformance.suite.support.effort import examples, scaled
from graphdriver_conformance.suite.support.metadata_changes import (
    changed_capabilities,
    changed_devices,
    changed_owners,
)
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)

IMAGE = Tree.of({"d/a": b"a", "d/b": b"b", "e/sub/c": b"c", "top": b"top"})


def _applied(
    graphdriver: Subject, below: Tree, entries: list[LayerEntry], dialect: Dialect = PLAIN
) -> Tree:
    """Return the tree of a new layer on `below` to which the archive of `entries` was applied."""
    layer = graphdriver.new_layer(graphdriver.build(below))
    graphdriver.apply_diff(layer, graphdriver.parent_of(layer), build_archive(entries, dialect))
    return graphdriver.tree(layer)


def _assert_applies(
    graphdriver: Subject, below: Tree, entries: list[LayerEntry], dialect: Dialect = PLAIN
) -> None:
    wanted = apply_layer(below, entries)
    assert_same_tree(wanted, _applied(graphdriver, below, entries, dialect))


@verifies("DIF-002")
@given(data=st.data(), old=trees(12))
@examples(40)
def test_archive_makes_a_sibling_equal(
    graphdriver: Subject, data: st.DataObject, old: Tree
) -> None:
    """diff, apply_diff, compare: the round trip of every push and pull."""
    new = data.draw(successors(old, 8))
    base = graphdriver.build(old)
    layer = graphdriver.build(new, base)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(new, graphdriver.tree(sibling), "the sibling differs from the layer")
    assert_same_tree(old, graphdriver.tree(base), "apply_diff changed the parent")


@verifies("DIF-002")
def test_directory_made_again_is_empty_for_the_sibling(graphdriver: Subject) -> None:
    """A recreated directory is exported as opaque, or with one whiteout for each old entry."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)
    wanted = Tree.of({"d": directory(), "d/new": b"new"})
    graphdriver.fill(layer, Tree())
    graphdriver.fill(layer, wanted)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(wanted, graphdriver.tree(sibling), "the sibling differs from the layer")


@verifies("DIF-065")
@pytest.mark.parametrize("what", ["owners", "capabilities", "device numbers"])
def test_metadata_alone_is_in_the_archive(graphdriver: Subject, what: str) -> None:
    """Size, content, mode and time are as before."""
    if what == "capabilities":
        old, new = changed_capabilities(graphdriver)
    else:
        old, new = changed_owners() if what == "owners" else changed_devices()
    base = graphdriver.build(old)
    layer = graphdriver.build(new, base)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(new, graphdriver.tree(sibling), "the sibling differs from the layer")


@verifies("DIF-018")
@given(data=st.data(), old=trees())
@examples(15)
def test_applying_to_a_layer_with_content(
    graphdriver: Subject, data: st.DataObject, old: Tree
) -> None:
    """A second archive applied to a layer changes it as a child layer would."""
    below = Tree.of({"d/a": b"below", "f": b"below"})
    first = make_layer(below, data.draw(successors(below)))
    middle = apply_layer(below, first)
    second = make_layer(middle, data.draw(successors(middle)), use_opaque=data.draw(st.booleans()))
    layer = graphdriver.new_layer(graphdriver.build(below))

    for entries in (first, second):
        archive = build_archive(entries, data.draw(dialects()))
        graphdriver.apply_diff(layer, graphdriver.parent_of(layer), archive)

    assert_same_tree(apply_layer(middle, second), graphdriver.tree(layer))


@verifies("DIF-018")
def test_second_archive_replaces_adds_and_deletes(graphdriver: Subject) -> None:
    """Members of the first archive are lower files for the markers of the second."""
    first = [entry_of("d/one", file(b"1")), entry_of("two", file(b"2")), whiteout("top")]
    second = [
        whiteout("two"),
        opaque("d"),
        entry_of("d/three", file(b"3")),
        entry_of("top", file(b"new")),
    ]
    layer = graphdriver.new_layer(graphdriver.build(IMAGE))

    for entries in (first, second):
        graphdriver.apply_diff(layer, graphdriver.parent_of(layer), build_archive(entries))

    wanted = apply_layer(apply_layer(IMAGE, first), second)
    assert_same_tree(wanted, graphdriver.tree(layer))


@verifies("DIF-019")
@pytest.mark.parametrize(
    "stream", [b"", bytes(1024), bytes(10240), bytes(10 << 20)], ids=lambda s: str(len(s))
)
def test_empty_streams_are_empty_layers(graphdriver: Subject, stream: bytes) -> None:
    """An empty stream results in an empty layer of size 0."""
    layer = graphdriver.new_layer(graphdriver.build(IMAGE))

    size = graphdriver.apply_diff(layer, graphdriver.parent_of(layer), stream)

    assert size == 0 or not graphdriver.claims(Capability.DIFF_SIZE), f"its size is {size}"
    assert_same_tree(IMAGE, graphdriver.tree(layer))


@verifies("DIF-020")
def test_cut_archive_is_an_error(graphdriver: Subject) -> None:
    """The archive is truncated at each block; afterwards the layer can be removed."""
    base = graphdriver.build(IMAGE)
    entries = [entry_of("d", directory()), whiteout("d/a"), entry_of("big", file(b"x" * 3000))]
    archive = build_archive([*entries, entry_of("last", file(b"end"))]).rstrip(b"\0")
    end = -(-len(archive) // 512) * 512
    cuts = [*range(512, end, 512), 1, 100, 513]
    for cut in cuts[: scaled(40)]:
        layer = graphdriver.new_layer(base)
        graphdriver.refuses("apply_diff", layer, base, io.BytesIO(archive[:cut].ljust(cut, b"\0")))
        graphdriver.remove(layer)
        assert not graphdriver.exists(layer)

    assert_same_tree(IMAGE, graphdriver.tree(base))


@verifies("DIF-021")
@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "text", "noise", "half a block"])
def test_junk_is_an_error(graphdriver: Subject, kind: str) -> None:
    """The archive is refused early and without a change, or decompressed and unpacked."""
    archive = build_archive([entry_of("a", file(b"a"))])
    junk = {
        "gzip": gzip.compress(archive),
        "bzip2": bz2.compress(archive),
        "xz": lzma.compress(archive),
        "text": b"this is not an archive\n" * 100,
        "noise": bytes(range(1, 256)) * 20,
        "half a block": b"x" * 256,
    }[kind]
    layer = graphdriver.new_layer(graphdriver.build(IMAGE))

    if kind in ("gzip", "bzip2", "xz"):
        try:
            graphdriver.apply_diff(layer, graphdriver.parent_of(layer), junk)
        except (DriverError, OSError):
            pass  # a refusal is allowed
        else:
            wanted = IMAGE.with_(b"a", file(b"a"))
            assert_same_tree(wanted, graphdriver.tree(layer), "accepted, but not unpacked")
            return
    else:
        graphdriver.refuses("apply_diff", layer, "", io.BytesIO(junk))

    assert_same_tree(IMAGE, graphdriver.tree(layer), "the refused stream changed the layer")


@verifies("DIF-022")
def test_parent_argument_does_not_change_the_result(graphdriver: Subject) -> None:
    """The parent argument is the direct parent, the grandparent, or empty."""
    base = graphdriver.build(IMAGE)
    middle = graphdriver.build(Tree.of({"d/a": b"a", "m": b"m"}), base)
    archive = build_archive([whiteout("d/a"), entry_of("n", file(b"n"))])
    shown = []
    for parent in (middle, base, ""):
        layer = graphdriver.new_layer(middle)
        graphdriver.apply_diff(layer, parent, archive)
        shown.append(graphdriver.tree(layer))

    for tree in shown:
        assert_same_names({b"", b"d", b"m", b"n"}, tree, "the layer")


@verifies("DIF-023")
def test_applying_to_an_unknown_layer(graphdriver: Subject) -> None:
    """The driver must not create the layer."""
    archive = build_archive([entry_of("a", file(b"a"))])
    before = settled_names(graphdriver)

    graphdriver.refuses("apply_diff", "nope", "", io.BytesIO(archive))

    assert not graphdriver.exists("nope")
    assert_same_names(before, home_names(graphdriver.home), "the refused apply changed the home")


class _StaysOpen(io.BytesIO):
    """A stream that can be read after the driver has closed it, which it may do."""

    def close(self) -> None:
        pass


@verifies("DIF-024")
def test_stream_is_read_to_its_end(graphdriver: Subject) -> None:
    """A megabyte of zeros follows the end of the archive."""
    base = graphdriver.build(Tree.of({"below": b""}))
    layer = graphdriver.new_layer(base)
    stream = _StaysOpen(build_archive([entry_of(b"f", file(b"x"))]) + bytes(1 << 20))

    graphdriver.apply_diff(layer, base, stream)

    assert stream.read() == b"", "the stream was not read to its end"


@verifies("ARC-010")
@pytest.mark.parametrize("name", [b"BZh-notes", b"\x04\x22M\x18"], ids=["bzip2", "lz4"])
def test_first_name_may_begin_as_a_compressed_stream(graphdriver: Subject, name: bytes) -> None:
    """The first name of a tar is at the offset of a compression magic such as that of bzip2."""
    _assert_applies(graphdriver, IMAGE, [entry_of(name, file(b"x"))])


@verifies("DIF-025")
@given(data=st.data(), old=trees(12))
@examples(25)
def test_markers_of_either_kind_in_any_place(
    graphdriver: Subject, data: st.DataObject, old: Tree
) -> None:
    """The members are opaque or explicit whiteouts, in any order."""
    new = data.draw(successors(old))
    layer = make_layer(old, new, use_opaque=data.draw(st.booleans()))
    markers = [entry for entry in layer if b".wh." in entry.name]
    content = [entry for entry in layer if b".wh." not in entry.name]
    cut = data.draw(st.integers(0, len(content)))

    entries = [*content[:cut], *markers, *content[cut:]]
    _assert_applies(graphdriver, old, entries, data.draw(dialects()))


@verifies("DIF-025")
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_opaque_marker_among_its_siblings(graphdriver: Subject, place: int) -> None:
    """The marker hides lower files only, at any position in the archive."""
    content = [entry_of("d", directory()), entry_of("d/a", file(b"2")), entry_of("d/n", file())]

    _assert_applies(graphdriver, IMAGE, [*content[:place], opaque("d"), *content[place:]])


@verifies("DIF-025")
def test_markers_in_directories_without_an_entry(graphdriver: Subject) -> None:
    """Such a directory keeps the mode that it has below, as with any other member (DIF-033)."""
    below = Tree.of({"t": directory(0o1777), "t/a": b"a", "p": directory(0o700), "p/b": b"b"})

    _assert_applies(graphdriver, below, [whiteout("t/a"), opaque("p")])


@verifies("DIF-026")
@pytest.mark.parametrize("marker_first", [True, False], ids=["before", "after"])
def test_whiteout_beside_its_directory(graphdriver: Subject, marker_first: bool) -> None:
    """Only the layer's own members are in d."""
    content = [entry_of("d", directory()), entry_of("d/new", file(b"new"))]
    marker = [whiteout("d")]

    tree = _applied(graphdriver, IMAGE, marker + content if marker_first else content + marker)

    assert_same_names({b"d/new"}, {one for one in tree if one.startswith(b"d/")}, "in d")


@verifies("DIF-027")
@pytest.mark.parametrize("marker_first", [True, False], ids=["before", "after"])
def test_whiteout_beside_its_file(graphdriver: Subject, marker_first: bool) -> None:
    """The file is a member of the layer; an error is accepted, a missing file is not."""
    content, marker = [entry_of("top", file(b"new"))], [whiteout("top")]
    layer = graphdriver.new_layer(graphdriver.build(IMAGE))
    entries = marker + content if marker_first else content + marker
    try:
        graphdriver.apply_diff(layer, graphdriver.parent_of(layer), build_archive(entries))
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return

    tree = graphdriver.tree(layer)
    assert b"top" in tree, "the whiteout deleted the file of its own layer"
    assert tree[b"top"].content == b"new"


@verifies("DIF-028")
def test_whiteout_inside_a_deleted_directory(graphdriver: Subject) -> None:
    """In both orders."""
    for entries in ([whiteout("d"), whiteout("d/a")], [whiteout("d/a"), whiteout("d")]):
        tree = _applied(graphdriver, IMAGE, entries)
        assert b"d" not in tree, "the deleted directory exists"
        assert b"top" in tree


@verifies("DIF-029")
def test_whiteout_of_nothing(graphdriver: Subject) -> None:
    """The marker is in the root, in a directory, in a missing directory, or opaque."""
    entries = [whiteout("nope"), whiteout("d/nope"), whiteout("no/nope"), whiteout("top/x")]

    assert_same_tree(IMAGE, _applied(graphdriver, IMAGE, entries))


@verifies("DIF-030")
@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."])
def test_whiteout_without_a_name(graphdriver: Subject, name: str) -> None:
    """Docker deleted the marker's directory or its parent."""
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base)
    try:
        graphdriver.apply_diff(
            layer, graphdriver.parent_of(layer), build_archive([LayerEntry(name.encode(), file())])
        )
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")

    left = set(graphdriver.tree(layer))
    assert set(IMAGE) <= left, f"{name!r} removed {set(IMAGE) - left}"
    assert_same_tree(IMAGE, graphdriver.tree(base))


@verifies("DIF-031")
@pytest.mark.parametrize("marker_first", [True, False], ids=["before", "after"])
def test_opaque_root(graphdriver: Subject, marker_first: bool) -> None:
    """The opaque root corresponds to FROM scratch in the middle of an image."""
    content = [entry_of("d", directory()), entry_of("d/new", file(b"new"))]
    entries = [opaque(""), *content] if marker_first else [*content, opaque("")]

    assert_same_names({b"", b"d", b"d/new"}, _applied(graphdriver, IMAGE, entries), "the layer")


@verifies("DIF-032")
@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../usr/./lib"])
def test_path_through_a_lower_symlink(graphdriver: Subject, target: str) -> None:
    """The symlink is kept, and the file is created in its target."""
    below = Tree.of({"usr/lib/old": b"old", "lib": symlink(target)})
    tree = _applied(graphdriver, below, [entry_of("lib/new", file(b"new"))])

    assert b"lib" in tree, "the symlink was removed"
    assert tree[b"lib"].target, "the symlink was replaced"
    missing = {b"usr/lib/old", b"usr/lib/new"} - set(tree)
    assert not missing, f"{sorted(missing)} are missing; there are {sorted(tree)}"


@verifies("DIF-033")
def test_implied_directories_keep_their_mode(graphdriver: Subject) -> None:
    """A lower directory keeps its metadata; a new one can be entered."""
    below = Tree.of({"d": directory(0o1777), "d/sub": directory(0o750), "d/sub/old": b""})
    tree = _applied(graphdriver, below, [entry_of("d/sub/new", file()), entry_of("x/y/z", file())])

    missing = {b"d", b"d/sub", b"d/sub/new", b"x", b"x/y", b"x/y/z"} - set(tree)
    assert not missing, f"{sorted(missing)} are missing"
    assert (tree[b"d"].mode, tree[b"d/sub"].mode) == (0o1777, 0o750)
    for name in (b"x", b"x/y"):
        mode = tree[name].mode
        assert mode & 0o555 == 0o555, f"{name!r} has mode {mode:o}"


@verifies("DIF-034")
@given(data=st.data())
@examples(10)
def test_layers_in_order_make_the_image(graphdriver: Subject, data: st.DataObject) -> None:
    """Up to five layers are pulled one after the other."""
    layers, tree, id = [], Tree(), ""
    for _ in range(data.draw(st.integers(1, 5))):
        new = data.draw(successors(tree))
        layers.append(make_layer(tree, new, use_opaque=data.draw(st.booleans())))
        child = graphdriver.new_layer(id)
        graphdriver.apply_diff(child, id, build_archive(layers[-1], data.draw(dialects())))
        tree, id = flatten(layers), child
        assert_same_tree(tree, graphdriver.tree(id), f"after layer {len(layers)}")


@verifies("DIF-034")
def test_gnu_and_pax_headers_are_understood(graphdriver: Subject) -> None:
    """The archive has long names in both forms, a global header, and a directory twice."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        headers = {"comment": "made by hand"} if form == tarfile.PAX_FORMAT else {}
        with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers=headers) as archive:
            for name in ("d", "d/" + "n" * 200):
                info = tarfile.TarInfo(name)
                info.type = tarfile.REGTYPE if "n" in name else tarfile.DIRTYPE
                info.mode = 0o755
                archive.addfile(info)
        layer = graphdriver.new_layer()
        graphdriver.apply_diff(layer, graphdriver.parent_of(layer), buffer.getvalue())
        assert_same_names({b"", b"d", b"d/" + b"n" * 200}, graphdriver.tree(layer), "the layer")
