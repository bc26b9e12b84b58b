"""Layered storage drivers in plain Python: the contract, overlay2, vfs and the archive engine.

Nothing here imports anything outside the standard library, nor the conformance suite.
"""

from graphdriver import errors
from graphdriver.contract import Capability, Change, ChangeKind, Driver, DriverFactory, IDMap

__all__ = ["Capability", "Change", "ChangeKind", "Driver", "DriverFactory", "IDMap", "errors"]
