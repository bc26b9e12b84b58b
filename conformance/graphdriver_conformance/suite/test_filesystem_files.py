"""FSX-008 to FSX-013, FSX-015, FSX-017: operations on open files."""

import fcntl
import mmap
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.host.syscalls import fallocate, syncfs
from graphdriver_conformance.oracle.tree import Tree, file
from graphdriver_conformance.suite.support.differential import Call, plain_directory, result_of

_PUNCH_HOLE_KEEP_SIZE = 3
_PAGE = mmap.PAGESIZE
IMAGE = Tree.of({"f": b"lower" + b"x" * (3 * _PAGE), "d/f": b"lower"})


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _container(graphdriver: Subject) -> str:
    return graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)


def _make_nameless(root: Path) -> bytes:
    with (
        _opened(root / "d", os.O_TMPFILE | os.O_RDWR) as descriptor,
        _opened(root / "d", os.O_RDONLY | os.O_DIRECTORY) as directory,
    ):
        os.write(descriptor, b"nameless")
        # Only with a directory does Python call linkat(2), which follows symlinks; link(2) fails
        # with EXDEV.
        os.link(f"/proc/self/fd/{descriptor}", "named", dst_dir_fd=directory, follow_symlinks=True)
    return (root / "d/named").read_bytes()


def _allocate(root: Path) -> int:
    with _opened(root / "f", os.O_RDWR) as descriptor:
        fallocate(descriptor, 0, 0, 10 * _PAGE)
    return (root / "f").stat().st_size


def _punch(root: Path) -> bytes:
    with _opened(root / "f", os.O_RDWR) as descriptor:
        fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, _PAGE, _PAGE)
    return (root / "f").read_bytes()


@verifies("FSX-008")
def test_nameless_files_and_allocation(graphdriver: Subject) -> None:
    """Databases preallocate and punch holes; a view must do this or refuse it."""
    layer = _container(graphdriver)
    plain = plain_directory(graphdriver, IMAGE)
    calls: dict[str, Call] = {
        "O_TMPFILE": _make_nameless,
        "fallocate": _allocate,
        "punch hole": _punch,
    }
    with graphdriver.view(layer) as root:
        for name, call in calls.items():
            expected, actual = result_of(call, plain), result_of(call, root)
            # One number, two names: errno.errorcode contains one of them.
            if actual in (
                "EOPNOTSUPP",
                "ENOTSUP",
                "EISDIR",
            ):  # before Linux 6.3 overlayfs did not support O_TMPFILE
                graphdriver.note(f"{name} is refused")
                continue
            assert actual == expected, f"{name}: differs from a plain directory"


@verifies("FSX-009")
def test_shared_mapping_is_written_through(graphdriver: Subject) -> None:
    """The data is read immediately, and after the last put while the mapping still exists."""
    layer = _container(graphdriver)
    root = graphdriver.get(layer)
    with _opened(root / "f", os.O_RDWR) as descriptor, mmap.mmap(descriptor, _PAGE) as mapped:
        mapped[:6] = b"mapped"
        assert (root / "f").read_bytes()[:6] == b"mapped", "a read does not show it"
        os.pwrite(descriptor, b"write", _PAGE - 5)
        assert mapped[-5:] == b"write", "the mapping does not show the written data"
        graphdriver.put(layer)
        mapped[6:11] = b" late"

    with graphdriver.view(layer) as root:
        assert (root / "f").read_bytes()[:11] == b"mapped late", "lost when the layer was put"


@verifies("FSX-010")
def test_locks_hold_over_copy_up(graphdriver: Subject) -> None:
    """apt and dpkg lock files of the image, which are opened in different modes."""
    layer = _container(graphdriver)
    with (
        graphdriver.view(layer) as root,
        _opened(root / "f", os.O_RDONLY) as reader,
        _opened(root / "d/f", os.O_RDONLY) as other_reader,
    ):
        fcntl.flock(reader, fcntl.LOCK_SH)
        fcntl.fcntl(other_reader, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK))
        with _opened(root / "f", os.O_RDWR) as writer:
            os.write(writer, b"x")
            assert not _gets(lambda: fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)), (
                "flock: after copy-up the file can be locked a second time"
            )
        with _opened(root / "d/f", os.O_RDWR) as writer:
            os.write(writer, b"x")
            assert not _gets(
                lambda: fcntl.fcntl(writer, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK))
            ), "fcntl: after copy-up the file can be locked a second time"


def _lock(kind: int) -> bytes:
    """Return a struct flock over the whole file (type, whence, start, length, pid)."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def _gets(lock: object) -> bool:
    try:
        lock()  # type: ignore[operator]
    except BlockingIOError:
        return False
    return True


@verifies("FSX-012")
def test_socket_in_a_view(graphdriver: Subject) -> None:
    """The socket is bound and reached in the view, also after another get."""
    layer = _container(graphdriver)
    with graphdriver.view(layer) as root, _opened(root, os.O_PATH) as descriptor:
        address = f"/proc/self/fd/{descriptor}/socket"  # a socket's path has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen()
            with graphdriver.view(layer) as again:
                assert (again / "socket").is_socket(), "a second get does not show the socket"
            for directory in (root, again):
                with _opened(directory, os.O_PATH) as way, socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(60)
                    client.connect(f"/proc/self/fd/{way}/socket")

    with graphdriver.view(layer) as root:
        assert (root / "socket").is_socket(), "the socket was removed"


@verifies("FSX-013")
def test_programs_run(graphdriver: Subject) -> None:
    """A script, a program, and a non-executable file behave as in a plain directory."""
    content = _program(graphdriver)
    tree = Tree.of(
        {
            "script": file(b"#!/bin/sh\necho script\n", 0o755),
            "program": file(content, 0o755),
            "closed": file(content, 0o644),
        }
    )
    plain = plain_directory(graphdriver, tree)
    layer = graphdriver.new_layer(graphdriver.build(tree), writable=True)
    with graphdriver.view(layer) as root:
        for when in ("from below", "copied up"):
            for name in sorted(one.decode() for one in tree if one):
                expected, actual = result_of(_run(name), plain), result_of(_run(name), root)
                assert actual == expected, f"{name}, {when}: differs from a plain directory"
                os.utime(root / name)


@verifies("FSX-026")
def test_setuid_programs_run_as_their_owner(graphdriver: Subject) -> None:
    """id(1), setuid to another user, from a lower layer and copied up."""
    tree = Tree.of({"setuid": file(_program(graphdriver), 0o4755, uid=1000, gid=1001)})
    plain = plain_directory(graphdriver, tree)
    if str(result_of(_run("setuid"), plain)).strip() != "1000":
        graphdriver.not_provable("setuid programs do not work beside the home, as with nosuid")
    layer = graphdriver.new_layer(graphdriver.build(tree), writable=True)
    with graphdriver.view(layer) as root:
        for when in ("from below", "copied up"):
            shown = str(result_of(_run("setuid"), root)).strip()
            assert shown == "1000", f"the setuid program, {when}: id -u prints {shown}"
            os.utime(root / "setuid")


def _program(graphdriver: Subject) -> bytes:
    """Return a program that prints its effective user."""
    program = shutil.which("id")
    if not program:
        graphdriver.not_provable("there is no id(1) to copy into a layer")
    with own_work(f"read {program}"):
        return Path(program).read_bytes()


def _run(name: str) -> Call:
    def call(root: Path) -> str:
        done = subprocess.run([root / name, "-u"], capture_output=True, text=True, check=False)
        return done.stdout or done.stderr

    return call


@verifies("FSX-015")
def test_statfs_reports_space(graphdriver: Subject) -> None:
    """Package managers check the free space and refuse to install if there is none."""
    with graphdriver.view(_container(graphdriver)) as root:
        found = os.statvfs(root)

    assert found.f_bsize > 0, "the block size is 0"
    assert found.f_blocks > 0, "the size of the file system is 0"
    assert 0 < found.f_bavail <= found.f_bfree <= found.f_blocks, (
        "free space is 0, or more than the total"
    )
    least = 255 if graphdriver.claims(Capability.LONG_NAMES) else 250
    assert found.f_namemax >= least, f"the maximum length of names is {least} bytes"


@verifies("FSX-017")
def test_written_data_can_be_synced(graphdriver: Subject) -> None:
    """Lower and new files and directories, for reading and writing, and the file system."""
    layer = _container(graphdriver)
    with graphdriver.view(layer) as root:
        (root / "new").write_bytes(b"new")
        (root / "made").mkdir()
        for name, flags in (
            ("f", os.O_RDONLY),
            ("d", os.O_RDONLY | os.O_DIRECTORY),
            ("new", os.O_RDWR),
            ("made", os.O_RDONLY | os.O_DIRECTORY),
            ("d/f", os.O_RDWR),
            (".", os.O_RDONLY | os.O_DIRECTORY),
        ):
            with _opened(root / name, flags) as descriptor:
                os.fsync(descriptor)
                os.fdatasync(descriptor)
        with _opened(root, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            syncfs(descriptor)
