"""Drivers that are not Python: one module each, which turns a SPEC of its scheme into a driver.

A module is loaded only for a SPEC with its scheme, so that its dependencies, such as grpcio, are
optional.
"""

import os
from enum import StrEnum

from graphdriver.errors import DriverError

__all__ = ["SCHEMES", "Cause", "NoAnswer", "NotRepresentable", "deadline"]

SCHEMES = {
    "containerd+unix": "graphdriver_conformance.drivers.containerd",
    "containers-storage": "graphdriver_conformance.drivers.containers_storage",
    "plugin+exec": "graphdriver_conformance.drivers.plugin",
    "plugin+unix": "graphdriver_conformance.drivers.plugin",
}
"""Scheme of a SPEC, up to its first colon: the module whose `source(spec)` resolves it."""


class NotRepresentable(DriverError):
    """The transport cannot represent the answer.

    For example a path that is not UTF-8 over JSON: the requirement is then not provable over this
    transport, and an example that needs it is skipped.
    """


class Cause(StrEnum):
    """The reason why a verb was not answered."""

    HUNG = "hung"
    DIED = "died"
    BROKE_OFF = "broke-off"


class NoAnswer(OSError):
    """A driver in another process did not answer; `cause` is the reason."""

    cause = Cause.BROKE_OFF


def deadline() -> float:
    """Return the number of seconds that a verb may take: $GRAPHDRIVER_DEADLINE, or 60."""
    return float(os.environ.get("GRAPHDRIVER_DEADLINE") or 60)
