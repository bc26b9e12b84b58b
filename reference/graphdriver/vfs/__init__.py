"""The driver that copies: no mounts, no limits, every layer a whole tree."""

from graphdriver.vfs.driver import Driver

__all__ = ["Driver"]
