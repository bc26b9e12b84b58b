"""Attributes as the kernel takes them, and whether the file system of the home keeps them."""

import os
import struct

from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.tree import Tree, directory
from graphdriver_conformance.suite.support.twins import plain_directory

__all__ = ["ACCESS", "CAPABILITY", "DEFAULT", "capability", "named_acl", "needs_attribute"]

CAPABILITY = "security.capability"
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def capability(root: int) -> bytes:
    """Return CAP_NET_RAW, permitted and effective, in the user namespace of the root `root`."""
    # struct vfs_ns_cap_data: magic with the effective bit, permitted and inheritable, twice, root.
    return struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, root)


def named_acl(user: int, group: int, others: int = 4) -> bytes:
    """Return an ACL in which a user and a group are named, and everybody has `others`."""
    # struct posix_acl_xattr: version, then tag, permissions and id of each entry.
    entries = [(1, 6, -1), (2, 7, user), (4, 4, -1), (8, 5, group), (16, 7, -1), (32, others, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def needs_attribute(graphdriver: Subject, name: str, value: bytes) -> None:
    """End the test where the file system of the home does not keep such an attribute."""
    probe = plain_directory(graphdriver, Tree.of({"f": b"", "d": directory()}))
    path = probe / ("d" if name == DEFAULT else "f")
    try:
        os.setxattr(path, name, value)
        kept = os.getxattr(path, name)
    except OSError as error:
        graphdriver.not_provable(f"{name} cannot be set here: {error.strerror}")
    if kept != value:
        graphdriver.not_provable(f"{name} is not kept here as it was set")
