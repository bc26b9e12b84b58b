"""LAY: the on-disk layout that dockerd requires."""

import os
import re
import stat

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.names import assert_same_names


def _parts(graphdriver: Subject, id: str) -> set[str]:
    return set(os.listdir(graphdriver.home / id))


@verifies("LAY-001")
def test_layers_have_their_parts(graphdriver: Subject) -> None:
    """`merged` may exist only while mounted, as in dockerd since 17.12."""
    base = graphdriver.new_layer()
    child = graphdriver.new_layer(base)

    optional = {"merged", "committed"}
    assert_same_names({"diff", "link"}, _parts(graphdriver, base) - optional, "a base layer")
    wanted = {"diff", "link", "lower", "work"}
    assert_same_names(wanted, _parts(graphdriver, child) - optional, "a child")
    assert (graphdriver.home / "l").is_dir(), "the directory l does not exist"


@verifies("LAY-002")
def test_lower_is_the_chain_topmost_first(graphdriver: Subject) -> None:
    """Five layers; each lower file is the parent's link followed by the parent's lower file."""
    ids = [graphdriver.new_layer()]
    for _ in range(4):
        ids.append(graphdriver.new_layer(ids[-1]))
    links = [(graphdriver.home / id / "link").read_text() for id in ids]

    for depth in range(1, 5):
        wanted = ":".join(f"l/{link}" for link in reversed(links[:depth]))
        assert (graphdriver.home / ids[depth] / "lower").read_text() == wanted
    assert not (graphdriver.home / ids[0] / "lower").exists(), "a base layer has a lower file"


@verifies("LAY-003")
def test_modes_do_not_depend_on_the_umask(graphdriver: Subject) -> None:
    """Daemons run with umask 0022, 0077 and 0000."""
    for umask in (0o022, 0o077, 0o000):
        before = os.umask(umask)
        try:
            base = graphdriver.new_layer()
            child = graphdriver.new_layer(base)
        finally:
            os.umask(before)
        for id in (base, child):
            layer = graphdriver.home / id
            assert stat.S_IMODE((layer / "diff").stat().st_mode) == 0o755, f"umask {umask:o}"
            mode = stat.S_IMODE(layer.stat().st_mode)
            assert not mode & 0o007, f"other users can enter the layer's directory, mode {mode:o}"


@verifies("LAY-004")
def test_lower_holds_nothing_else(graphdriver: Subject) -> None:
    """Its content is copied into the mount options unchanged."""
    base = graphdriver.new_layer()
    text = (graphdriver.home / graphdriver.new_layer(base) / "lower").read_bytes()

    assert re.fullmatch(rb"l/[A-Z2-7]{26}", text), f"lower is {text!r}"


@verifies("LAY-005")
def test_foreign_files_in_the_home_break_nothing(graphdriver: Subject) -> None:
    """mkfs creates lost+found; administrators and other programs create files and directories."""
    wanted = Tree.of({"a": b"a"})
    base = graphdriver.build(wanted)
    (graphdriver.home / "lost+found").mkdir(0o700)
    (graphdriver.home / "README").write_text("do not touch")
    (graphdriver.home / "old").mkdir()

    child = graphdriver.new_layer(base)
    graphdriver.status()

    assert_same_tree(wanted, graphdriver.tree(child))
    graphdriver.remove(child)
    if graphdriver.claims(Capability.RESTARTABLE):
        graphdriver.reopen()
    assert_same_tree(wanted, graphdriver.tree(base))
    assert (graphdriver.home / "README").read_text() == "do not touch"
