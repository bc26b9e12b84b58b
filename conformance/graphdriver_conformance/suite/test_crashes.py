"""CRS: the driver killed inside a verb, before each of its changes; and what a restart finds."""

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.suite.support.fault_scene import ACTS
from graphdriver_conformance.suite.support.kill_sweep import FIRST_INIT, INIT, RECOVERIES
from graphdriver_conformance.suite.support.shared_sweeps import assert_met, kills

_RECOVERED = tuple(RECOVERIES)
_VERBS = (*ACTS, INIT, *_RECOVERED)


def _acts(requirement: str) -> list[str]:
    """Return the acts of which a requirement says how a kill may leave the layer."""
    found = [name for name, act in ACTS.items() if act.requirement == requirement]
    return found + [name for name, act in RECOVERIES.items() if act in found]


@verifies("CRS-001")
def test_driver_starts_again_after_a_kill(graphdriver: Subject) -> None:
    """A home that no driver takes any more is a host that has lost all its containers."""
    assert_met(graphdriver, "CRS-001", kills(graphdriver, (*_VERBS, FIRST_INIT)))


@verifies("CRS-002")
def test_kill_changes_no_other_layer(graphdriver: Subject) -> None:
    """The layer in hand may be lost; nobody expects it of those that were not."""
    assert_met(graphdriver, "CRS-002", kills(graphdriver, _VERBS))


@verifies("CRS-003")
def test_layer_can_be_removed_after_a_kill(graphdriver: Subject) -> None:
    """Whatever is left of it: otherwise its space is lost for good."""
    assert_met(graphdriver, "CRS-003", kills(graphdriver, (*ACTS, *_RECOVERED)))


@verifies("CRS-004")
def test_id_can_be_used_again_after_a_kill(graphdriver: Subject) -> None:
    """A pull is tried again, and the ids of an image's layers are the same then."""
    assert_met(graphdriver, "CRS-004", kills(graphdriver, (*ACTS, *_RECOVERED)))


@verifies("CRS-005")
def test_killed_create_leaves_no_half_layer(graphdriver: Subject) -> None:
    """One that shows an empty base layer instead of its parent looks like an image."""
    assert_met(graphdriver, "CRS-005", kills(graphdriver, _acts("CRS-005")))


@verifies("CRS-006")
def test_killed_apply_leaves_no_half_archive(graphdriver: Subject) -> None:
    """A layer with half of its files is not seen to be one."""
    assert_met(graphdriver, "CRS-006", kills(graphdriver, _acts("CRS-006")))


@verifies("CRS-007")
def test_killed_remove_leaves_no_half_layer(graphdriver: Subject) -> None:
    """One that exists is used again by the next pull of the image."""
    assert_met(graphdriver, "CRS-007", kills(graphdriver, _acts("CRS-007")))


@verifies("CRS-008")
def test_kill_while_mounting_or_reading_loses_nothing(graphdriver: Subject) -> None:
    """A container's files are in that layer, and nowhere else."""
    assert_met(graphdriver, "CRS-008", kills(graphdriver, _acts("CRS-008")))


@verifies("CRS-009")
def test_cleanup_ends_the_mounts_of_a_killed_driver(graphdriver: Subject) -> None:
    """Nobody else knows of them, and the disk cannot be unmounted."""
    assert_met(graphdriver, "CRS-009", kills(graphdriver, _VERBS))


@verifies("CRS-010")
def test_kill_leaves_nothing_for_good(graphdriver: Subject) -> None:
    """A host that is restarted often would fill up with what nobody knows."""
    assert_met(graphdriver, "CRS-010", kills(graphdriver, _VERBS))


@verifies("CRS-011")
def test_first_start_that_was_killed_is_no_matter(graphdriver: Subject) -> None:
    """Neither for the home that is to be made, nor for the directory that it is in."""
    assert_met(graphdriver, "CRS-011", kills(graphdriver, [FIRST_INIT]))


@verifies("CRS-012")
def test_kill_after_return_changes_nothing(graphdriver: Subject) -> None:
    """The caller has written down that it is done."""
    assert_met(graphdriver, "CRS-012", kills(graphdriver, ACTS))


@verifies("CRS-013")
def test_killed_verb_can_be_called_again(graphdriver: Subject) -> None:
    """That is what a daemon does which does not know how far it came."""
    assert_met(graphdriver, "CRS-013", kills(graphdriver, (*ACTS, *_RECOVERED)))
