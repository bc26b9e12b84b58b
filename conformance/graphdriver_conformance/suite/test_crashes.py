"""CRS: the driver is killed inside a verb, before each of its changes, and restarted."""

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.suite.support.fault_scene import ACTS
from graphdriver_conformance.suite.support.kill_sweep import FIRST_INIT, INIT, RECOVERIES
from graphdriver_conformance.suite.support.shared_sweeps import assert_met, kills

_RECOVERED = tuple(RECOVERIES)
_VERBS = (*ACTS, INIT, *_RECOVERED)


def _acts(requirement: str) -> list[str]:
    """Return the verbs for which a requirement defines the state of the layer after a kill."""
    found = [name for name, act in ACTS.items() if act.requirement == requirement]
    return found + [name for name, act in RECOVERIES.items() if act in found]


@verifies("CRS-001")
def test_driver_starts_again_after_a_kill(graphdriver: Subject) -> None:
    """If no driver accepts the home, the host has lost all its containers."""
    assert_met(graphdriver, "CRS-001", kills(graphdriver, (*_VERBS, FIRST_INIT)))


@verifies("CRS-002")
def test_kill_changes_no_other_layer(graphdriver: Subject) -> None:
    """The layer of the killed verb may be lost; other layers may not."""
    assert_met(graphdriver, "CRS-002", kills(graphdriver, _VERBS))


@verifies("CRS-003")
def test_layer_can_be_removed_after_a_kill(graphdriver: Subject) -> None:
    """Any remnant of the layer can be removed: otherwise its space cannot be freed."""
    assert_met(graphdriver, "CRS-003", kills(graphdriver, (*ACTS, *_RECOVERED)))


@verifies("CRS-004")
def test_id_can_be_used_again_after_a_kill(graphdriver: Subject) -> None:
    """A pull is repeated, with the same ids for the layers of the image."""
    assert_met(graphdriver, "CRS-004", kills(graphdriver, (*ACTS, *_RECOVERED)))


@verifies("CRS-005")
def test_killed_create_leaves_no_half_layer(graphdriver: Subject) -> None:
    """A layer that shows an empty base layer instead of its parent looks like an image."""
    assert_met(graphdriver, "CRS-005", kills(graphdriver, _acts("CRS-005")))


@verifies("CRS-006")
def test_killed_apply_leaves_no_half_archive(graphdriver: Subject) -> None:
    """A layer with half of its files cannot be recognized as damaged."""
    assert_met(graphdriver, "CRS-006", kills(graphdriver, _acts("CRS-006")))


@verifies("CRS-007")
def test_killed_remove_leaves_no_half_layer(graphdriver: Subject) -> None:
    """If the layer exists, the next pull of the image uses it."""
    assert_met(graphdriver, "CRS-007", kills(graphdriver, _acts("CRS-007")))


@verifies("CRS-008")
def test_kill_while_mounting_or_reading_loses_nothing(graphdriver: Subject) -> None:
    """The files of a container exist only in that layer."""
    assert_met(graphdriver, "CRS-008", kills(graphdriver, _acts("CRS-008")))


@verifies("CRS-009")
def test_cleanup_ends_the_mounts_of_a_killed_driver(graphdriver: Subject) -> None:
    """No other program knows these mounts, and the disk cannot be unmounted."""
    assert_met(graphdriver, "CRS-009", kills(graphdriver, _VERBS))


@verifies("CRS-010")
def test_kill_leaves_no_permanent_remnant(graphdriver: Subject) -> None:
    """The disk of a host that is restarted often would fill up with remnants."""
    assert_met(graphdriver, "CRS-010", kills(graphdriver, _VERBS))


@verifies("CRS-011")
def test_second_start_succeeds_after_a_killed_first_one(graphdriver: Subject) -> None:
    """Neither the new home nor its parent directory contains remnants."""
    assert_met(graphdriver, "CRS-011", kills(graphdriver, [FIRST_INIT]))


@verifies("CRS-012")
def test_kill_after_return_changes_nothing(graphdriver: Subject) -> None:
    """The caller has recorded that the verb has succeeded."""
    assert_met(graphdriver, "CRS-012", kills(graphdriver, ACTS))


@verifies("CRS-013")
def test_killed_verb_can_be_called_again(graphdriver: Subject) -> None:
    """A daemon repeats the verb, because it does not know whether it was completed."""
    assert_met(graphdriver, "CRS-013", kills(graphdriver, (*ACTS, *_RECOVERED)))
