"""Drivers that are not Python: one module each, which turns a SPEC of its scheme into a driver.

A module is loaded when a SPEC asks for it, so that what it needs (grpcio, say) is needed by nobody
else.
"""

from graphdriver.errors import DriverError

__all__ = ["SCHEMES", "NotTold"]

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
