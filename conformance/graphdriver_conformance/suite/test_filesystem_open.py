"""FSX-001 to FSX-003: opening, copy-up and truncation, as in a plain directory.

The matrices are those of unionmount-testsuite: every call on a file of a lower layer, a symlink, a
directory, and a missing name.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.compare import Aspect
from graphdriver_conformance.oracle.tree import EPOCH, Node, directory, file, symlink
from graphdriver_conformance.suite.support.copying_up import copy_up_cases
from graphdriver_conformance.suite.support.differential import (
    Before,
    Call,
    Case,
    assert_calls_agree,
    some,
)

CONTENT = b"0123456789"
# Written files have the time of the write, which differs between directories.
_AS_WRITTEN = Aspect.MODE | Aspect.OWNER | Aspect.CONTENT | Aspect.XATTRS

_ACCESS = {"RDONLY": os.O_RDONLY, "WRONLY": os.O_WRONLY, "RDWR": os.O_RDWR}
_FLAGS = {
    "CREAT": os.O_CREAT,
    "EXCL": os.O_EXCL,
    "TRUNC": os.O_TRUNC,
    "APPEND": os.O_APPEND,
}
_TARGETS: Mapping[str, tuple[str, Before]] = {
    "a file": ("f", {"f": CONTENT}),
    "no file": ("f", {}),
    "a symlink": ("s", {"f": CONTENT, "s": "f"}),
    "a symlink to a symlink": ("t", {"f": CONTENT, "s": "f", "t": "s"}),
    "a broken symlink": ("s", {"s": "f"}),
    "a symlink to itself": ("s", {"s": "s"}),
    "a directory": ("d", {"d/f": CONTENT}),
    "a symlink to a directory": ("s", {"d/f": CONTENT, "s": "d"}),
    "a name below a file": ("f/x", {"f": CONTENT}),
    "a name in a missing directory": ("d/x", {}),
    "a name in a lower directory": ("d/x", {"d/f": CONTENT}),
}


def _opened(name: str, flags: int) -> Call:
    """Return a call that opens, writes two bytes and reads from the beginning."""

    def call(root: Path) -> object:
        descriptor = os.open(root / name, flags | os.O_CLOEXEC, 0o640)
        try:
            access = flags & os.O_ACCMODE
            wrote = os.write(descriptor, b"ab") if access != os.O_RDONLY else 0
            position = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, 0, os.SEEK_SET)
            content = os.read(descriptor, 100) if access != os.O_WRONLY else b""
            return wrote, position, content, os.fstat(descriptor).st_size
        except IsADirectoryError:  # of read: opening a directory is not an error
            return "a directory"
        finally:
            os.close(descriptor)

    return call


def _open_cases() -> Iterator[tuple[str, Case]]:
    subsets = [*itertools.product(*((("", 0), pair) for pair in _FLAGS.items()))]
    subsets.append((("NOFOLLOW", os.O_NOFOLLOW),))
    for chosen, (access, base), (what, (name, before)) in itertools.product(
        subsets, _ACCESS.items(), _TARGETS.items()
    ):
        flags = base | sum(value for _, value in chosen)
        if flags & os.O_EXCL and not flags & os.O_CREAT:
            continue  # undefined according to open(2)
        words = "|".join([access, *(word for word, _ in chosen if word)])
        yield f"open {what} {words}", Case(_opened(name, flags), before)


@verifies("FSX-001")
def test_open_with_all_flags(graphdriver: Subject) -> None:
    """Programs rely on the semantics of O_EXCL and O_TRUNC."""
    assert_calls_agree(graphdriver, some(dict(_open_cases())), _AS_WRITTEN)


def _lower_files() -> Mapping[str, Node]:
    return {
        "an empty file": file(b""),
        "a page less one": file(b"x" * 4095, 0o600, mtime=EPOCH + 1),
        "a page and one": file(b"x" * 4097, 0o755),
        "a setuid file": file(b"#!", 0o4755),
        "a megabyte": file(bytes(range(256)) * 4100, 0o640),
        "a directory": directory(0o2750, mtime=EPOCH + 2),
        "a sticky directory": directory(0o1777, mtime=EPOCH + 2),
        "a symlink": symlink("nowhere", mtime=EPOCH + 3),
    }


@verifies("FSX-002")
def test_copy_up_keeps_unchanged_attributes(graphdriver: Subject) -> None:
    """Each call that copies up, on each file type: other metadata is unchanged."""
    assert_calls_agree(graphdriver, copy_up_cases(_lower_files()), Aspect.DEFAULT)


@verifies("FSX-025")
def test_copy_up_keeps_the_owner(graphdriver: Subject) -> None:
    """A file, a setuid program and a directory of other users are tested."""
    owned = {
        "a file": file(b"x", 0o640, uid=1000, gid=1001),
        "a setuid file": file(b"#!", 0o6755, uid=1000, gid=1001),
        "a directory": directory(0o3770, uid=1000, gid=1001),
        "a symlink": symlink("nowhere", uid=1000, gid=1001),
    }
    assert_calls_agree(graphdriver, copy_up_cases(owned), Aspect.DEFAULT)


@verifies("FSX-003")
def test_truncate_up_and_down(graphdriver: Subject) -> None:
    """By path and by descriptor; extended files contain zeros, truncated ones stay short."""
    size = 10_000
    cases: dict[str, Case] = {}
    for new in (0, 1, 4095, 4096, 4097, size - 1, size, size + 1, 3 * size):
        before: Before = {"x": file(b"x" * size)}
        cases[f"truncate to {new}"] = Case(_on("x", _truncate(new)), before)
        cases[f"ftruncate to {new}"] = Case(_on("x", _ftruncate(new)), before)
    cases["truncate a directory"] = Case(_on("x", _truncate(0)), {"x": directory()})
    cases["truncate through a symlink"] = Case(_on("s", _truncate(3)), {"x": CONTENT, "s": "x"})
    cases["truncate nothing"] = Case(_on("x", _truncate(0)), {})
    cases["truncate below zero"] = Case(_on("x", _truncate(-1)), {"x": CONTENT})

    assert_calls_agree(graphdriver, cases, _AS_WRITTEN)


def _on(name: str, call: Call) -> Call:
    return lambda root: call(root / name)


def _truncate(size: int) -> Call:
    return lambda path: os.truncate(path, size)


def _ftruncate(size: int) -> Call:
    def call(path: Path) -> int:
        with path.open("r+b") as opened:
            os.ftruncate(opened.fileno(), size)
            return os.fstat(opened.fileno()).st_size

    return call
