"""Ids inside xattrs: they are mapped like owners (moby #41724, container-libs #1126).

A file capability of version 3 contains the root id of a user namespace; an ACL contains users and
groups. include/uapi/linux/capability.h and posix_acl_xattr.h.
"""

import struct
from collections.abc import Callable, Mapping

from graphdriver.errors import BadArchive
from graphdriver.idmapping import IDMapping

__all__ = ["refuse_malformed", "xattrs_to_container", "xattrs_to_host"]

_CAPABILITY = b"security.capability"
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
# struct vfs_ns_cap_data: magic and version, four words of capabilities, root id.
_REVISION_3 = 0x03000000
_CAPABILITY_3 = struct.Struct("<I16sI")
_ACL_VERSION = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP = 0x02, 0x08
_ACL_VERSION_2 = 2

_Map = Callable[[int], int]


def xattrs_to_host(xattrs: Mapping[bytes, bytes], ids: IDMapping) -> Mapping[bytes, bytes]:
    """Return the xattrs as on disk. Raises UnmappedId, BadArchive."""
    return _mapped(xattrs, lambda uid: ids.to_host(uid, 0)[0], lambda gid: ids.to_host(0, gid)[1])


def xattrs_to_container(xattrs: Mapping[bytes, bytes], ids: IDMapping) -> Mapping[bytes, bytes]:
    """Return the xattrs as in an archive. Raises UnmappedId."""
    uid_of_root, gid_of_root = ids.root
    return _mapped(
        xattrs,
        lambda uid: ids.to_container(uid, gid_of_root)[0],
        lambda gid: ids.to_container(uid_of_root, gid)[1],
    )


def refuse_malformed(xattrs: Mapping[bytes, bytes]) -> None:
    """Refuse malformed ACLs: for another version the kernel reports that ACLs are not supported.

    Raises BadArchive.
    """
    for key in _ACLS:
        if value := xattrs.get(key):
            _check_acl(key, value)


def _check_acl(key: bytes, value: bytes) -> None:
    size = len(value) - _ACL_VERSION.size
    if size < 0 or size % _ACL_ENTRY.size:
        raise BadArchive(f"{key.decode()} has {len(value)} bytes, which is no ACL")
    if (version := _ACL_VERSION.unpack_from(value)[0]) != _ACL_VERSION_2:
        raise BadArchive(f"{key.decode()} is an ACL of version {version}; version 2 is read")


def _mapped(xattrs: Mapping[bytes, bytes], uids: _Map, gids: _Map) -> Mapping[bytes, bytes]:
    changed = dict(xattrs)
    for key, value in xattrs.items():
        if key == _CAPABILITY and len(value) == _CAPABILITY_3.size:
            magic, sets, root = _CAPABILITY_3.unpack(value)
            if magic & 0xFF000000 == _REVISION_3:
                changed[key] = _CAPABILITY_3.pack(magic, sets, uids(root))
        elif key in _ACLS and value:
            changed[key] = _mapped_acl(key, value, uids, gids)
    return changed


def _mapped_acl(key: bytes, value: bytes, uids: _Map, gids: _Map) -> bytes:
    _check_acl(key, value)
    entries = [value[: _ACL_VERSION.size]]
    for tag, permissions, id in _ACL_ENTRY.iter_unpack(value[_ACL_VERSION.size :]):
        own = id
        if tag == _ACL_USER:
            own = uids(id)
        elif tag == _ACL_GROUP:
            own = gids(id)
        entries.append(_ACL_ENTRY.pack(tag, permissions, own))
    return b"".join(entries)
