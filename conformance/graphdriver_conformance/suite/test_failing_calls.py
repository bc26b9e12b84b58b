"""CRS: one system call of a verb fails; the error and the remnants are checked."""

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.suite.support.fault_scene import ACTS
from graphdriver_conformance.suite.support.kill_sweep import INIT
from graphdriver_conformance.suite.support.shared_sweeps import assert_met, errors

_VERBS = (*ACTS, INIT)


@verifies("CRS-040")
def test_success_is_reported_for_correct_results_only(graphdriver: Subject) -> None:
    """On a full disk, layers without their files were reported as complete."""
    assert_met(graphdriver, "CRS-040", errors(graphdriver, _VERBS))


@verifies("CRS-041")
def test_error_changes_no_other_layer(graphdriver: Subject) -> None:
    """Cleanup after an error is code in which other files are deleted by mistake."""
    assert_met(graphdriver, "CRS-041", errors(graphdriver, _VERBS))


@verifies("CRS-042")
def test_error_leaves_the_layer_as_it_was(graphdriver: Subject) -> None:
    """A partial layer that exists is used by the next pull."""
    assert_met(graphdriver, "CRS-042", errors(graphdriver, _VERBS))


@verifies("CRS-043")
def test_verb_succeeds_once_the_error_is_over(graphdriver: Subject) -> None:
    """A disk may be full for a minute; daemons are not restarted for that."""
    assert_met(graphdriver, "CRS-043", errors(graphdriver, _VERBS))


@verifies("CRS-044")
def test_error_names_its_cause(graphdriver: Subject) -> None:
    """The error `cannot create layer` does not tell the user that the disk is full."""
    assert_met(graphdriver, "CRS-044", errors(graphdriver, _VERBS))


@verifies("CRS-045")
def test_failed_verb_leaks_nothing(graphdriver: Subject) -> None:
    """A daemon that retries each minute runs out of descriptors within a day."""
    assert_met(graphdriver, "CRS-045", errors(graphdriver, _VERBS))


@verifies("CRS-046")
def test_unmount_that_failed_is_reported(graphdriver: Subject) -> None:
    """A caller that assumes that the layer is unmounted removes it, or gives it to another
    container.
    """
    assert_met(graphdriver, "CRS-046", errors(graphdriver, ("put", "cleanup")))
