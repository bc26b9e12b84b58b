"""Drivers that are not Python: one module each, which turns a SPEC of its scheme into a driver.

A module is loaded when a SPEC asks for it, so that what it needs (grpcio, say) is needed by nobody
else.
"""

__all__ = ["SCHEMES"]

SCHEMES = {
    "plugin+exec": "graphdriver_conformance.adapters.plugin",
    "plugin+unix": "graphdriver_conformance.adapters.plugin",
}
"""Scheme of a SPEC, up to its first colon: the module whose `source(spec)` resolves it."""
