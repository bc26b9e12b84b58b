"""LNK: the short links that keep 128 lowers within one page of mount options."""

import os
import re
import shutil
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.beside import directory_beside
from graphdriver_conformance.suite.support.effort import examples, scaled
from graphdriver_conformance.suite.support.names import assert_same_names

IMAGE = Tree.of({"etc/hosts": b"one\n"})


def _link(graphdriver: Subject, id: str) -> str:
    return (graphdriver.home / id / "link").read_text()


def _links(graphdriver: Subject) -> dict[str, str]:
    return {link.name: os.readlink(link) for link in (graphdriver.home / "l").iterdir()}


def _assert_bijection(graphdriver: Subject, ids: list[str], others: Collection[str] = ()) -> None:
    """Every layer has a short link, and every link except `others` has a layer."""
    links = {link: to for link, to in _links(graphdriver).items() if link not in others}
    wanted = {_link(graphdriver, id): f"../{id}/diff" for id in ids}
    wanted_links = {f"l/{link} -> {to}" for link, to in wanted.items()}
    found_links = {f"l/{link} -> {to}" for link, to in links.items()}
    assert_same_names(wanted_links, found_links, "the links of the layers")


@verifies("LNK-001")
def test_link_is_26_characters(graphdriver: Subject) -> None:
    """dockerd reads the file and appends its content to `l/`."""
    base = graphdriver.new_layer()
    for id in (base, graphdriver.new_layer(base)):
        text = _link(graphdriver, id)
        assert re.fullmatch("[A-Z2-7]{26}", text), f"the link of {id} is {text!r}"


@verifies("LNK-002")
def test_link_points_to_diff(graphdriver: Subject) -> None:
    """Relative targets allow moving the home."""
    id = graphdriver.new_layer()

    target = os.readlink(graphdriver.home / "l" / _link(graphdriver, id))

    assert target == f"../{id}/diff"


@verifies("LNK-003")
@given(steps=st.lists(st.sampled_from(["create", "fail", "exists", "remove"]), max_size=12))
@examples(10)
def test_layers_and_links_match(graphdriver: Subject, steps: list[str]) -> None:
    """Also after failed creates and removals."""
    others = _links(graphdriver).keys()
    kept = [graphdriver.new_layer()]
    for step in steps:
        some = kept[0]
        try:
            if step == "create":
                kept.append(graphdriver.new_layer(some))
            elif step == "fail":
                graphdriver.create(graphdriver.new_id(), "no-such-parent")
            elif step == "exists":
                graphdriver.create(some, "no-such-parent")
            elif len(kept) > 1:
                graphdriver.remove(kept.pop())
        except (DriverError, OSError):
            pass  # a refusal is allowed
        _assert_bijection(graphdriver, kept, others)
    for id in reversed(kept):
        graphdriver.remove(id)
    _assert_bijection(graphdriver, [], others)


@verifies("LNK-004")
def test_links_are_random(graphdriver: Subject) -> None:
    """A counter, a hash of the id, or a fixed seed would produce the same link in another home."""
    links = [_link(graphdriver, graphdriver.new_layer()) for _ in range(scaled(300))]

    assert len(set(links)) == len(links), "two layers have the same link"
    assert len(set("".join(links))) == 32, f"only {len(set(''.join(links)))} letters are used"


@verifies("LNK-006")
def test_moved_home_keeps_its_layers(graphdriver: Subject) -> None:
    """mv /var/lib/docker /mnt/larger."""
    base = graphdriver.build(IMAGE)
    child = graphdriver.new_layer(base, writable=True)
    graphdriver.cleanup()
    moved = graphdriver.home.parent / "moved-to-a-longer-name"
    with own_work(f"move {graphdriver.home}"):
        shutil.move(graphdriver.home, moved)

    graphdriver.use(graphdriver.open_another(moved))

    assert_same_tree(IMAGE, graphdriver.tree(child))


@verifies("LNK-008")
@pytest.mark.parametrize("damage", ["", ".", "..", "../l", "/etc", "OTHER", "x\n"], ids=repr)
def test_damaged_link_affects_no_other_link(graphdriver: Subject, damage: str) -> None:
    """A power cut leaves files empty; remove then deleted `l/` + `""`."""
    kept = graphdriver.build(IMAGE)
    child = graphdriver.new_layer(kept)
    damaged = graphdriver.new_layer()
    text = damage.replace("OTHER", _link(graphdriver, kept))
    (graphdriver.home / damaged / "link").write_text(text)

    try:
        graphdriver.remove(damaged)
    except (DriverError, OSError) as error:
        graphdriver.note(f"remove was refused: {error}")

    assert (graphdriver.home / "l" / _link(graphdriver, kept)).is_symlink(), (
        "the link of another layer was removed"
    )
    assert_same_tree(IMAGE, graphdriver.tree(child), "another layer is damaged")


@verifies("LNK-009")
def test_planted_link_is_not_written_through(graphdriver: Subject) -> None:
    """apply_diff and get of a layer whose parent's short link points to the host's files."""
    base = graphdriver.build(IMAGE)
    child = graphdriver.new_layer(base, writable=True)
    host = directory_beside(graphdriver, "host", Tree.of({"passwd": b"root"}))
    link = graphdriver.home / "l" / _link(graphdriver, base)
    link.unlink()
    link.symlink_to(host)

    try:
        with graphdriver.view(child) as root:
            (root / "passwd").write_bytes(b"intruder")
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")

    assert (host / "passwd").read_bytes() == b"root", "a file outside the home was changed"


@verifies("LNK-007")
@pytest.mark.parametrize("which", [0, 1, -1], ids=["bottom", "middle", "parent"])
def test_missing_link_hides_no_layer(graphdriver: Subject, which: int) -> None:
    """rm l/*: an error, or the links are recreated; before and after a restart."""
    ids = [graphdriver.build(Tree.of({"bottom": b"0"}))]
    for number in range(1, 3):
        ids.append(graphdriver.build(Tree.of({"bottom": b"0", f"f{number}": b"1"}), ids[-1]))
    top = graphdriver.new_layer(ids[-1], writable=True)
    wanted = graphdriver.tree(top)
    (graphdriver.home / "l" / _link(graphdriver, ids[which])).unlink()

    for when in ("with the link gone", "after a restart with the link gone"):
        try:
            shown = graphdriver.tree(top)
        except (DriverError, OSError) as error:
            graphdriver.note(f"{when}, refused: {error}")
        else:
            assert_same_tree(wanted, shown, when)
        if graphdriver.claims(Capability.RESTARTABLE):
            graphdriver.reopen()
