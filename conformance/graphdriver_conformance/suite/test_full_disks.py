"""CRS-020 to CRS-027: disks without free blocks or inodes during a verb, and before.

Each verb is called with increasing free space, from none to enough, on a tmpfs and on an ext4, so
that each of its writes fails once.
"""

import errno
from itertools import product

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.drivers import NoAnswer
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import file
from graphdriver_conformance.suite.support.effort import by_profile
from graphdriver_conformance.suite.support.full_disks import (
    BASE,
    GET,
    VERBS,
    disk_scene,
)
from graphdriver_conformance.suite.support.names import assert_same_names, home_names
from graphdriver_conformance.suite.support.small_disks import Resource

_TYPES = by_profile(("tmpfs",), ("tmpfs", "ext4"), ("tmpfs", "ext4"))
_DISKS = [
    pytest.param(type, resource, id=f"{type}-{resource.value}")
    for type, resource in product(_TYPES, Resource)
]
_FULL = (errno.ENOSPC, errno.EDQUOT)


@verifies("CRS-020")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_success_on_a_full_disk_is_complete(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """After a successful pull the layer is not checked again."""
    with disk_scene(graphdriver, type) as small:
        for verb in VERBS.values():
            for attempt in small.attempts(verb, resource):
                if attempt.error is None:
                    small.disk.free_space()
                    found = graphdriver.tree(attempt.layer)
                    assert_same_tree(verb.after, found, f"{attempt.call} on {type} succeeded")


@verifies("CRS-021")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_full_disk_changes_no_other_layer(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """Existing images must be usable after space was freed and the host was rebooted."""
    with disk_scene(graphdriver, type) as small:
        for verb in VERBS.values():
            for attempt in small.attempts(verb, resource):
                if attempt.error is not None:
                    small.disk.free_space()
                    small.assert_others_whole(f"{attempt.call} on {type}")
                    graphdriver.reopen()
                    small.assert_others_whole(f"{attempt.call} on {type} and a restart")


@verifies("CRS-022")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_failed_verb_on_a_full_disk_changes_nothing(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """Remnants of each failed pull use more space, and are not found."""
    with disk_scene(graphdriver, type) as small:
        for verb in VERBS.values():
            for attempt in small.attempts(verb, resource):
                if attempt.error is None:
                    continue
                failed = f"the failed {attempt.call} on {type}"
                assert graphdriver.mounts() == attempt.mounts, f"{failed} left a mount"
                small.disk.free_space()
                if verb.before is None:
                    assert not graphdriver.exists(attempt.layer), f"{failed} left the layer"
                if verb is not GET:  # the first mount of a layer may create its directories
                    message = f"{failed} changed the home"
                    assert_same_names(attempt.names, home_names(graphdriver.home), message)
                if verb.before is not None:
                    assert_same_tree(verb.before, graphdriver.tree(attempt.layer), failed)


@verifies("CRS-023")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_failed_verb_succeeds_once_there_is_space(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """A pull is repeated after `docker system prune`, without a restart of the daemon."""
    with disk_scene(graphdriver, type) as small:
        for verb in VERBS.values():
            for attempt in small.attempts(verb, resource):
                if attempt.error is None:
                    continue
                small.disk.free_space()
                graphdriver.note(f"{attempt.call} had failed: {attempt.error}")
                verb.call(graphdriver, attempt.layer, small.base)
                again = f"{verb.name} again, after {attempt.call} on {type} had failed"
                assert_same_tree(verb.after, graphdriver.tree(attempt.layer), again)
                if verb is GET:
                    graphdriver.put(attempt.layer)


@verifies("CRS-024")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_error_of_a_full_disk_names_the_cause(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """`read-only file system` or `no such layer` misleads an administrator."""
    with disk_scene(graphdriver, type) as small:
        for verb in VERBS.values():
            for attempt in small.attempts(verb, resource):
                if attempt.error is not None:
                    shown = f"{attempt.call} on {type} raised {attempt.error!r}"
                    assert _names_full_disk(attempt.error), f"{shown}, which is not ENOSPC"


def _names_full_disk(error: BaseException) -> bool:
    text = "\n".join([str(error), *getattr(error, "__notes__", ())]).lower()
    return getattr(error, "errno", None) in _FULL or "no space" in text or "quota" in text


@verifies("CRS-025")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_layers_are_put_and_removed_on_a_full_disk(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """Space is freed by stopping containers and removing images."""
    with disk_scene(graphdriver, type) as small:
        written = BASE.with_(b"own", file(b"x" * 9000))
        first, second = graphdriver.build(written, small.base), graphdriver.build(BASE)
        held = graphdriver.new_layer(small.base, writable=True)
        mounts = graphdriver.mounts()
        graphdriver.get(first)
        graphdriver.get(held)
        small.disk.leave(resource, 0)
        before = small.disk.used()

        graphdriver.put(first)
        graphdriver.remove(first)
        graphdriver.remove(second)
        graphdriver.cleanup()

        assert small.disk.used() < before, "remove of two layers freed nothing"
        left = [id for id in (first, second) if graphdriver.exists(id)]
        assert left == [], f"remove succeeded on a full {type}, the layers exist"
        assert graphdriver.mounts() == mounts, f"mounts after cleanup on a full {type}"
        small.disk.free_space()
        # A driver is not used between cleanup and its next start.
        graphdriver.reopen(cleanup=False)
        assert_same_tree(BASE, graphdriver.tree(held), "the layer that was held")
        small.assert_others_whole("remove and cleanup")


@verifies("CRS-026")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_view_from_a_full_disk_can_be_written(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """overlayfs mounts read-only if it cannot create its directory in `work`, and stays so."""
    with disk_scene(graphdriver, type) as small:
        for attempt in small.attempts(GET, resource):
            if attempt.error is not None:
                continue
            small.disk.free_space()
            wanted = BASE.with_(b"own", file(b"own"))
            try:
                graphdriver.fill(attempt.layer, wanted)
            except OSError as error:
                if isinstance(error, NoAnswer):
                    raise
                message = f"{attempt.call} on {type} succeeded; a write with room again: {error}"
                raise AssertionError(message) from error
            assert_same_tree(wanted, graphdriver.tree(attempt.layer), "the written data")


@verifies("CRS-027")
@pytest.mark.parametrize(("type", "resource"), _DISKS)
def test_driver_starts_again_after_the_disk_was_full(
    graphdriver: Subject, type: str, resource: Resource
) -> None:
    """The daemon starts with the machine, while the disk is as full as before."""
    with disk_scene(graphdriver, type) as small:
        for count in by_profile((0, 1, 3), range(8), range(40)):
            graphdriver.cleanup()
            small.disk.leave(resource, count)
            failed = _fails_to_start(graphdriver)
            small.disk.free_space()
            graphdriver.note(f"Init with {count} {resource.value} left: {failed or 'succeeded'}")
            graphdriver.reopen(cleanup=False)
            small.assert_others_whole(f"Init with {count} {resource.value} left on {type}")
            if not failed:
                return


def _fails_to_start(graphdriver: Subject) -> str:
    """Restart the driver; return its error, "" for none."""
    try:
        graphdriver.reopen(cleanup=False)
    except NoAnswer:
        raise
    except (DriverError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
