"""Writer and reader of tar in the oracle are tested with GNU tar, tarfile and each other."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphdriver_conformance.oracle.archive import (
    Dialect,
    LayerEntry,
    UnreadableArchive,
    build_archive,
    read_archive,
)
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree, differences
from graphdriver_conformance.oracle.layer import apply_layer, make_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.strategies import dialects, trees
from graphdriver_conformance.oracle.tar_blocks import (
    END,
    Format,
    Header,
    extended,
    long_name,
    padded,
    raw_members,
    record,
    sparse_map,
)
from graphdriver_conformance.oracle.tree import Node, Tree, file
from graphdriver_conformance.suite.support.forms import COMMON, SPARSE, Form, nodes_of

FILE = Header(b"f", size=3).block() + padded(b"abc")


@given(trees(), dialects())
def test_archive_in_any_dialect_is_unchanged_after_a_round_trip(
    tree: Tree, dialect: Dialect
) -> None:
    entries = make_layer(Tree(), tree)

    found = read_archive(build_archive(entries, dialect))

    assert differences(tree, apply_layer(Tree(), found), Aspect.ALL & ~Aspect.HARDLINKS) == []
    assert len(found) == len(entries)


@given(trees(), dialects())
def test_tarfile_lists_what_the_writer_wrote(tree: Tree, dialect: Dialect) -> None:
    entries = make_layer(Tree(), tree)
    assume(entries)  # tarfile rejects an archive that contains only a global header

    data = build_archive(entries, dialect)

    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        read = [(one.name.encode("utf-8", "surrogateescape"), one.size) for one in archive]
    wanted = [(e.name, 0 if e.hardlink is not None else len(e.node.content)) for e in entries]
    assert [(_bare(name), size) for name, size in read] == [
        (_bare(name), size) for name, size in wanted
    ]


def _bare(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


@pytest.mark.parametrize("form", [*COMMON, *SPARSE], ids=lambda form: str(form.name))
def test_gnu_tar_unpacks_the_tree_of_a_form(tmp_path: Path, form: Form) -> None:
    data = form.blocks + END

    command = ["tar", "-C", str(tmp_path), "--no-same-owner", "-xpf", "-"]
    subprocess.run(command, input=data, check=True, capture_output=True)

    aspects = Aspect.MODE | Aspect.CONTENT | Aspect.MTIME
    assert_same_tree(nodes_of([form]), observe(tmp_path), form.name, aspects)


@pytest.mark.parametrize("form", SPARSE, ids=lambda form: str(form.name))
def test_holes_are_filled(form: Form) -> None:
    found = {entry.name: entry.node.content for entry in read_archive(form.blocks + END)}

    assert found == {name: node.content for name, node in form.nodes.items()}


@given(st.integers(0, 2**40), st.sampled_from([Format.GNU, Format.STAR]))
def test_numbers_of_any_size_are_preserved(number: int, format: Format) -> None:
    block = Header(b"f", uid=number, mtime=-number, format=format).block()

    (member,) = raw_members(block + END)

    assert (member.header.uid, member.header.mtime) == (number, -number)


@pytest.mark.parametrize("length", range(85, 110))
def test_length_of_a_record_counts_its_own_digits(length: int) -> None:
    one = record(b"path", b"x" * length)

    assert int(one.split(b" ", 1)[0]) == len(one)


@pytest.mark.parametrize(
    "archive",
    [
        FILE + b"junk" + bytes(508),
        FILE + END + b"more" + bytes(508),
        FILE[:700],
        Header(b"f", b"Z").block() + END,
        Header(b"f", patches=((257, b"other\0"),)).block() + END,
        Header(b"f", patches=((100, b"9999999\0"),)).block() + END,
        Header(b"f").block().replace(b"f", b"g", 1) + END,
        extended([(b"path", b"a")]) + END,
        extended([(b"path", b"a")]) * 2 + FILE + END,
        extended([(b"path", b"a"), (b"path", b"b")]) + FILE + END,
        extended([(b"uid", b"many")]) + FILE + END,
        extended([(b"mtime", b"1.2.3")]) + FILE + END,
        extended([(b"path", b"a\0b")]) + FILE + END,
        long_name(b"a") * 2 + FILE + END,
        extended([(b"path", b"a")]).replace(b"9 path=a", b"8 path=a") + FILE + END,
    ],
    ids=lambda _: "",
)
def test_header_that_readers_interpret_differently_is_refused(archive: bytes) -> None:
    with pytest.raises(UnreadableArchive):
        read_archive(archive)


def test_value_that_fits_no_field_is_no_header() -> None:
    for header in (
        Header(b"n" * 101),
        Header(b"f", link=b"t" * 101),
        Header(b"f", uid=8**7),
        Header(b"f", prefix=b"p" * 132, format=Format.STAR),
        Header(b"f", prefix=b"p", format=Format.V7),
    ):
        with pytest.raises(ValueError, match="no room"):
            header.block()


def test_map_of_a_sparse_file_is_whole_blocks() -> None:
    assert sparse_map([(0, 5), (9, 1)]) == b"2\n0\n5\n9\n1\n".ljust(512, b"\0")


def test_attributes_are_preserved_in_any_dialect() -> None:
    node: Node = file(b"x", xattrs=frozenset({("user.a", b"\0=\n"), ("user.b", b"")}))
    for dialect in (Dialect(), Dialect(Format.GNU), Dialect(Format.V7), Dialect(Format.STAR)):
        (entry,) = read_archive(build_archive([LayerEntry(b"f", node)], dialect))
        assert entry.node == node
