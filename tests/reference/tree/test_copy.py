"""vfs copies a parent exactly, and shares blocks if the file system supports it."""

import os
import socket
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from graphdriver.tree.copy import copy_tree
from graphdriver.tree.removal import remove_file_tree
from graphdriver.tree.resolve import open_below
from graphdriver.vfs import Driver

root_only = pytest.mark.skipif(os.getuid() != 0, reason="needs root: devices, owners, loop mounts")


@root_only
def test_copy_is_the_same_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir/file").write_bytes(b"content")
    os.link(source / "dir/file", source / "hard")
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    os.mknod(source / "device", 0o20640, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(source / "socket"))
    os.setxattr(source / "dir/file", "user.note", b"\0kept")
    os.chown(source / "dir/file", 1000, 100)
    (source / "dir/file").chmod(0o4755)
    os.utime(source / "dir", ns=(1, 1_500_000_000_000_000_001))

    copy_tree(source, tmp_path / "copy")

    def shown(directory: Path) -> list[str]:
        command = ["find", ".", "-printf", "%P %y %m %U:%G %T@ %l %n\\n"]
        done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
        return sorted(done.stdout.splitlines())

    assert shown(tmp_path / "copy") == shown(source)
    assert (tmp_path / "copy/dir/file").read_bytes() == b"content"
    assert os.getxattr(tmp_path / "copy/hard", "user.note") == b"\0kept"
    assert (tmp_path / "copy/hard").samefile(tmp_path / "copy/dir/file")
    assert (tmp_path / "copy/device").stat().st_rdev == os.makedev(1, 3)


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source/sparse").open("wb") as sparse:
        sparse.seek(1 << 40)
        sparse.write(b"end")

    copy_tree(tmp_path / "source", tmp_path / "copy")

    copied = (tmp_path / "copy/sparse").stat()
    assert copied.st_size == (1 << 40) + 3
    assert copied.st_blocks * 512 < 1 << 20


@root_only
def test_children_share_their_parents_blocks_on_btrfs(btrfs: Path) -> None:
    """100 copies of 32 MiB on a file system of 256 MiB."""
    driver = Driver(btrfs / "home")
    driver.create("base")
    (driver.get("base") / "big").write_bytes(os.urandom(32 << 20))

    for number in range(100):
        driver.create(f"child-{number}", "base")

    free = os.statvfs(btrfs)
    assert free.f_bavail * free.f_frsize > 64 << 20


def test_links_deeper_than_path_max_are_links_in_the_copy(tmp_path: Path) -> None:
    """They were linked by a path from the root: ENAMETOOLONG beyond 4096 bytes."""
    part = b"d" * 200
    (tmp_path / "source").mkdir()
    directory = os.open(tmp_path / "source", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(30):
        os.mkdir(part, dir_fd=directory)
        inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = inner
    for name in (b"file", b"fifo"):
        os.mknod(
            name, 0o600 | (stat.S_IFIFO if name == b"fifo" else stat.S_IFREG), dir_fd=directory
        )
        os.link(name, name + b"2", src_dir_fd=directory, dst_dir_fd=directory)
    os.close(directory)

    copy_tree(tmp_path / "source", tmp_path / "copy")

    root = os.open(tmp_path / "copy", os.O_RDONLY | os.O_DIRECTORY)
    directory = open_below(root, b"/".join([part] * 30))
    inodes = [os.stat(name, dir_fd=directory).st_ino for name in sorted(os.listdir(directory))]
    for descriptor in (root, directory):
        os.close(descriptor)
    for name in (b"source", b"copy"):
        parent = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        remove_file_tree(parent, name)
        os.close(parent)
    assert inodes[1] == inodes[0]
    assert inodes[3] == inodes[2]
    assert inodes[0] != inodes[2]


@root_only
def test_copy_does_not_inherit_a_default_acl(tmp_path: Path) -> None:
    entries = [(1, 7, -1), (2, 6, 7), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    (tmp_path / "source/d").mkdir(parents=True)
    (tmp_path / "source/d/f").touch(0o640)
    os.setxattr(tmp_path, "system.posix_acl_default", acl)

    copy_tree(tmp_path / "source", tmp_path / "copy")

    names = ("", "d", "d/f")
    assert [os.listxattr(tmp_path / "copy" / name) for name in names] == [[], [], []]
    assert (tmp_path / "source/d/f").stat().st_mode == (tmp_path / "copy/d/f").stat().st_mode


def test_copy_that_fails_closes_what_it_has_opened(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")

    with pytest.raises(FileNotFoundError):
        copy_tree(tmp_path / "missing", tmp_path / "copy")

    assert before == os.listdir("/proc/self/fd")
