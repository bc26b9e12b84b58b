"""ARC: the metadata and content that diff and apply_diff preserve."""

import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
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
from graphdriver_conformance.suite.support.differential import plain_directory
from graphdriver_conformance.suite.support.names import assert_there
from graphdriver_conformance.suite.support.surroundings import umask

EMPTY = Tree.of({"below": b"below"})


def _assert_survives(graphdriver: Subject, tree: Tree, aspects: Aspect = Aspect.DEFAULT) -> None:
    """Build `tree` in a layer, copy it to a sibling by archive, and compare."""
    base = graphdriver.build(EMPTY)
    whole = Tree({**EMPTY, **tree})
    layer = graphdriver.build(whole, base)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(whole, graphdriver.tree(sibling), "after diff and apply_diff", aspects)


def _holds(graphdriver: Subject, make: Callable[[Path], None]) -> bool:
    """Return whether the file system of the home supports what `make` creates, without a driver."""
    directory = plain_directory(graphdriver, Tree())
    try:
        make(directory / "probe")
    except OSError as error:
        graphdriver.note(f"the file system itself refuses: {error.strerror}")
        return False
    return True


@verifies("ARC-001")
def test_contents_of_all_sizes(graphdriver: Subject) -> None:
    """Sizes around tar's blocks, pages, and the buffers of engines."""
    sizes = (0, 1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1)
    files = {f"f{n}": file(bytes(i % 251 for i in range(251)) * (n // 251 + 1)) for n in sizes}
    tree = Tree(
        {n.encode(): node.but(content=node.content[: int(n[1:])]) for n, node in files.items()}
    )

    _assert_survives(graphdriver, tree)


@verifies("ARC-002")
def test_modes(graphdriver: Subject) -> None:
    """Each bit alone and the usual combinations, on files and directories."""
    modes = [1 << bit for bit in range(12)] + [0, 0o777, 0o7777, 0o4755, 0o2755, 0o1777, 0o640]
    nodes: dict[str | bytes, Node | bytes | str] = {}
    for mode in modes:
        nodes[f"f{mode:o}"], nodes[f"d{mode:o}"] = file(b"x", mode), directory(mode)

    _assert_survives(graphdriver, Tree.of(nodes))


@verifies("ARC-003")
def test_owners(graphdriver: Subject) -> None:
    """Ids around the limit of tar's field, 2097151, and the largest possible ones."""
    ids = (0, 1, 65534, 2097151, 2097152, 2**31 - 1, 2**31, 2**32 - 2)
    files: dict[str | bytes, Node | bytes | str] = {
        f"f{n}": file(b"x", uid=n, gid=ids[-1 - i]) for i, n in enumerate(ids)
    }

    _assert_survives(graphdriver, Tree.of({**files, "link": symlink("f0", uid=7, gid=8)}))


@verifies("ARC-004")
def test_times(graphdriver: Subject) -> None:
    """Whole seconds; the file system may not support those after 2446."""
    times = (0, 1, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 33)

    _assert_survives(graphdriver, Tree.of({f"f{time}": file(b"x", mtime=time) for time in times}))


@verifies("ARC-006")
def test_symlinks(graphdriver: Subject) -> None:
    """Targets are arbitrary text."""
    targets = [
        b"nowhere",
        b"self",
        b"/etc/passwd",
        b"../" * 30,
        b"x" * 100,
        b"y" * 101,
        b"z" * 1000,
    ]

    _assert_survives(
        graphdriver,
        Tree.of({f"l{n}": symlink(target) for n, target in enumerate([*targets, b"\xff\n"])}),
    )


@verifies("ARC-007")
def test_hard_links(graphdriver: Subject) -> None:
    """Two names, three in several directories, of a symlink, of a fifo."""
    groups = {
        b"pair": (file(b"pair"), ["a1", "a2"]),
        b"three": (file(b"three"), ["b1", "d/b2", "d/e/b3"]),
        b"symlink": (symlink("a1"), ["s1", "s2"]),
        b"fifo": (fifo(), ["p1", "d/p2"]),
    }
    nodes: dict[str | bytes, Node | bytes | str] = {
        name: node.but(link=group) for group, (node, names) in groups.items() for name in names
    }

    _assert_survives(graphdriver, Tree.of(nodes).canonical(), Aspect.DEFAULT | Aspect.HARDLINKS)


@verifies("ARC-007")
def test_many_hard_links_of_one_file(graphdriver: Subject) -> None:
    """The 400 commands of busybox are one file, in one directory."""
    busybox = file(b"busybox", 0o755, link=b"bin/0")
    nodes: dict[str | bytes, Node | bytes | str] = {f"bin/{n}": busybox for n in range(400)}

    _assert_survives(graphdriver, Tree.of(nodes).canonical(), Aspect.DEFAULT | Aspect.HARDLINKS)


@verifies("ARC-008")
def test_new_name_for_a_lower_file(graphdriver: Subject) -> None:
    """The content is compared in the layer, in its archive, and after the next mount."""
    base = graphdriver.build(Tree.of({"old": b"content", "pair": b"pair"}))
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        os.link(root / "old", root / "new")
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    for id in (layer, sibling):
        tree = graphdriver.tree(id)
        assert_there([b"old", b"new"], tree, f"layer {id}")
        assert (tree[b"old"].content, tree[b"new"].content) == (b"content", b"content")


@verifies("ARC-009")
def test_special_files(graphdriver: Subject) -> None:
    """Devices with minimum and maximum numbers; a socket in a parent and in the layer."""
    # xfs stores 9 bits of a major number and 18 of a minor one.
    large = (4095, 1048575)
    if not _holds(graphdriver, lambda path: os.mknod(path, stat.S_IFCHR, os.makedev(*large))):
        large = (511, 262143)
    tree = Tree.of(
        {
            "pipe": fifo(0o622),
            "null": device(NodeKind.CHARACTER, 1, 3, 0o666),
            "large": device(NodeKind.CHARACTER, *large),
            "disk": device(NodeKind.BLOCK, 259, 7, 0o640),
        }
    )
    # The modes are not to depend on that of the daemon.
    with umask(0o077):
        _assert_survives(graphdriver, tree)
    base = graphdriver.build(tree)
    with graphdriver.view(base) as root:
        _bind(root)
    layer = graphdriver.new_layer(base, writable=True)
    graphdriver.diff_bytes(layer, base)
    archive = graphdriver.diff_bytes(base)
    copy = graphdriver.new_layer()
    graphdriver.apply_diff(copy, "", archive)
    assert_same_tree(tree, graphdriver.tree(copy), "only the socket is omitted")


def _bind(root: os.PathLike[str]) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            # The path of a view may be longer than the maximum for a socket.
            made.bind(f"/proc/self/fd/{descriptor}/socket")
    finally:
        os.close(descriptor)


@verifies("ARC-027")
def test_hard_links_of_devices(graphdriver: Subject) -> None:
    """As those of fifos, which ARC-007 asks for."""
    nodes = {
        "null": device(NodeKind.CHARACTER, 1, 3, 0o666, link=b"character"),
        "disk": device(NodeKind.BLOCK, 259, 7, 0o640, link=b"block"),
    }
    both: dict[str | bytes, Node | bytes | str] = {
        f"{top}{name}": node for top in ("", "d/") for name, node in nodes.items()
    }

    _assert_survives(graphdriver, Tree.of(both).canonical(), Aspect.DEFAULT | Aspect.HARDLINKS)


@verifies("ARC-009")
def test_child_of_a_parent_that_holds_a_socket(graphdriver: Subject) -> None:
    """With a database socket in the image, vfs drivers could not create a child.

    The socket itself may be missing.
    """
    tree = Tree.of({"run/db.sock": Node(NodeKind.SOCKET, 0o600), "run/db.pid": b"1", "zz": b"z"})
    parent = graphdriver.build(tree)

    child = graphdriver.new_layer(parent, writable=True)

    shown = graphdriver.tree(child).without(b"run/db.sock")
    assert_same_tree(tree.without(b"run/db.sock"), shown, "the child differs from its parent")


@verifies("ARC-010")
def test_names(graphdriver: Subject) -> None:
    """Every byte except / and NUL; dashes, blanks, quotes; one letter in two forms of Unicode."""
    single = [b"n" + bytes([byte]) for byte in range(1, 256) if byte != ord("/")]
    awkward = [b"-rf", b" lead", b"trail ", b"dot.", b"'\"", "\u00e9".encode(), "e\u0301".encode()]

    _assert_survives(graphdriver, Tree.of(dict.fromkeys([*single, *awkward], b"x")))


@verifies("ARC-011")
@pytest.mark.parametrize("length", [99, 100, 101, 154, 155, 156, 255, 256, 257, 1000, 3000])
def test_lengths_of_paths(graphdriver: Subject, length: int) -> None:
    """A file, a directory and a symlink target are tested."""
    part = b"p" * 50
    path = (part + b"/") * (length // 51)
    path = (path + b"f" * (length - len(path))).rstrip(b"/")
    tree = Tree.of({path: b"x", b"dir/" + path[:200].rstrip(b"/"): directory(0o700)})

    # xfs stores 1024 bytes of a symlink's target.
    holds = _holds(graphdriver, lambda link: os.symlink(path, link))
    _assert_survives(graphdriver, tree.with_(b"link", symlink(path if holds else path[:1023])))


@verifies("ARC-012")
def test_file_capabilities(graphdriver: Subject) -> None:
    """Version 2, on a file that root does not own, as `setcap cap_net_raw+ep` writes it."""
    # struct vfs_cap_data: magic with the effective bit, then permitted and inheritable, twice.
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    base = graphdriver.build(EMPTY)
    layer = graphdriver.build(Tree({**EMPTY, b"ping": file(b"x", 0o755, uid=7)}), base)
    with graphdriver.view(layer) as root:
        os.setxattr(root / "ping", "security.capability", capability)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    with graphdriver.view(sibling) as root:
        assert (root / "ping").is_file(), "the file is missing"
        assert "security.capability" in os.listxattr(root / "ping"), "the capability is lost"
        assert os.getxattr(root / "ping", "security.capability") == capability


@verifies("ARC-013")
def test_user_attributes(graphdriver: Subject) -> None:
    """xattrs of files and directories."""
    values = [b"", b"\0\0", b"a=b\nc", bytes(range(256)), b"x" * 1000]
    attributes = frozenset((f"user.a{n}", value) for n, value in enumerate(values))
    tree = Tree.of({"f": file(b"x", xattrs=attributes), "d": directory(xattrs=attributes)})

    _assert_survives(graphdriver, tree)


@verifies("ARC-015")
def test_huge_hole(graphdriver: Subject) -> None:
    """Three bytes at either end of a hole; reading stops at an archive of 64 MiB."""
    base = graphdriver.build(EMPTY)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root, (root / "sparse").open("wb") as opened:
        opened.write(b"one")
        opened.seek((1 << 40) - 3)
        opened.write(b"two")
    with graphdriver.diff(layer, base) as stream:
        archive = b""
        while chunk := stream.read(1 << 20):
            archive += chunk
            assert len(archive) <= 64 << 20, "the archive contains the hole as zeros"
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, archive)

    with graphdriver.view(sibling) as root, (root / "sparse").open("rb") as opened:
        found = os.fstat(opened.fileno())
        assert found.st_size == 1 << 40, "the size of the sparse file"
        assert found.st_blocks * 512 < 1 << 20, f"it takes {found.st_blocks * 512} bytes"
        assert opened.read(3) == b"one"
        opened.seek(-3, os.SEEK_END)
        assert opened.read() == b"two"


@verifies("ARC-005")
def test_nanoseconds(graphdriver: Subject) -> None:
    """A file and a directory are tested."""
    base = graphdriver.build(EMPTY)
    layer = graphdriver.build(Tree({**EMPTY, **Tree.of({"d/f": b"x"})}), base)
    wanted = EPOCH * 1_000_000_000 + 123_456_789
    with graphdriver.view(layer) as root:
        for name in ("d/f", "d"):
            os.utime(root / name, ns=(wanted, wanted))
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    with graphdriver.view(sibling) as root:
        assert [(root / name).stat().st_mtime_ns for name in ("d/f", "d")] == [wanted] * 2


@verifies("ARC-014")
def test_access_control_lists(graphdriver: Subject) -> None:
    """The ACL of a file, and the default ACL of a directory; the group bits show the mask."""
    # struct posix_acl_xattr: version, then tag, permissions and id of user::rw-, user:7:rwx,
    # group::r--, mask::rwx, other::r--
    entries = [(1, 6, -1), (2, 7, 7), (4, 4, -1), (16, 7, -1), (32, 4, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    base = graphdriver.build(EMPTY)
    layer = graphdriver.build(Tree({**EMPTY, b"f": file(b"x"), b"d": directory()}), base)
    with graphdriver.view(layer) as root:
        try:
            os.setxattr(root / "f", "system.posix_acl_access", acl)
            os.setxattr(root / "d", "system.posix_acl_default", acl)
        except OSError as error:
            graphdriver.not_provable(f"ACLs cannot be set here: {error.strerror}; be root, on ext4")
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    assert_same_tree(graphdriver.tree(layer), graphdriver.tree(sibling), "in the sibling")


@verifies("ARC-017")
def test_times_of_directories(graphdriver: Subject) -> None:
    """Full, empty and nested directories; writing into them changes their times."""
    old = Tree.of({"d": directory(mtime=EPOCH), "d/gone": b"", "d/kept": b""})
    stamps = {"d": EPOCH - 5, "d/sub": EPOCH - 6, "empty": EPOCH - 7, "d/sub/sub": EPOCH + 8}
    nodes: dict[str | bytes, Node | bytes | str] = {
        **{name: directory(mtime=mtime) for name, mtime in stamps.items()},
        "d/kept": b"changed",
        "d/sub/sub/f": b"",
    }
    base = graphdriver.build(old)
    layer = graphdriver.build(Tree.of(nodes), base)
    sibling = graphdriver.new_layer(base)

    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))

    found = graphdriver.tree(sibling)
    assert_there([name.encode() for name in stamps], found, "the sibling")
    for name, mtime in stamps.items():
        assert found[name.encode()].mtime == mtime, f"the mtime of the directory {name}"


@verifies("ARC-019")
def test_attributes_beside_each_other(graphdriver: Subject) -> None:
    """Twenty xattrs on one file, with common prefixes of their names."""
    attributes = frozenset((f"user.{'a' * n}", b"%d" % n) for n in range(1, 21))

    _assert_survives(
        graphdriver,
        Tree.of({"f": file(b"x", xattrs=attributes), "d": directory(xattrs=attributes)}),
    )


@verifies("ARC-016")
def test_empty_directories(graphdriver: Subject) -> None:
    """Nested, too."""
    _assert_survives(graphdriver, Tree.of({"a/b/c": directory(0o700), "d": directory()}))


@verifies("ARC-018")
def test_setuid_of_other_owners(graphdriver: Subject) -> None:
    """Each combination of the bits, with a user and group other than root."""
    nodes: dict[str | bytes, Node | bytes | str] = {
        f"f{mode:o}-{uid}": file(b"x", mode, uid=uid, gid=uid + 1)
        for mode in (0o4755, 0o2755, 0o6755, 0o6711)
        for uid in (0, 7, 1000)
    }

    _assert_survives(graphdriver, Tree.of(nodes))


@verifies("ARC-020")
def test_case_matters(graphdriver: Subject) -> None:
    """Three names that case-insensitive or normalizing file systems treat as one."""
    _assert_survives(graphdriver, Tree.of({"readme": b"1", "README": b"2", "ReadMe": b"3"}))
