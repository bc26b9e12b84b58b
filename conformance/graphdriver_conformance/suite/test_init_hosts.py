"""INI-002 to INI-005 and INI-013: hosts and file systems that cannot carry a driver.

A daemon that chooses a driver by itself tries the next one after NotSupported, IncompatibleFS and
PrerequisitesNotMet, and ends with any other error.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from graphdriver.contract import Driver
from graphdriver.errors import DriverError, IncompatibleFS, NotSupported, PrerequisitesNotMet
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.restrictions import as_linux_2_6, without_mounting
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree

IMAGE = Tree.of({"etc/hosts": b"one\n"})
TRY_NEXT = (NotSupported, IncompatibleFS, PrerequisitesNotMet)


def _in_process(graphdriver: Subject) -> None:
    if not graphdriver.source.in_process:
        graphdriver.not_provable(
            "the driver is another process: start it on such a host to see what it says"
        )


def _refusal(graphdriver: Subject, init: Callable[[], Driver], where: str) -> str:
    """Return the class of the refusal, "" when there was none; fail for any other error."""
    kinds = TRY_NEXT if graphdriver.source.in_process else (DriverError, OSError)
    try:
        init()
    except kinds as error:
        graphdriver.note(f"refused: {error}")
        return type(error).__name__
    except Exception as error:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise AssertionError(
            f"init on {where}: expected {names}, but {type(error).__name__}: {error}"
        ) from error
    return ""


def _mount(graphdriver: Subject, options: Sequence[str], source: str) -> Path:
    """Mount a file system beside the home; the end of the test unmounts it."""
    point = graphdriver.home.parent / "ground"
    point.mkdir()
    command = ["mount", *options, source, str(point)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        graphdriver.not_provable(f"cannot make such a file system: {done.stderr.strip()}")
    return point


def _shows_its_layers(graphdriver: Subject, home: Path) -> None:
    """Whoever accepts a home has to work on it."""
    graphdriver.use(graphdriver.open_another(home))
    child = graphdriver.build(IMAGE, graphdriver.build(Tree.of({"old": b"", "etc/hosts": b""})))
    assert_same_tree(IMAGE, graphdriver.tree(graphdriver.new_layer(child)), "on this home")


@verifies("INI-002")
def test_host_without_mounts_is_not_supported(graphdriver: Subject) -> None:
    """In a container without CAP_SYS_ADMIN; the daemon then falls back to vfs."""
    _in_process(graphdriver)
    home = graphdriver.home.parent / "other"

    refusal = _refusal(
        graphdriver,
        lambda: without_mounting(lambda: graphdriver.open_another(home)),
        "a host where mount(2) is refused",
    )

    assert refusal, "init succeeded where no layer can ever be mounted"
    assert not home.exists(), "the refused init made a home"


@verifies("INI-003")
def test_home_on_overlay_is_refused_or_works(graphdriver: Subject) -> None:
    """Docker in Docker: the inner one's home is on the outer one's overlay."""
    parts = [graphdriver.home.parent / name for name in ("lower", "upper", "work")]
    for part in parts:
        part.mkdir()
    data = "lowerdir={},upperdir={},workdir={}".format(*parts)
    if graphdriver.environment.facts["userns"] == "true":
        data += ",userxattr"
    home = _mount(graphdriver, ["-t", "overlay", "-o", data], "overlay") / "home"

    if not _refusal(graphdriver, lambda: graphdriver.open_another(home), "a home on overlay"):
        _shows_its_layers(graphdriver, home)


@verifies("INI-004")
def test_kernel_below_4_is_not_supported(graphdriver: Subject) -> None:
    """Several lower directories came with Linux 4.0; some vendors patched them into older ones."""
    _in_process(graphdriver)
    old, patched = graphdriver.home.parent / "old", graphdriver.home.parent / "patched"

    refusal = _refusal(
        graphdriver, lambda: as_linux_2_6(lambda: graphdriver.open_another(old)), "Linux 2.6"
    )
    option = ["overlay2.override_kernel_check=true"]
    driver = as_linux_2_6(lambda: graphdriver.open_another(patched, option))

    assert "NotSupported" == refusal, f"init on Linux 2.6: {refusal or 'no error'}"
    assert not old.exists(), "the refused init made a home"
    graphdriver.use(driver)
    assert_same_tree(IMAGE, graphdriver.tree(graphdriver.build(IMAGE)), "with the override")


@verifies("INI-005")
@pytest.mark.parametrize(
    "value", ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"]
)
def test_booleans_are_spelled_as_in_go(graphdriver: Subject, value: str) -> None:
    """daemon.json is read by Docker and by what replaces it."""
    option = f"overlay2.override_kernel_check={value}"

    graphdriver.open_another(graphdriver.home.parent / "other", [option])


@verifies("INI-005")
@pytest.mark.parametrize("value", ["yes", "on", "2", "tRUE", "", "maybe"])
def test_other_words_are_no_booleans(graphdriver: Subject, value: str) -> None:
    """A check that someone meant to switch on must not be off."""
    home = graphdriver.home.parent / "other"
    try:
        graphdriver.open_another(home, [f"overlay2.override_kernel_check={value}"])
    except (DriverError, OSError, ValueError):
        return
    raise AssertionError(f"override_kernel_check={value} has to be an error")


@verifies("INI-013")
def test_file_system_without_types_in_directories(graphdriver: Subject) -> None:
    """Where readdir(3) gives no types, overlay lists whiteouts as files (moby #27443)."""
    if not shutil.which("mkfs.ext4"):
        graphdriver.not_provable("needs mkfs.ext4, of e2fsprogs, to make such a file system")
    image = graphdriver.home.parent / "image"
    with image.open("wb") as made:
        made.truncate(8 << 20)
    make = ["mkfs.ext4", "-q", "-O", "^filetype,^has_journal", str(image)]
    subprocess.run(make, check=True, capture_output=True)
    home = _mount(graphdriver, ["-o", "loop"], os.fspath(image)) / "home"

    if _refusal(graphdriver, lambda: graphdriver.open_another(home), "a home without d_type"):
        return
    graphdriver.use(graphdriver.open_another(home))
    rows = {key.lower(): value for key, value in graphdriver.status()}
    if "false" != rows.get("supports d_type"):
        _shows_no_whiteouts(graphdriver)


def _shows_no_whiteouts(graphdriver: Subject) -> None:
    """A driver that says nothing of it has to be right all the same."""
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer) as root:
        (root / "etc/hosts").unlink()
    with graphdriver.view(graphdriver.new_layer(layer)) as root:
        assert [] == os.listdir(root / "etc"), "a deleted file is listed on a home without d_type"
