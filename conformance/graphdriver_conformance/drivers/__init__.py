"""Drivers that are not Python: one module each, which turns a SPEC of its scheme into a driver.

A module is loaded when a SPEC asks for it, so that what it needs (grpcio, say) is needed by nobody
else.
"""

import os
from enum import StrEnum

from graphdriver.errors import DriverError

__all__ = ["SCHEMES", "Fate", "NoAnswer", "NotTold", "deadline"]

SCHEMES = {
    "containerd+unix": "graphdriver_conformance.drivers.containerd",
    "containers-storage": "graphdriver_conformance.drivers.containers_storage",
    "plugin+exec": "graphdriver_conformance.drivers.plugin",
    "plugin+unix": "graphdriver_conformance.drivers.plugin",
}
"""Scheme of a SPEC, up to its first colon: the module whose `source(spec)` resolves it."""


class NotTold(DriverError):
    """The driver may know, but the way to it cannot carry the answer.

    Such as a path that is no text over a protocol of texts: what a test asks then is not provable
    this way, and an example that asks it is not one.
    """


class Fate(StrEnum):
    """Why a verb was not answered."""

    HUNG = "hung"
    DIED = "died"
    BROKE_OFF = "broke-off"


class NoAnswer(OSError):
    """A driver in another process did not answer; `fate` says why."""

    fate = Fate.BROKE_OFF


def deadline() -> float:
    """Return how many seconds a verb may take: $GRAPHDRIVER_DEADLINE, or 60."""
    return float(os.environ.get("GRAPHDRIVER_DEADLINE") or 60)
