"""Xattrs of each namespace that a driver must preserve, with valid values."""

import os
import struct
from collections.abc import Mapping

from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.oracle.observe import TRUSTED
from graphdriver_conformance.oracle.tree import Node, Tree, directory, file
from graphdriver_conformance.suite.support.beside import directory_beside
from graphdriver_conformance.suite.support.differential import plain_directory
from graphdriver_conformance.suite.support.surroundings import set_or_not_provable

__all__ = [
    "ACCESS",
    "ATTRIBUTES",
    "CAPABILITY",
    "DEFAULT",
    "Attributes",
    "capability",
    "held_by_home",
    "named_acl",
    "needs_attribute",
    "nodes_with",
]

CAPABILITY = "security.capability"
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"

Attributes = frozenset[tuple[str, bytes]]

# struct vfs_cap_data: magic with the effective bit, then permitted and inheritable, twice:
# cap_net_raw+ep, as setcap writes it.
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
# user::rw-, user:7:rwx, group::r--, mask::rwx, other::r--; the mask shows as the group's bits.
_ENTRIES = ((1, 6, -1), (2, 7, 7), (4, 4, -1), (16, 7, -1), (32, 4, -1))
_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in _ENTRIES)

ATTRIBUTES: Mapping[str, Attributes] = {
    "user": frozenset({("user.note", b"kept"), ("user.empty", b"")}),
    "capability": frozenset({(CAPABILITY, _CAPABILITY)}),
    "acl": frozenset({(ACCESS, _ACL)}),
    "default acl": frozenset({(DEFAULT, _ACL)}),
    "trusted": frozenset({(f"{TRUSTED}note", b"kept")}),
}
"""By the name used in requirements."""


def capability(root: int) -> bytes:
    """Return CAP_NET_RAW, permitted and effective, in the user namespace of the root id `root`."""
    # struct vfs_ns_cap_data: magic with the effective bit, permitted and inheritable, twice, root.
    return struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, root)


def named_acl(user: int, group: int, others: int = 4) -> bytes:
    """Return an ACL with entries for a user and a group, and with `others` for other users."""
    # struct posix_acl_xattr: version, then tag, permissions and id of each entry.
    entries = [(1, 6, -1), (2, 7, user), (4, 4, -1), (8, 5, group), (16, 7, -1), (32, others, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def needs_attribute(graphdriver: Subject, name: str, value: bytes) -> None:
    """End the test if the file system of the home does not store such an xattr."""
    probe = plain_directory(graphdriver, Tree.of({"f": b"", "d": directory()}))
    path = probe / ("d" if name == DEFAULT else "f")
    try:
        os.setxattr(path, name, value)
        kept = os.getxattr(path, name)
    except OSError as error:
        graphdriver.not_provable(f"{name} cannot be set here: {error.strerror}")
    if kept != value:
        graphdriver.not_provable(f"{name} is not stored unchanged on this file system")


def held_by_home(graphdriver: Subject, kind: str) -> Attributes:
    """Return the xattrs of a kind; not provable if the home's file system does not support them."""
    place = directory_beside(graphdriver, graphdriver.new_id(f"probe-{kind}"))
    probe = place / "file"
    with own_work(f"make {probe}"):
        probe.touch()
    for name, value in ATTRIBUTES[kind]:
        set_or_not_provable(graphdriver, probe, name, value)
    with own_work(f"remove {place}"):
        os.unlink(probe)
        place.rmdir()
    return ATTRIBUTES[kind]


def nodes_with(graphdriver: Subject, kind: str) -> Mapping[str, Node]:
    """Return nodes with xattrs of a kind; not provable if the home does not support them."""
    attributes = held_by_home(graphdriver, kind)
    # With an ACL, the group bits of a file's mode are the mask.
    mode = 0o674 if kind == "acl" else 0o755
    nodes = {
        "a file": file(b"#!", mode, xattrs=attributes),
        "a large file": file(bytes(range(256)) * 300, mode, xattrs=attributes),
    }
    if kind == "capability":
        return nodes
    nodes["a directory"] = directory(mode, xattrs=attributes)
    if kind == "acl":
        both = attributes | ATTRIBUTES["default acl"]
        nodes["a directory with a default"] = directory(mode, xattrs=both)
    return nodes
