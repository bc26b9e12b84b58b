"""INI: creating a driver, and its effects on the host."""

import os
import re
import stat
from pathlib import Path

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import NotRefused, Subject, refusal
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.beside import directory_beside, option_prefix
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)

IMAGE = Tree.of({"etc/hosts": b"one\n"})


def _refused(graphdriver: Subject, home: Path, options: list[str]) -> None:
    called = f"init with the options {options}"
    if not refusal(called, lambda: graphdriver.open_another(home, options)):
        raise NotRefused(called, "it made a driver")


@verifies("INI-001")
def test_driver_has_a_name(graphdriver: Subject) -> None:
    """Docker stores each driver's layers under its name."""
    name = str(graphdriver.driver)
    graphdriver.new_layer()

    assert name, "the name is empty"
    assert str(graphdriver.driver) == name


@verifies("INI-006")
@pytest.mark.parametrize("option", ["no.such.option=1", "OWN.no_such_option=true"])
def test_unknown_option_is_refused(graphdriver: Subject, option: str) -> None:
    """Also an option with the driver's own prefix: otherwise typing errors are not noticed."""
    own = option.replace("OWN", option_prefix(graphdriver))
    _refused(graphdriver, graphdriver.home.parent / "other", [own])


@verifies("INI-007")
@pytest.mark.parametrize("option", ["novalue", "=x", ""])
def test_malformed_option_is_refused(graphdriver: Subject, option: str) -> None:
    """A malformed option cannot be applied."""
    _refused(graphdriver, graphdriver.home.parent / "other", [option])


@verifies("INI-008")
def test_second_driver_finds_the_layers(graphdriver: Subject) -> None:
    """With and without a clean end of the first driver: daemons get killed."""
    base = graphdriver.build(IMAGE)
    child = graphdriver.new_layer(base)

    for cleanup in (True, False):
        graphdriver.reopen(cleanup=cleanup)
        assert graphdriver.exists(base)
        assert_same_tree(IMAGE, graphdriver.tree(child))


@verifies("INI-009")
def test_init_leaves_no_probes(graphdriver: Subject) -> None:
    """Two new homes contain the same names; no files are beside them."""
    home = graphdriver.home.parent / "other"
    graphdriver.open_another(home)
    before = set(os.listdir(home))

    graphdriver.open_another(home)

    assert_same_names(before, os.listdir(home), "a second init changed the home")
    # Words in the probe names of overlay drivers that are not part of other names.
    odd = [name for name in sorted(before) if re.search(r"(?i)(^|[^a-z])(check|probe)[^a-z]", name)]
    assert not odd, f"init left {odd}"
    beside = {path.name for path in graphdriver.home.parent.iterdir()}
    left = sorted(beside - {graphdriver.home.name, "other"})
    assert not left, f"init left {left} beside the home"


@verifies("INI-010")
def test_home_is_closed_to_others(graphdriver: Subject) -> None:
    """Also an existing home with another mode."""
    open_home = directory_beside(graphdriver, "open")
    graphdriver.open_another(open_home)

    for home in (graphdriver.home, open_home):
        mode = stat.S_IMODE(home.stat().st_mode)
        assert not mode & 0o001, f"other users can enter {home.name}, mode {mode:o}"


@verifies("INI-011")
def test_failing_init_changes_nothing(graphdriver: Subject) -> None:
    """Neither an existing home nor a missing one is changed."""
    child = graphdriver.new_layer(graphdriver.build(IMAGE))
    before = settled_names(graphdriver)
    new = graphdriver.home.parent / "new"

    _refused(graphdriver, graphdriver.home, ["no.such.option=1"])
    _refused(graphdriver, new, ["no.such.option=1"])

    assert_same_names(before, home_names(graphdriver.home), "the failed init changed the home")
    assert not new.exists(), "the failed init created the home"
    assert_same_tree(IMAGE, graphdriver.tree(child))


@verifies("INI-012")
@pytest.mark.parametrize(
    "name", ["with blank", "com,ma", "co:lon", "back\\slash", "caf\u00e9", "equals=", '"quoted"']
)
def test_awkward_home_works_or_is_refused(graphdriver: Subject, name: str) -> None:
    """Most of these characters are separators in mount options."""
    try:
        driver = graphdriver.open_another(graphdriver.home.parent / name / "home")
    except (DriverError, OSError) as error:
        graphdriver.note(f"init refused: {error}")
        return
    graphdriver.use(driver)
    child = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)

    assert_same_tree(IMAGE, graphdriver.tree(child))


@verifies("INI-014")
def test_home_behind_a_symlink(graphdriver: Subject) -> None:
    """/var/lib/docker -> /srv/docker."""
    real = directory_beside(graphdriver, "real")
    link = graphdriver.home.parent / "link"
    link.symlink_to(real)
    graphdriver.use(graphdriver.open_another(link / "home"))
    child = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)

    assert_same_tree(IMAGE, graphdriver.tree(child))
