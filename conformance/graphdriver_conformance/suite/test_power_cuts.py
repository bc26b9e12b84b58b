"""CRS-030 to CRS-038: a power cut inside a verb, and directly after it has returned.

The home is on an ext4 or xfs in memory. Of unsynced changes either none is on the disk after the
cut, or only the names without content: the two states that occur in practice.
"""

import os
from pathlib import Path

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.faults.findings import Swept, Where
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.beside import directory_beside
from graphdriver_conformance.suite.support.cut_sweep import (
    Cut,
    CutScene,
    HomeRefused,
    cut_sweep,
    flush_sweep,
)
from graphdriver_conformance.suite.support.disks import CannotMake
from graphdriver_conformance.suite.support.effort import by_profile, is_thorough
from graphdriver_conformance.suite.support.fault_scene import Scene
from graphdriver_conformance.suite.support.images import ImageDisk, Survives
from graphdriver_conformance.suite.support.kill_sweep import INIT
from graphdriver_conformance.suite.support.shared_sweeps import (
    Sweeps,
    assert_met,
    swept,
)

_CREATES = by_profile(
    ("create_child",), ("create_child",), ("create_base", "create_child", "create_writable")
)
_REMOVES = by_profile(
    ("remove_child",), ("remove_child",), ("remove_base", "remove_child", "remove_written")
)
_APPLIES = by_profile(
    ("apply_child",),
    ("apply_child",),
    ("apply_base", "apply_child", "apply_held", "apply_again"),
)
_OTHERS = by_profile((), (*_APPLIES, "put"), (*_APPLIES, "get", "put", "cleanup"))
_VERBS = (*_CREATES, *_REMOVES, *_OTHERS)
_FORMATS = by_profile(("ext4",), ("ext4",), ("ext4", "xfs", "btrfs"))
_POINTS = by_profile(3, 10, 4000)


def _cuts(graphdriver: Subject, names: tuple[str, ...]) -> Sweeps:
    """Cut the power in each of the verbs; yield the findings."""
    has_found = False
    refusals: list[str] = []
    for format in _FORMATS:
        scene = CutScene(graphdriver, format)
        try:
            for cut in _cuts_on(format):
                if graphdriver.only_fault is None or graphdriver.only_fault.fault == cut.name:
                    for found in _swept(graphdriver, scene, cut, names):
                        has_found = True
                        yield found
        except HomeRefused as error:
            refusals.append(str(error))
        finally:
            scene.close()
    if not has_found:
        graphdriver.not_provable("; ".join(refusals) or "another requirement tests this fault")
    for one in refusals:
        graphdriver.note(one)


def _cuts_on(format: str) -> list[Cut]:
    """Return the kinds of power cuts: btrfs has no journal that could be committed separately."""
    shut_down = [Cut(format, survives) for survives in Survives if format != "btrfs"]
    return [*shut_down, *([Cut(format)] if is_thorough() else [])]


def _swept(graphdriver: Subject, scene: CutScene, cut: Cut, names: tuple[str, ...]) -> Sweeps:
    def sweep(_: Scene, name: str, only: Where | None) -> Swept:
        point = only.point if only else None
        if cut.survives is None:
            return flush_sweep(scene, cut, name, point)
        return cut_sweep(scene, cut, name, _POINTS, point)

    if cut.survives is None:
        names = tuple(name for name in names if name != INIT)
    return swept(graphdriver, cut.name, names, sweep, scene)


@verifies("CRS-030")
def test_power_cut_changes_no_other_layer(graphdriver: Subject) -> None:
    """A host that lost its images cannot start its containers."""
    assert_met(graphdriver, "CRS-030", _cuts(graphdriver, (*_VERBS, INIT)))


@verifies("CRS-031")
def test_created_layer_survives_a_power_cut(graphdriver: Subject) -> None:
    """The daemon has recorded that the layer exists, and has synced the record."""
    assert_met(graphdriver, "CRS-031", _cuts(graphdriver, _CREATES))


@verifies("CRS-032")
def test_layer_can_be_removed_after_a_power_cut(graphdriver: Subject) -> None:
    """Any remnant of the layer can be removed: its space and its id are needed by the next pull."""
    assert_met(graphdriver, "CRS-032", _cuts(graphdriver, _VERBS))


@verifies("CRS-033")
def test_power_cut_in_create_leaves_no_half_layer(graphdriver: Subject) -> None:
    """Empty files look like a layer without a parent."""
    assert_met(graphdriver, "CRS-033", _cuts(graphdriver, _CREATES))


@verifies("CRS-034")
def test_power_cut_in_remove_leaves_no_half_layer(graphdriver: Subject) -> None:
    """A layer that exists is used by the next pull of the image."""
    assert_met(graphdriver, "CRS-034", _cuts(graphdriver, _REMOVES))


@verifies("CRS-035")
def test_applied_archive_survives_a_power_cut(graphdriver: Subject) -> None:
    """An existing layer is not pulled again."""
    assert_met(graphdriver, "CRS-035", _cuts(graphdriver, _APPLIES))


@verifies("CRS-036")
def test_power_cut_in_apply_diff_leaves_no_half_layer(graphdriver: Subject) -> None:
    """Names without content cannot be recognized as damaged."""
    assert_met(graphdriver, "CRS-036", _cuts(graphdriver, _APPLIES))


@verifies("CRS-037")
@pytest.mark.parametrize("survives", Survives, ids=lambda one: one.name.lower())
def test_synced_data_of_a_view_survives_a_power_cut(
    graphdriver: Subject, survives: Survives
) -> None:
    """A new file, and a changed file of the image, as databases write them."""
    for format in [one for one in _FORMATS if one != "btrfs"]:
        disk = _disk(graphdriver, format)
        try:
            _sync_in_a_view(graphdriver, disk, survives)
        finally:
            graphdriver.cleanup()
            disk.close()


def _disk(graphdriver: Subject, format: str) -> ImageDisk:
    """Move the driver to a disk whose power can be cut."""
    point = directory_beside(graphdriver, graphdriver.new_id(format))
    try:
        disk = ImageDisk(format, point)
    except CannotMake as error:
        graphdriver.not_provable(str(error))
    try:
        graphdriver.move(point / "home")
    except (DriverError, OSError) as error:
        disk.close()
        graphdriver.not_provable(f"the driver's home cannot be on {format}: {error}")
    return disk


def _sync_in_a_view(graphdriver: Subject, disk: ImageDisk, survives: Survives) -> None:
    base = graphdriver.build(Tree.of({"data/old": b"old\n" * 2000, "other": b""}))
    layer = graphdriver.new_layer(base, writable=True)
    root = graphdriver.get(layer)
    disk.sync()
    wanted = {"data/old": b"new\n" * 2000, "data/fresh": b"fresh\n" * 2000}
    for name, content in wanted.items():
        _write_synced(root / name, content)
    for directory in (root / "data", root):
        _sync(directory)

    try:
        disk.cut(survives)
    except CannotMake as error:
        graphdriver.not_provable(str(error))
    graphdriver.program.line(f"power cut: of unsynced changes {survives.name.lower()} survives")
    graphdriver.reopen(cleanup=False)

    with graphdriver.view(layer) as root:
        found = {name: _content(root / name) for name in wanted}
    lost = [name for name, content in wanted.items() if content != found[name]]
    assert lost == [], f"files that were synced in a view and lost in a power cut on {disk.type}"


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@verifies("CRS-038")
def test_power_cut_leaves_no_permanent_remnant(graphdriver: Subject) -> None:
    """The disk of a machine with frequent power cuts would fill up with remnants."""
    assert_met(graphdriver, "CRS-038", _cuts(graphdriver, _VERBS))
