"""Layered storage drivers in plain Python: the contract, overlay2, vfs and the archive engine.

The package imports only the standard library, and nothing of the conformance suite.
"""

from graphdriver import errors
from graphdriver.contract import Capability, Change, ChangeKind, Driver, DriverFactory, IDMap

__all__ = ["Capability", "Change", "ChangeKind", "Driver", "DriverFactory", "IDMap", "errors"]
