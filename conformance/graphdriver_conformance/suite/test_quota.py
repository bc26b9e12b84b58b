"""QUO: sizes of layers, where the file system can hold to them, and where it cannot."""

import errno
import subprocess
from pathlib import Path

import pytest

from graphdriver.contract import Capability
from graphdriver.errors import DriverError, QuotaNotSupported
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import NotRefused, Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree

MIB = 1 << 20
SIZES = ["1073741824", "10m", "10M", "1g", "1G", "1t", "512mb", "512 MB", "1.5GiB", "7340032b"]
FULL = (errno.ENOSPC, errno.EDQUOT)


def _limited(graphdriver: Subject, parent: str, size: str) -> str:
    id = graphdriver.new_id("limited")
    graphdriver.create_read_write(id, parent, "", {"size": size})
    return id


def _written(file: Path, mebibytes: int) -> int:
    """Write so much, or until it is full; return how many MiB went in. Raises OSError."""
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
def test_size_is_held_to(graphdriver: Subject) -> None:
    """graphtest's: half of it goes in, as much again and more does not."""
    base = graphdriver.build(Tree.of({"etc/hosts": b"one\n"}))
    layer, free = _limited(graphdriver, base, "16M"), graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as limited, graphdriver.view(free) as unlimited:
        half = _written(limited / "half", 8)
        rest = _written(limited / "rest", 16)
        beside = _written(unlimited / "file", 24)

    assert 8 == half, f"only {half} MiB went into a layer of 16 MiB"
    assert rest < 9, f"{half + rest} MiB went into a layer of 16 MiB"
    assert 24 == beside, "a layer without a size is limited, too"


@verifies("QUO-002")
@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_read_as_docker_reads_them(graphdriver: Subject, size: str) -> None:
    """Where there is no quota, that is the only thing wrong with them."""
    try:
        id = _limited(graphdriver, "", size)
    except QuotaNotSupported:
        graphdriver.escaped = None
    except (DriverError, OSError) as error:
        if graphdriver.source.in_process:
            raise AssertionError(f"size={size} was not understood: {error}") from error
        graphdriver.not_provable("the plugin protocol does not say why a size was refused")
    else:
        graphdriver.remove(id)


@verifies("QUO-004")
def test_size_that_cannot_be_held_to_is_refused(graphdriver: Subject) -> None:
    """With the class that Docker looks for, and no half layer."""
    if "project_quota" in graphdriver.environment.can:
        _use_home_without_quota(graphdriver)
    base = graphdriver.build(Tree.of({"etc/hosts": b"one\n"}))
    before = sorted(graphdriver.home.rglob("*"))

    try:
        error = graphdriver.refuses("create_read_write", "limited", base, "", {"size": "16M"})
    except NotRefused:
        # A driver may have a way of its own to hold to it, as on btrfs with qgroups.
        with graphdriver.view("limited") as root:
            written = _written(root / "file", 24)
        if written > 16:
            raise
        return

    if graphdriver.source.in_process and graphdriver.claims(Capability.OVERLAY2_LAYOUT):
        assert isinstance(error, QuotaNotSupported), f"expected QuotaNotSupported, got {error!r}"
    assert not graphdriver.exists("limited"), "exists finds the layer whose create failed"
    assert before == sorted(graphdriver.home.rglob("*")), "the failed create left something"


def _use_home_without_quota(graphdriver: Subject) -> None:
    ground = graphdriver.home.parent / "ground"
    ground.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(ground)], check=True)
    graphdriver.use(graphdriver.open_another(ground / "home"))


@verifies("QUO-005")
def test_sizes_hold_after_a_restart(graphdriver: Subject) -> None:
    """With a layer mounted meanwhile, where Docker's scan of the home stumbled."""
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

    assert 8 == before, f"only {before} MiB went into a layer of 16 MiB"
    assert rest < 9, f"after a restart {before + rest} MiB went into a layer of 16 MiB"
    assert 12 == own, "the layer made after the restart shares the size of the one before"


@verifies("QUO-006")
def test_only_the_layer_itself_counts(graphdriver: Subject) -> None:
    """A large image below, and a file deleted and written again."""
    base = graphdriver.new_layer(writable=True)
    with graphdriver.view(base) as root:
        _written(root / "large", 24)
    layer = _limited(graphdriver, base, "16M")
    with graphdriver.view(layer) as root:
        first = _written(root / "file", 12)
        (root / "file").unlink()
        second = _written(root / "file", 12)

    assert 12 == first, f"only {first} MiB went into an empty layer of 16 MiB on a large image"
    assert 12 == second, f"what was deleted was not given back: {second} MiB went in"
    assert_same_tree(graphdriver.tree(layer), graphdriver.tree(graphdriver.new_layer(layer)))
