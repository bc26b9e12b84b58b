"""INI-002 to INI-005 and INI-013: hosts and file systems that do not support the driver.

Any DriverError or OSError is a refusal; ERR-008 tests its class.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from graphdriver.contract import Driver
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject, refusal
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.host.restrictions import as_linux_2_6, without_mounting
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.beside import (
    directory_beside,
    mount_beside,
    option_prefix,
    run_program,
)

IMAGE = Tree.of({"etc/hosts": b"one\n"})


def _in_process(graphdriver: Subject) -> None:
    if not graphdriver.source.in_process:
        graphdriver.not_provable("the driver runs in another process; start it on such a host")


def _refusal(graphdriver: Subject, init: Callable[[], Driver]) -> str:
    """Return the error of a refused Init, "" if it succeeded; another exception is a violation."""
    error = refusal("init", init)
    if error:
        graphdriver.note(f"refused: {type(error).__name__}: {error}")
    return type(error).__name__ if error else ""


def _shows_its_layers(graphdriver: Subject, home: Path) -> None:
    """A driver that accepts a home has to work on it."""
    graphdriver.use(graphdriver.open_another(home))
    child = graphdriver.build(IMAGE, graphdriver.build(Tree.of({"old": b"", "etc/hosts": b""})))
    assert_same_tree(IMAGE, graphdriver.tree(graphdriver.new_layer(child)), "on this home")


@verifies("INI-002")
def test_host_without_mounts_is_not_supported(graphdriver: Subject) -> None:
    """In a container without CAP_SYS_ADMIN; the daemon then uses vfs."""
    _in_process(graphdriver)
    home = graphdriver.home.parent / "other"

    refusal = _refusal(
        graphdriver,
        lambda: without_mounting(lambda: graphdriver.open_another(home)),
    )

    assert refusal, "init succeeded although no layer can be mounted"
    assert not home.exists(), "the refused init created the home"


@verifies("INI-003")
def test_home_on_overlay_is_refused_or_works(graphdriver: Subject) -> None:
    """Docker in Docker: the home of the inner one is on the overlay of the outer one."""
    parts = [directory_beside(graphdriver, name) for name in ("lower", "upper", "work")]
    data = "lowerdir={},upperdir={},workdir={}".format(*parts)
    if graphdriver.environment.facts["userns"] == "true":
        data += ",userxattr"
    home = mount_beside(graphdriver, "overlay", data) / "home"

    if not _refusal(graphdriver, lambda: graphdriver.open_another(home)):
        _shows_its_layers(graphdriver, home)


@verifies("INI-004")
def test_kernel_below_4_is_not_supported(graphdriver: Subject) -> None:
    """Several lower directories require Linux 4.0; some vendors backported them."""
    _in_process(graphdriver)
    old, patched = graphdriver.home.parent / "old", graphdriver.home.parent / "patched"

    refusal = _refusal(graphdriver, lambda: as_linux_2_6(lambda: graphdriver.open_another(old)))

    assert refusal, "init on Linux 2.6: no error"
    assert not old.exists(), "the refused init created the home"
    option = [f"{option_prefix(graphdriver)}.override_kernel_check=true"]
    if _refusal(graphdriver, lambda: graphdriver.open_another(patched, option)):
        graphdriver.note("the option is unknown: a driver may have removed the override")
        return
    graphdriver.use(as_linux_2_6(lambda: graphdriver.open_another(patched, option)))
    assert_same_tree(IMAGE, graphdriver.tree(graphdriver.build(IMAGE)), "with the override")


@verifies("INI-005")
@pytest.mark.parametrize(
    "value", ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"]
)
def test_booleans_are_spelled_as_in_go(graphdriver: Subject, value: str) -> None:
    """daemon.json is read by Docker and by its replacements."""
    refusal = _with_value(graphdriver, value)

    plainest = {word: _with_value(graphdriver, word) for word in ("true", "false")}
    if all(plainest.values()):
        graphdriver.note("the option is unknown: a driver may refuse it")
        return
    taken = [word for word, error in plainest.items() if not error]
    assert not refusal, f"override_kernel_check={value}: {refusal}, but {taken} are taken"


@verifies("INI-005")
@pytest.mark.parametrize("value", ["yes", "on", "2", "tRUE", "", "maybe"])
def test_other_words_are_not_booleans(graphdriver: Subject, value: str) -> None:
    """A check that an administrator has enabled must not be disabled."""
    assert _with_value(graphdriver, value), f"override_kernel_check={value} must be an error"


def _with_value(graphdriver: Subject, value: str) -> str:
    """Return the error of Init for a value of the option; "" if it is accepted."""
    home = graphdriver.home.parent / graphdriver.new_id("other")
    option = f"{option_prefix(graphdriver)}.override_kernel_check={value}"
    error = refusal(f"init with {option}", lambda: graphdriver.open_another(home, [option]))
    return f"{type(error).__name__}: {error}" if error else ""


@verifies("INI-013")
def test_file_system_without_types_in_directories(graphdriver: Subject) -> None:
    """If readdir(3) returns no types, overlayfs lists whiteouts as files (moby #27443)."""
    home = _disk_without_types(graphdriver) / "home"

    if _refusal(graphdriver, lambda: graphdriver.open_another(home)):
        return
    graphdriver.use(graphdriver.open_another(home))
    rows = [[str(text).lower() for text in row] for row in graphdriver.status()]
    if ["supports d_type", "false"] not in rows:
        _shows_no_whiteouts(graphdriver)


def _disk_without_types(graphdriver: Subject) -> Path:
    """Mount an ext4 without file types in directories; unmount it at the end of the test."""
    point = directory_beside(graphdriver, "disk")
    image = graphdriver.home.parent / "image"
    with own_work(f"make {image}"), image.open("wb") as made:
        made.truncate(8 << 20)
    run_program(graphdriver, ["mkfs.ext4", "-q", "-O", "^filetype,^has_journal", image])
    done = run_program(graphdriver, ["mount", "-o", "loop", image, point], check=False)
    if done.returncode:
        graphdriver.not_provable(f"the disk cannot be mounted: {done.stderr.decode().strip()}")
    return point


def _shows_no_whiteouts(graphdriver: Subject) -> None:
    """A driver that accepts it must handle whiteouts correctly."""
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer) as root:
        (root / "etc/hosts").unlink()
    with graphdriver.view(graphdriver.new_layer(layer)) as root:
        assert os.listdir(root / "etc") == [], "a deleted file is listed on a home without d_type"
