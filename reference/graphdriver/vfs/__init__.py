"""The driver that copies: every layer is a complete tree, without mounts and limits."""

from graphdriver.vfs.driver import Driver

__all__ = ["Driver"]
