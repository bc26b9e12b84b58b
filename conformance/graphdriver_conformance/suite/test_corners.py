"""DIF-035: the corner cases of layer archives, by their rows in docs/corners.md.

Where engines differ, several results are accepted: an error without a change of the parent, or the
tree defined by the image-spec. A different tree without an error is a violation.
"""

import io
import tarfile
from typing import NamedTuple

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    opaque,
    whiteout,
)
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink
from graphdriver_conformance.suite.support.names import assert_there

BELOW = Tree.of({"d/a": b"a", "d/sub/b": b"b", "s": symlink("d"), "top": b"top"})
LONG = b"n" * 255


class _Case(NamedTuple):
    """The members to apply to BELOW; with `may_fail` an error is accepted."""

    entries: list[LayerEntry]
    may_fail: bool = False


CASES = {
    "C-02 directory deleted": _Case([whiteout("d")]),
    "C-11 opaque after its siblings": _Case([entry_of("d/n", file(b"n")), opaque("d")]),
    "C-13 file to directory": _Case([entry_of("top", directory()), entry_of("top/x", file(b"x"))]),
    "C-14 directory to file": _Case([entry_of("d", file(b"file"))]),
    "C-15 directory to symlink": _Case([entry_of("d", symlink("top"))]),
    "C-15 symlink to directory": _Case([entry_of("s", directory()), entry_of("s/x", file(b"x"))]),
    "C-15 symlink to file": _Case([entry_of("s", file(b"x"))]),
    "C-19 names of one file": _Case(
        [entry_of("x", file(b"x")), entry_of("d/y", file(), b"x"), entry_of("z", file(), b"d/y")]
    ),
    "C-21 hard link to the parent's file": _Case([entry_of("h", file(), b"d/a")], may_fail=True),
    "C-46 long names": _Case(
        [entry_of(LONG, directory()), entry_of(LONG + b"/" + LONG, file(b"x"))]
    ),
    "C-47 long target": _Case([entry_of("l", symlink("t" * 4000))]),
    "C-48 names that are no text": _Case([entry_of(b"\xff\xfe\x80", file(b"x"))]),
    "C-49 newline in a name": _Case([entry_of(b"new\nline 12 path=x\n", file(b"x"))]),
    "C-52 duplicate directory": _Case(
        [entry_of("e", directory(0o700)), entry_of("e/x", file(b"x")), entry_of("e", directory())],
        may_fail=True,
    ),
    "C-52 duplicate file": _Case(
        [entry_of("e", file(b"first")), entry_of("e", file(b"2nd"))], may_fail=True
    ),
    "C-53 dots and slashes in a name": _Case([entry_of("./d//./n", file(b"n"))], may_fail=True),
}


@verifies("DIF-035")
@pytest.mark.parametrize("name", list(CASES))
def test_corner_case_follows_the_image_spec(graphdriver: Subject, name: str) -> None:
    """The oracle computes the expected tree."""
    entries, may_fail = CASES[name]
    base = graphdriver.build(BELOW)
    layer = graphdriver.new_layer(base)

    if not _applied(graphdriver, layer, build_archive(entries)):
        assert may_fail, f"{name}: refused"
        graphdriver.remove(layer)
    else:
        assert_same_tree(apply_layer(BELOW, entries), graphdriver.tree(layer), name)
    assert_same_tree(BELOW, graphdriver.tree(base), f"{name}: the parent changed")


@verifies("DIF-035")
@pytest.mark.parametrize(
    "name", [".wh..wh.aufs", ".wh..wh.orph", ".wh..wh.plnk/5.7", "d/.wh..wh.tmp"]
)
def test_markers_of_aufs_show_nothing(graphdriver: Subject, name: str) -> None:
    """C-51: images from the first years of Docker contain them."""
    layer = graphdriver.new_layer(graphdriver.build(BELOW))

    if _applied(graphdriver, layer, build_archive([entry_of(name, file(b"x"))])):
        shown = [one for one in graphdriver.tree(layer) if b".wh." in one]
        assert not shown, f"the view shows {shown}"


def _without_data() -> bytes:
    info = tarfile.TarInfo("f")
    info.size = 5000
    return info.tobuf()


def _with_records(**records: str) -> bytes:
    info = tarfile.TarInfo("f")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


BAD = {
    "C-22 hard link before its target": build_archive(
        [entry_of("h", file(), b"later"), entry_of("later", file(b"x"))]
    ),
    "C-55 hard link to nothing": build_archive([entry_of("h", file(), b"nowhere")]),
    "C-56 loop of symlinks": build_archive(
        [entry_of("x", symlink("y")), entry_of("y", symlink("x")), entry_of("x/f", file(b"f"))]
    ),
    "C-61 data that is missing": _without_data(),
    "malformed size": _with_records(size="many"),
    "malformed record": _with_records(size="1").replace(b" size=", b" size-"),
}


@verifies("DIF-035")
@pytest.mark.parametrize("name", list(BAD))
def test_bad_archive_is_an_error(graphdriver: Subject, name: str) -> None:
    """The result of these archives is not defined."""
    base = graphdriver.build(BELOW)
    layer = graphdriver.new_layer(base)

    graphdriver.refuses("apply_diff", layer, base, io.BytesIO(BAD[name]))

    graphdriver.remove(layer)
    assert not graphdriver.exists(layer), f"{name}: the layer cannot be removed"
    assert_same_tree(BELOW, graphdriver.tree(base), f"{name}: the parent changed")


@verifies("DIF-035")
def test_written_hard_link_is_not_stale_after_the_next_mount(graphdriver: Subject) -> None:
    """C-23: fuse-overlayfs 1.10 showed the old content, also in the archive."""
    pair = file(b"one", link=b"a")
    base = graphdriver.build(Tree.of({"a": pair, "b": pair}).canonical())
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root, (root / "a").open("ab") as opened:
        opened.write(b" and two")
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    for id, where in ((layer, "after the next mount"), (sibling, "in the sibling")):
        tree = graphdriver.tree(id)
        assert_there([b"a"], tree, where)
        assert tree[b"a"].content == b"one and two", f"stale data {where}"


def _applied(graphdriver: Subject, layer: str, archive: bytes) -> bool:
    try:
        graphdriver.apply_diff(layer, graphdriver.parent_of(layer), archive)
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return False
    return True
