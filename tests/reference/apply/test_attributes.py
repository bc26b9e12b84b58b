"""Rulings 34, 35, 37: attributes that are inherited, contain ids, or have a foreign namespace."""

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver.contract import IDMap
from graphdriver.errors import BadArchive, UnmappedId
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    build_archive,
    entry_of,
    read_archive,
)
from graphdriver_conformance.oracle.tree import (
    Node,
    NodeKind,
    device,
    directory,
    fifo,
    file,
    symlink,
)

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: owners and mounts")

UIDS, GIDS = [IDMap(0, 100_000, 1000)], [IDMap(0, 200_000, 1000)]
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
CAPABILITY = "security.capability"
NOBODY = 0xFFFFFFFF
MAPPED = pytest.mark.parametrize("driver", [(UIDS, GIDS)], indirect=True, ids=["mapped"])


def _acl(uid: int, gid: int) -> bytes:
    """Return an ACL with entries for a user and a group; include/uapi/linux/posix_acl_xattr.h."""
    entries = [(1, 7, NOBODY), (2, 6, uid), (4, 5, NOBODY), (8, 4, gid), (16, 7, NOBODY)]
    entries.append((32, 0, NOBODY))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _capability(root: int | None) -> bytes:
    """Return CAP_NET_RAW, permitted and effective; version 3 if a root id is given."""
    if root is None:
        return struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    return struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, root)


def _with(node: Node, **xattrs: bytes) -> Node:
    return node.but(xattrs=frozenset((key.replace("__", "."), v) for key, v in xattrs.items()))


@pytest.fixture(params=[Overlay2, Vfs], ids=["overlay2", "vfs"])
def factory(request: pytest.FixtureRequest) -> type[Overlay2] | type[Vfs]:
    """The class of a driver."""
    made: type[Overlay2] | type[Vfs] = request.param
    return made


@pytest.fixture
def driver(
    factory: type[Overlay2] | type[Vfs], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Overlay2 | Vfs]:
    maps = getattr(request, "param", ((), ()))
    made = factory(tmp_path / "home", (), *maps)
    yield made
    made.cleanup()


def _apply(driver: Overlay2 | Vfs, id: str, parent: str, *entries: LayerEntry) -> Path:
    driver.create(id, parent)
    driver.apply_diff(id, parent, io.BytesIO(build_archive(entries)))
    return driver.get(id)


NODES = {
    "small": file(b"x", 0o640),
    "empty": file(b"", 0o600),
    "large": file(b"x" * 100_000, 0o640),
    "attributed": _with(file(b"x", 0o640), user__a=b"1"),
    "fifo": fifo(0o640),
    "device": device(NodeKind.CHARACTER, 1, 3, 0o640),
    "directory": directory(0o750),
}


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("where", ["same archive", "implied", "below", "root", "late"])
def test_members_do_not_inherit_a_default_acl(
    driver: Overlay2 | Vfs, name: str, where: str
) -> None:
    """For example the default ACL of /var/log/journal, set by systemd."""
    giver = entry_of("" if where == "root" else "d", _with(directory(), **{DEFAULT: _acl(7, 8)}))
    path = name if where == "root" else f"d/sub/{name}" if where == "implied" else f"d/{name}"
    member = entry_of(path, NODES[name])
    if where in ("below", "implied"):
        _apply(driver, "low", "", giver)
        view = _apply(driver, "top", "low", member)
    elif where == "late":
        view = _apply(driver, "top", "", entry_of("d/other", file()), giver, member)
    else:
        view = _apply(driver, "top", "", giver, member)

    found = view / path

    assert [key for key in os.listxattr(found) if key in (ACCESS, DEFAULT)] == []
    assert NODES[name].mode == found.stat().st_mode & 0o7777
    if where != "implied":
        assert _acl(7, 8) == os.getxattr(found.parent, DEFAULT)


def test_copies_for_hard_links_do_not_inherit_either(driver: Overlay2 | Vfs) -> None:
    low = [entry_of("d", _with(directory(), **{DEFAULT: _acl(7, 8)})), entry_of("d/f", file(b"f"))]
    _apply(driver, "low", "", *low)

    view = _apply(driver, "top", "low", entry_of("h", file(), b"d/f"))

    assert ACCESS not in os.listxattr(view / "h")
    assert (view / "h").stat().st_mode & 0o7777 == 0o644


@MAPPED
@pytest.mark.parametrize("size", [1, 100_000])
def test_ids_in_attributes_are_mapped_with_the_owners(driver: Overlay2 | Vfs, size: int) -> None:
    tool = _with(file(b"x" * size, 0o755), **{CAPABILITY: _capability(0), ACCESS: _acl(7, 8)})
    tree = [
        entry_of("d", _with(directory(), **{DEFAULT: _acl(9, 10), ACCESS: _acl(7, 8)})),
        entry_of("d/tool", tool),
    ]

    view = _apply(driver, "top", "", *tree)

    assert _capability(100_000) == os.getxattr(view / "d/tool", CAPABILITY)
    assert _acl(100_007, 200_008) == os.getxattr(view / "d/tool", ACCESS)
    assert _acl(100_009, 200_010) == os.getxattr(view / "d", DEFAULT)
    with driver.diff("top", "") as stream:
        found = {e.name.rstrip(b"/"): dict(e.node.xattrs) for e in read_archive(stream)}
    assert found[b"d/tool"] == dict(tool.xattrs)
    assert found[b"d"] == {DEFAULT: _acl(9, 10), ACCESS: _acl(7, 8)}


@MAPPED
def test_capability_of_version_2_is_kept_unmapped(driver: Overlay2 | Vfs) -> None:
    view = _apply(
        driver, "top", "", entry_of("tool", _with(file(b"x"), **{CAPABILITY: _capability(None)}))
    )

    assert _capability(None) == os.getxattr(view / "tool", CAPABILITY)


@MAPPED
@pytest.mark.parametrize(
    "xattrs", [{CAPABILITY: _capability(1000)}, {ACCESS: _acl(1000, 0)}, {ACCESS: _acl(0, 1000)}]
)
def test_id_in_an_attribute_without_a_map_is_refused(
    driver: Overlay2 | Vfs, xattrs: dict[str, bytes]
) -> None:
    with pytest.raises(UnmappedId, match="1000 has no"):
        _apply(driver, "top", "", entry_of("f", _with(file(b"x"), **xattrs)))


def test_foreign_attributes_are_left_out(driver: Overlay2 | Vfs) -> None:
    foreign = {
        "com.apple.provenance": b"1",
        "security.selinux": b"system_u:object_r:usr_t:s0\0",
        "security.ima": b"\1",
        "trusted.md5": b"1",
        "": b"1",
        "user.kept": b"1",
    }
    entry = entry_of("f", file(b"x").but(xattrs=frozenset(foreign.items())))

    view = _apply(driver, "top", "", entry)

    assert os.listxattr(view / "f") == ["user.kept"]


@pytest.mark.parametrize(
    ("node", "keys"),
    [
        (symlink("x"), ["user.a", ACCESS, DEFAULT]),
        (fifo(), ["user.a", DEFAULT]),
        (device(NodeKind.BLOCK, 7, 0), ["user.a", DEFAULT]),
        (file(b"x"), [DEFAULT]),
    ],
    ids=["symlink", "fifo", "device", "file"],
)
def test_attributes_that_such_an_inode_cannot_have_are_left_out(
    driver: Overlay2 | Vfs, node: Node, keys: list[str]
) -> None:
    values = {key: b"1" if key == "user.a" else _acl(7, 8) for key in keys}

    view = _apply(driver, "top", "", entry_of("n", _with(node, **values)))

    assert os.listxattr(view / "n", follow_symlinks=False) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user." + "n" * 300, b"1"),
        ("user.big", b"v" * 70_000),
        ("user.", b"1"),
        (CAPABILITY, b"\1\2\3"),
        (ACCESS, b"\2\0\0\0junk"),
    ],
)
def test_attributes_that_no_kernel_takes_are_refused_by_the_name_of_their_member(
    driver: Overlay2 | Vfs, key: str, value: bytes
) -> None:
    with pytest.raises(BadArchive, match="b'd/f'"):
        _apply(driver, "top", "", entry_of("d/f", _with(file(b"x"), **{key: value})))
