"""QUO: sizes of layers, on file systems with and without project quota."""

import errno
from pathlib import Path

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import NotRefused, Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.beside import mount_beside
from graphdriver_conformance.suite.support.names import (
    assert_same_names,
    home_names,
    settled_names,
)

MIB = 1 << 20
SIZES = ["1073741824", "10m", "10M", "1g", "1G", "1t", "512mb", "512 MB", "1.5GiB", "7340032b"]
FULL = (errno.ENOSPC, errno.EDQUOT)


def _limited(graphdriver: Subject, parent: str, size: str) -> str:
    id = graphdriver.new_id("limited")
    graphdriver.create_read_write(id, parent, "", {"size": size})
    return id


def _written(file: Path, mebibytes: int) -> int:
    """Write `mib` MiB, or until the layer is full; return the number written. Raises OSError."""
    with file.open("ab", buffering=0) as opened:
        for count in range(mebibytes):
            try:
                opened.write(bytes(MIB))
            except OSError as error:
                if error.errno not in FULL:
                    raise
                return count
    return mebibytes


@verifies("QUO-001")
def test_size_limit_is_enforced(graphdriver: Subject) -> None:
    """graphtest's test: half of the size can be written, the same amount again cannot."""
    base = graphdriver.build(Tree.of({"etc/hosts": b"one\n"}))
    layer, free = _limited(graphdriver, base, "16M"), graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as limited, graphdriver.view(free) as unlimited:
        half = _written(limited / "half", 8)
        rest = _written(limited / "rest", 16)
        beside = _written(unlimited / "file", 24)

    assert half == 8, f"only {half} MiB were written to a layer of 16 MiB"
    assert rest < 9, f"{half + rest} MiB were written to a layer of 16 MiB"
    assert beside == 24, "a layer without a size is limited"


@verifies("QUO-002")
@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_read_as_docker_reads_them(graphdriver: Subject, size: str) -> None:
    """A size with a unit has the same result as the plain number, which is unambiguous.

    Without project quota both are refused, by the same class of error.
    """
    plain = _refusal(graphdriver, SIZES[0])
    if plain and plain == _refusal(graphdriver, "much"):
        graphdriver.not_provable(
            "the driver refuses valid and invalid sizes; use a file system with project quota"
        )

    refusal = _refusal(graphdriver, size)

    assert refusal == plain, f"size={size} is {refusal or 'accepted'}, a plain number is not"


def _refusal(graphdriver: Subject, size: str) -> str:
    """Return the class of the error that a size is refused with, and its errno; "" for none."""
    try:
        id = _limited(graphdriver, "", size)
    except (DriverError, OSError) as error:
        graphdriver.note(f"size={size} was refused: {error}")
        return f"{type(error).__name__} {getattr(error, 'errno', None) or ''}".strip()
    graphdriver.remove(id)
    return ""


@verifies("QUO-004")
def test_size_limit_that_cannot_be_enforced_is_refused(graphdriver: Subject) -> None:
    """No partial layer is left."""
    home = _home_without_quota(graphdriver)
    base = graphdriver.build(Tree.of({"etc/hosts": b"one\n"}))
    before = settled_names(graphdriver, home)

    try:
        graphdriver.refuses("create_read_write", "limited", base, "", {"size": "16M"})
    except NotRefused:
        # A driver may enforce sizes by other means, such as qgroups on btrfs.
        with graphdriver.view("limited") as root:
            written = _written(root / "file", 24)
        if written > 16:
            raise
        return

    assert not graphdriver.exists("limited"), "exists is true for the layer whose create failed"
    assert_same_names(before, home_names(home), "the failed create changed the home")


def _home_without_quota(graphdriver: Subject) -> Path:
    """Use a driver on a file system without project quota for the test; return its home."""
    if "project_quota" not in graphdriver.environment.can:
        return graphdriver.home
    home = mount_beside(graphdriver, "tmpfs", "mode=755") / "home"
    graphdriver.use(graphdriver.open_another(home))
    return home


@verifies("QUO-005")
def test_sizes_hold_after_a_restart(graphdriver: Subject) -> None:
    """With a mounted layer, on which Docker's scan of the home failed."""
    base = graphdriver.build(Tree.of({"etc/hosts": b"one\n"}))
    first = _limited(graphdriver, base, "16M")
    with graphdriver.view(first) as root:
        before = _written(root / "before", 8)

    graphdriver.get(first)
    graphdriver.reopen(cleanup=False)
    second = _limited(graphdriver, base, "16M")
    with graphdriver.view(first) as one, graphdriver.view(second) as two:
        rest = _written(one / "rest", 16)
        own = _written(two / "own", 12)

    assert before == 8, f"only {before} MiB were written to a layer of 16 MiB"
    assert rest < 9, f"after a restart {before + rest} MiB were written to a layer of 16 MiB"
    assert own == 12, "the layer created after the restart shares the limit of the previous one"


@verifies("QUO-006")
def test_only_the_layer_itself_counts(graphdriver: Subject) -> None:
    """The layer has a large parent, and a file is deleted and written again."""
    base = graphdriver.new_layer(writable=True)
    with graphdriver.view(base) as root:
        _written(root / "large", 24)
    layer = _limited(graphdriver, base, "16M")
    with graphdriver.view(layer) as root:
        first = _written(root / "file", 12)
        (root / "file").unlink()
        second = _written(root / "file", 12)

    assert first == 12, (
        f"only {first} MiB were written to an empty layer of 16 MiB on a large parent"
    )
    assert second == 12, f"the space of deleted files was not freed: {second} MiB were written"
    assert_same_tree(graphdriver.tree(layer), graphdriver.tree(graphdriver.new_layer(layer)))
