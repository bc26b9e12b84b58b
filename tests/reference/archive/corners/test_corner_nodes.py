"""C-19 to C-36, C-57: types and attributes of inodes, exported from a mount and applied again."""

import os
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from graphdriver.errors import BadArchive
from graphdriver_conformance.oracle.archive import entry_of
from graphdriver_conformance.oracle.compare import Aspect
from graphdriver_conformance.oracle.tree import (
    EPOCH,
    Node,
    NodeKind,
    Tree,
    device,
    directory,
    fifo,
    file,
    symlink,
)
from reference.archive.corners.layers import ALL_BUT_ROOT, Layers

IMAGE = Tree.of({"d/a": b"a", "top": b"top"})


def _assert_travels(layers: Layers, tree: Tree, aspects: Aspect = ALL_BUT_ROOT) -> None:
    """Create the tree through a mount, and apply its archive to a sibling."""
    base = layers.built(IMAGE)
    layers.assert_travels(layers.built(Tree({**IMAGE, **tree}), base), base, aspects)


def test_c19_hard_links_of_a_layer_are_one_file_again(layers: Layers) -> None:
    groups = {b"three": file(b"three"), b"link": symlink("top"), b"pipe": fifo()}
    names = [b"%b%s" % (name, end) for name in groups for end in (b"1", b"2")] + [b"sub/three3"]
    tree = Tree.of({name: groups[_group(name)].but(link=_group(name)) for name in names})
    base = layers.built(IMAGE)
    layer = layers.built(Tree({**IMAGE, **tree.canonical()}), base)

    layers.assert_travels(layer, base)
    assert layers.driver.diff_size(layer, base) == len(b"three") + len(b"top")


def _group(name: bytes) -> bytes:
    return name.rpartition(b"/")[2].rstrip(b"123")


def test_c20_new_name_for_a_lower_file_keeps_its_content(layers: Layers) -> None:
    base = layers.built(IMAGE)
    layer = layers.new(base)
    with layers.view(layer) as root:
        os.link(root / "top", root / "d/again")
    sibling = layers.new(base)

    layers.apply(sibling, layers.archive(layer, base))

    for id in (layer, sibling):
        tree = layers.tree(id)
        assert (tree[b"top"].content, tree[b"d/again"].content) == (b"top", b"top")
        assert tree[b"top"].link == tree[b"d/again"].link == b"d/again"


def test_c21_hard_link_to_a_lower_file_copies_it_up(layers: Layers) -> None:
    layer = layers.new(layers.built(IMAGE))

    layers.apply(layer, [entry_of("new/name", file(), b"d/a")])

    tree = layers.tree(layer)
    assert tree[b"new/name"].content == b"a"
    assert tree[b"d/a"].link == tree[b"new/name"].link != b""


def test_c22_hard_link_before_its_target_is_refused(layers: Layers) -> None:
    entries = [entry_of("h", file(), b"later"), entry_of("later", file(b"x"))]

    layers.refuses(BadArchive, "is not there", entries)


def test_c23_writing_one_name_of_a_lower_pair(layers: Layers) -> None:
    """fuse-overlayfs 1.10 returned the old content after the next mount."""
    pair = file(b"one", link=b"a")
    base = layers.built(Tree.of({"a": pair, "b": pair}).canonical())
    layer = layers.new(base)
    with layers.view(layer) as root:
        with (root / "a").open("ab") as opened:
            opened.write(b" and two")
        while_mounted = ((root / "a").read_bytes(), (root / "b").read_bytes())

    tree = layers.tree(layer)

    assert while_mounted[0] == b"one and two"
    assert (tree[b"a"].content, tree[b"b"].content) == while_mounted
    layers.assert_travels(layer, base)


def test_c24_holes_stay_holes(layers: Layers) -> None:
    base = layers.built(IMAGE)
    layer = layers.new(base)
    with layers.view(layer) as root, (root / "sparse").open("wb") as opened:
        for place in (0, 64 << 20, (1 << 40) - 4):
            opened.seek(place)
            opened.write(b"data")
    sibling = layers.new(base)

    archive = layers.archive(layer, base)
    layers.apply(sibling, archive)

    assert len(archive) < 1 << 20, "the archive of 1 TiB of nothing is small"
    with layers.view(sibling) as root, (root / "sparse").open("rb") as opened:
        assert os.fstat(opened.fileno()).st_size == 1 << 40
        assert os.fstat(opened.fileno()).st_blocks < 1000
        for place in (0, 64 << 20, (1 << 40) - 4):
            opened.seek(place)
            assert opened.read(4) == b"data"
    assert layers.changes(sibling, layer) == []


@pytest.mark.parametrize(
    "form",
    [
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
    ids=lambda form: "-".join(one.rpartition("=")[2] for one in form),
)
def test_c25_every_form_of_sparse_members_is_read(
    layers: Layers, form: list[str], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as opened:
        for number in range(30):  # more than the four segments in GNU's first block
            opened.seek(number << 20)
            opened.write(b"%d" % number)
        opened.truncate(40 << 20)
    wanted = (tree / "sparse").read_bytes()
    command = ["tar", "-C", str(tree), "--sparse", *form, "-cf", "-", "sparse"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    layer = layers.new(layers.built(IMAGE))

    layers.apply(layer, archive)

    with layers.view(layer) as root:
        assert (root / "sparse").read_bytes() == wanted
        assert (root / "sparse").stat().st_blocks * 512 < 1 << 20


def test_c26_devices_and_fifos(layers: Layers) -> None:
    nodes: dict[str | bytes, Node | bytes | str] = {"pipe": fifo(0o640), "d/pipe": fifo()}
    for kind in (NodeKind.CHARACTER, NodeKind.BLOCK):
        for major, minor in ((1, 3), (0, 1), (4095, 255), (8, (1 << 20) - 1)):
            nodes[f"{kind.name}-{major}-{minor}"] = device(kind, major, minor, 0o620, uid=1, gid=2)

    _assert_travels(layers, Tree.of(nodes))


def test_c26_device_in_a_directory_of_many_is_not_deleted(layers: Layers) -> None:
    """Docker's naive differ on fuse-overlayfs deleted an unmodified device with forty siblings."""
    block = device(NodeKind.BLOCK, 7, 1)
    old = Tree.of({**{f"f{n}": b"x" for n in range(60)}, "blk": block, "pipe": fifo()})
    base = layers.built(old)
    layer = layers.built(old.with_(b"new", file()), base)

    assert layers.shown(layer, base) == ["A /new"]
    assert layers.names(layer, base) == [b"new"]


def test_c27_character_device_0_0_is_refused(layers: Layers) -> None:
    entries = [entry_of("null", device(NodeKind.CHARACTER, 0, 0))]

    layers.refuses(BadArchive, "takes for a deletion", entries)


def test_c28_sockets_stay_behind(layers: Layers) -> None:
    """In the parent and in the layer; Docker's vfs failed because of the first."""
    base = layers.built(IMAGE)
    middle, layer = layers.new(base), ""
    for id in (middle, layer):
        id = id or layers.new(middle)
        with layers.view(id) as root:
            _bind(root, f"socket-{id}")
        layer = id
    sibling = layers.new(middle)

    layers.apply(sibling, layers.archive(layer, middle))

    assert set(layers.tree(sibling)) == set(layers.tree(middle))
    assert [n for n in layers.names(layer) if n not in (b"d", b".")] == [b"d/a", b"top"]
    assert layers.shown(layer, middle) == [f"A /socket-{layer}"]


def _bind(root: Path, name: str) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{descriptor}/{name}")
    os.close(descriptor)


@pytest.mark.parametrize("version", [2, 3])
def test_c29_capabilities_of_files_survive_their_owner(layers: Layers, version: int) -> None:
    """chown(2) clears them. Version 3 is valid in one user namespace, given by its root's uid."""
    # struct vfs_ns_cap_data (include/uapi/linux/capability.h)
    words = [version << 24 | 1, 1 << 13, 0, 0, 0] + ([100_000] if version == 3 else [])
    capability = struct.pack(f"<{len(words)}I", *words)
    base = layers.built(IMAGE)
    layer = layers.built(Tree({**IMAGE, b"ping": file(b"x" * 70_000, 0o755, uid=7)}), base)
    with layers.view(layer) as root:
        os.setxattr(root / "ping", "security.capability", capability)

    assert tuple(layers.tree(layer)[b"ping"].xattrs) == (("security.capability", capability),)
    layers.assert_travels(layer, base)


def test_c30_user_attributes_are_preserved_and_count_as_changes(layers: Layers) -> None:
    values = [b"", b"\0\0", b"a=b\nc", bytes(range(256)), b"x" * 1000, b"17 user.b=2\n"]
    attributes = frozenset((f"user.a{n}", value) for n, value in enumerate(values))
    base = layers.built(IMAGE)
    layer = layers.new(base)
    with layers.view(layer) as root:
        for name, value in attributes:
            os.setxattr(root / "top", name, value)
            os.setxattr(root / "d", name, value)

    assert layers.shown(layer, base) == ["C /d", "C /top"]
    assert layers.tree(layer)[b"top"].xattrs == attributes
    layers.assert_travels(layer, base)


def test_c30_removed_attribute_is_absent(layers: Layers) -> None:
    marked = file(b"x", xattrs=frozenset({("user.a", b"1"), ("user.b", b"2")}))
    base = layers.built(Tree.of({"f": marked, "d": directory(xattrs=marked.xattrs)}))
    left = frozenset({("user.b", b"2")})
    new = Tree.of({"f": marked.but(xattrs=left), "d": directory(xattrs=left)})
    layer = layers.built(new, base)

    assert layers.shown(layer, base) == ["C /d", "C /f"]
    layers.assert_travels(layer, base)


@pytest.mark.parametrize("space", ["trusted.overlay.", "user.overlay."])
def test_c31_overlay_attributes_in_an_archive_are_ignored(layers: Layers, space: str) -> None:
    below = Tree.of({"d/secret": b"s", "e/kept": b"k", "f": b"lower data"})
    marks = frozenset({(space + "opaque", b"y"), (space + "redirect", b"/d")})
    meta = frozenset({(space + "metacopy", b""), (space + "redirect", b"/d/secret")})
    gone = frozenset({(space + "whiteout", b"y")})
    layer = layers.new(layers.built(below))

    layers.apply(
        layer,
        [
            entry_of("e", directory(xattrs=marks)),
            entry_of("e/new", file(b"n")),
            entry_of("f", file(b"", xattrs=meta)),
            entry_of("g", file(b"", xattrs=gone)),
        ],
    )

    tree = layers.tree(layer)
    assert set(tree) - {b""} == {b"d", b"d/secret", b"e", b"e/kept", b"e/new", b"f", b"g"}
    assert tree[b"f"].content == b""
    upper = layers.upper(layer)
    names = {n for p in (upper, *upper.rglob("*")) for n in os.listxattr(p, follow_symlinks=False)}
    assert not {n for n in names if n.startswith(space) and n.endswith(("redirect", "whiteout"))}


def test_c32_labels_belong_to_the_host(layers: Layers) -> None:
    label = frozenset({("security.selinux", b"system_u:object_r:etc_t:s0\0")})
    layer = layers.new(layers.built(IMAGE))

    layers.apply(layer, [entry_of("f", file(b"x", xattrs=label))])

    with layers.view(layer) as root:
        assert os.listxattr(root / "f") == []


def test_c33_access_control_lists_survive(layers: Layers) -> None:
    # struct posix_acl_xattr_header and entries: user::rw-, user:1000:rwx, group::r--, mask, other
    entries = [(1, 6, -1), (2, 7, 1000), (4, 4, -1), (16, 7, -1), (32, 4, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    base = layers.built(IMAGE)
    layer = layers.built(Tree({**IMAGE, b"f": file(b"x"), b"e": directory()}), base)
    with layers.view(layer) as root:
        os.setxattr(root / "f", "system.posix_acl_access", acl)
        os.setxattr(root / "e", "system.posix_acl_default", acl)
        os.setxattr(root / "d", "system.posix_acl_access", acl)

    assert layers.tree(layer)[b"f"].mode == 0o674, "the group's bits show the mask"
    layers.assert_travels(layer, base)


def test_c34_setuid_setgid_and_sticky_bits_survive_their_owner(layers: Layers) -> None:
    nodes: dict[str | bytes, Node | bytes | str] = {}
    for mode in (0o4755, 0o2755, 0o6711, 0o1644, 0o7777, 0):
        nodes[f"f{mode:o}"] = file(b"x", mode, uid=7, gid=8)
        nodes[f"d{mode:o}"] = directory(mode, uid=7, gid=8)

    _assert_travels(layers, Tree.of(nodes))


@pytest.mark.parametrize("time", [0, 1, -1, -(1 << 31), 1 << 31, 1 << 32, (1 << 33) + 1])
def test_c35_times_are_whole_seconds(layers: Layers, time: int) -> None:
    """Before 1970 and after 2106, rounded down like tv_sec; of directories as well."""
    base = layers.built(IMAGE)
    added = Tree.of({"f": file(b"x"), "e/f": file(), "s": symlink("f"), "p": fifo()})
    layer = layers.built(Tree({**IMAGE, **added}), base)
    with layers.view(layer) as root:
        for name in ("f", "e/f", "s", "p", "e"):
            nanoseconds = time * 1_000_000_000 + 999_999_999
            os.utime(root / name, ns=(0, nanoseconds), follow_symlinks=False)
    sibling = layers.new(base)

    layers.apply(sibling, layers.archive(layer, base))

    assert {entry.node.mtime for entry in layers.entries(layer, base) if entry.name != b"./"} == {
        time
    }
    with layers.view(sibling) as root:
        found = {(root / name).lstat().st_mtime_ns for name in ("f", "e/f", "s", "p", "e")}
    assert found == {time * 1_000_000_000}


def test_c36_reading_a_file_changes_nothing_in_its_archive(layers: Layers) -> None:
    base = layers.built(IMAGE)
    layer = layers.built(Tree({**IMAGE, b"f": file(b"x")}), base)
    before = layers.archive(layer, base)
    with layers.view(layer) as root:
        os.utime(root / "f", ns=(1, EPOCH * 1_000_000_000))  # the atime, and with it the ctime

    assert layers.archive(layer, base) == before
    assert b"atime" not in before
    assert b"ctime" not in before


@pytest.mark.parametrize("id", [65534, 2097151, 2097152, 2**31 - 1, 2**31, 2**32 - 2])
def test_c57_large_owners(layers: Layers, id: int) -> None:
    _assert_travels(layers, Tree.of({"f": file(b"x", uid=id, gid=id), "e": directory(uid=id)}))


@pytest.mark.parametrize("id", [2**32 - 1, 2**32, 2**40, -1])
def test_c57_owner_of_all_ones_is_refused(layers: Layers, id: int) -> None:
    """(uid_t) -1 keeps the owner in chown(2), which would be root."""
    for entry in (entry_of("f", file(b"x", uid=id)), entry_of("f", file(b"x", gid=id))):
        layers.refuses(BadArchive, "nobody can be", [entry])
