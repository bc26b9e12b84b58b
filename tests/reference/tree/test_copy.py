"""vfs copies a parent as it is, and shares blocks where the file system can."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from graphdriver.tree.copy import copy_tree
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

    assert shown(source) == shown(tmp_path / "copy")
    assert b"content" == (tmp_path / "copy/dir/file").read_bytes()
    assert b"\0kept" == os.getxattr(tmp_path / "copy/hard", "user.note")
    assert (tmp_path / "copy/hard").samefile(tmp_path / "copy/dir/file")
    assert os.makedev(1, 3) == (tmp_path / "copy/device").stat().st_rdev


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source/sparse").open("wb") as sparse:
        sparse.seek(1 << 40)
        sparse.write(b"end")

    copy_tree(tmp_path / "source", tmp_path / "copy")

    copied = (tmp_path / "copy/sparse").stat()
    assert (1 << 40) + 3 == copied.st_size
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
