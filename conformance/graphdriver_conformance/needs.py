"""What a requirement needs: of the driver, of the way to it, of this machine."""

from collections.abc import Callable

from graphdriver.contract import Capability
from graphdriver_conformance.drivers import OFFERS, DriverSource
from graphdriver_conformance.environment import Environment
from graphdriver_conformance.requirement import Requirement
from graphdriver_conformance.subject import NotClaimed, NotProvable

__all__ = ["PROBED", "unclaimed"]

PROBED = frozenset(
    {
        Capability.ACLS,
        Capability.CONTENT_EXACT_CHANGES,
        Capability.EXACT_DIFFS,
        Capability.HARDLINK_IDENTITY,
        Capability.LOWER_SYMLINKS,
        Capability.RESTARTABLE,
        Capability.ROOT_METADATA,
        Capability.USER_XATTRS,
    }
)
"""Capabilities that are looked at although not claimed: one may work without its author knowing.

Only such as cost a few files. The others fill disks, make a hundred layers, or ask for verbs that
are not there.
"""


def unclaimed(
    requirement: Requirement,
    source: DriverSource,
    environment: Environment,
    declares: Callable[[], frozenset[str] | None],
) -> str:
    """Return what the driver does not claim where its test may look all the same, or "".

    `declares` returns the capabilities that it claims, None for all. Raises NotClaimed or
    NotProvable where the test need not, or cannot, run.
    """
    missing: list[str] = []
    lacks: list[str] = []
    for need in requirement.needs:
        if need in Environment.needs():
            if lack := environment.lacks(need):
                lacks.append(lack)
        elif need in OFFERS:
            if need not in source.offers:
                raise NotClaimed(OFFERS[need])
        elif (declared := declares()) is not None and need not in declared:
            missing.append(need)
    # What is not claimed need not be proven, here or anywhere.
    if missing and (lacks or not set(missing) <= PROBED):
        raise NotClaimed(f"the driver does not claim {', '.join(missing)}")
    if lacks:
        raise NotProvable(lacks[0])
    return ", ".join(missing)
