"""ARC-021 to ARC-026, ARC-028: archives in the formats of tar programs, byte by byte.

One archive contains members of all forms; if it is refused, each form is tested separately, so that
the report names the refused ones.
"""

import os
from collections.abc import Iterable, Sequence

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tar_blocks import BLOCK, END, Header, padded, record
from graphdriver_conformance.oracle.tree import Tree, directory, file
from graphdriver_conformance.suite.support.differential import plain_directory
from graphdriver_conformance.suite.support.forms import (
    COMMON,
    DIALECTS,
    FOREIGN,
    RARE,
    ROOTS,
    SPARSE,
    Form,
    nodes_of,
)


def _applied(graphdriver: Subject, archive: bytes) -> Tree | str:
    """Return the tree of a new layer after apply_diff, or the error of a refusal."""
    layer = graphdriver.new_layer()
    try:
        graphdriver.apply_diff(layer, "", archive)
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return str(error)
    return graphdriver.tree(layer)


def _refusals(graphdriver: Subject, forms: Sequence[Form]) -> dict[str, str]:
    """Return the refused forms with their errors; raise AssertionError for misread ones."""
    shown = _applied(graphdriver, b"".join(form.blocks for form in forms) + END)
    if isinstance(shown, Tree):
        assert_same_tree(nodes_of(forms), shown, "members differ from their headers")
        return {}
    found: dict[str, str] = {}
    for form in forms:
        shown = _applied(graphdriver, form.blocks + END)
        if isinstance(shown, Tree):
            assert_same_tree(nodes_of([form]), shown, f"misread: {form.name}")
        else:
            found[form.name] = shown
    return found


@verifies("ARC-021")
def test_rare_members_are_read_correctly_or_refused(graphdriver: Subject) -> None:
    """Docker read a sparse file's map as its content; other readers omitted members silently."""
    refused = _refusals(graphdriver, [form for form in RARE if form.name not in _REFUSED_BY_MANY])
    for form in RARE:
        if form.name in _REFUSED_BY_MANY:
            refused.update(_refusals(graphdriver, [form]))

    graphdriver.note(f"refused, which is allowed: {sorted(refused)}")


_REFUSED_BY_MANY = ("type of a vendor", "directory of an incremental dump", "volume label")


@verifies("ARC-023")
def test_archives_of_common_programs_are_read(graphdriver: Subject) -> None:
    """GNU tar, bsdtar, busybox, Go, Python and star, in each of their formats."""
    refused = _refusals(graphdriver, COMMON)

    assert refused == {}, f"refused: {refused}"


@verifies("ARC-023")
def test_root_may_be_a_member(graphdriver: Subject) -> None:
    """`tar -C dir -c .` begins with this member."""
    refused = _refusals(graphdriver, ROOTS)

    assert refused == {}, f"refused: {refused}"


@verifies("ARC-024")
def test_sparse_members_are_read(graphdriver: Subject) -> None:
    """`tar -S` in each of its formats."""
    refused = _refusals(graphdriver, SPARSE)

    assert refused == {}, f"refused: {refused}"


@verifies("ARC-025")
@pytest.mark.parametrize("padding", [0, 9 * BLOCK], ids=["bare", "padded"])
def test_one_block_of_zeros_ends_an_archive(graphdriver: Subject, padding: int) -> None:
    """With one member before it, and without."""
    for entries in ([], [entry_of("f", file(b"content"))]):
        members = build_archive(entries).rstrip(b"\0")
        members += bytes(-len(members) % BLOCK)

        shown = _applied(graphdriver, members + bytes(BLOCK) + bytes(padding))

        wanted = Tree({entry.name: entry.node for entry in entries})
        assert isinstance(shown, Tree), f"refused: {shown}"
        assert_same_tree(wanted, shown, "the metadata of the members")


@verifies("ARC-028")
@pytest.mark.parametrize("name", ["pax_global_header", "/tmp/GlobalHead.1.1"])
def test_global_header_alone_is_an_empty_archive(graphdriver: Subject, name: str) -> None:
    """`git archive` of an empty tree, and GNU tar with --pax-option and no file."""
    records = record(b"comment", b"made by hand")
    header = Header(name.encode(), b"g", size=len(records)).block() + padded(records)
    base = graphdriver.build(Tree.of({"kept": b"kept"}))
    layer = graphdriver.new_layer(base)

    graphdriver.apply_diff(layer, base, header + END)

    below = graphdriver.tree(base)
    assert_same_tree(below, graphdriver.tree(layer), "a layer of an empty archive")
    shown = _applied(graphdriver, header + END)
    assert isinstance(shown, Tree), f"refused without a parent: {shown}"
    assert_same_tree(Tree(), shown, "a layer of an empty archive, without a parent")


@verifies("ARC-022")
@pytest.mark.parametrize("form", FOREIGN, ids=lambda form: str(form.name))
def test_foreign_attributes_do_not_end_an_apply(graphdriver: Subject, form: Form) -> None:
    """Images built on macOS, or with labels, can be pulled."""
    refused = _refusals(graphdriver, [form])

    assert refused == {}, f"refused: {refused}"


def _require_owners(graphdriver: Subject, ids: Iterable[int]) -> None:
    """Skip the test if files cannot get these owners, as in a user namespace with fewer ids."""
    probe = plain_directory(graphdriver, Tree.of({"f": b""})) / "f"
    for id in ids:
        try:
            os.chown(probe, id, id + 1)
        except OSError as error:
            graphdriver.not_provable(f"no file can be owned by {id} here: {error.strerror}")


@verifies("ARC-026")
def test_owners_are_read_in_every_dialect(graphdriver: Subject) -> None:
    """Owners in octal, in base 256, and in PAX records."""
    ids = (7, 8**7 - 2, 8**7, 2**31, 2**32 - 3)
    _require_owners(graphdriver, ids)
    entries = [
        entry_of(f"{name}-{uid}", node.but(uid=uid, gid=uid + 1))
        for name, node in (("f", file(b"x")), ("d", directory()))
        for uid in ids
    ]
    for name, dialect in DIALECTS.items():
        shown = _applied(graphdriver, build_archive(entries, dialect))

        assert isinstance(shown, Tree), f"{name}: refused: {shown}"
        assert_same_tree(Tree({entry.name: entry.node for entry in entries}), shown, name)
