"""The mount table is parsed correctly, whatever bytes the mount points of the host contain."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver_conformance.host.environment import filesystem_of, umount_below
from graphdriver_conformance.host.mountinfo import mounts_at, mounts_below, parse
from graphdriver_conformance.host.namespaces import leave
from graphdriver_conformance.host.syscalls import mount
from graphdriver_conformance.repro import observe

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
# Blanks that split str.split(), line ends of splitlines(), and the escapes of the kernel.
NAMES = [
    "with blank",
    "tab\there",
    "new\nline",
    "back\\slash",
    "back\\040slash",
    "carriage\rreturn",
    "form\ffeed",
    "no-break\u00a0space",
    "line\u2028separator",
    "next\u0085line",
    "#hash",
    "a - b",
    "no \udcff text",
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    leave()  # so that mounts with unusual names are not visible to other processes of this machine
    yield tmp_path
    umount_below(tmp_path)


def test_row_has_its_fields() -> None:
    row = rb"36 35 98:0 /mnt1 /mnt\0402\134 rw,noatime master:1 - ext3 /dev/ro\011ot rw,errors=on"

    (found,) = parse(row + b"\n")

    assert (
        found.id, found.parent, found.device, found.root, found.point,
    ) == (36, 35, "98:0", "/mnt1", "/mnt 2\\")  # fmt: skip
    assert (
        found.options, found.type, found.source, found.super_options,
    ) == ("rw,noatime", "ext3", "/dev/ro\tot", "rw,errors=on")  # fmt: skip


def test_row_may_lack_a_source() -> None:
    (found,) = parse(b"1 2 0:3 / /x rw - tmpfs  rw\n")

    assert (found.type, found.source, found.super_options) == ("tmpfs", "", "rw")


def test_option_with_a_raw_newline_breaks_no_other_row() -> None:
    table = (
        b"1 2 0:3 / /x rw - odd none rw,label=a\nb c d e f g - h\n3 2 0:4 / /y rw - tmpfs t rw\n"
    )

    assert [row.point for row in parse(table)] == ["/x", "/y"]


@needs_root
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_mount_point_may_have_any_name(place: Path, name: str) -> None:
    point = place / name / "inner"
    point.mkdir(parents=True)
    mount("tmpfs", point, "tmpfs", 0)

    assert [row.point for row in mounts_below(place)] == [str(point)]
    assert [row.type for row in mounts_at(point)] == ["tmpfs"]
    assert filesystem_of(point) == "tmpfs"
    assert observe.mounts_below(place) == [str(point)]

    umount_below(place)

    assert mounts_below(place) == []


@needs_root
@pytest.mark.parametrize("name", ["with blank", "a\rb\u2028c\u00a0d", "new\nline"], ids=ascii)
def test_homes_name_is_no_violation(place: Path, name: str) -> None:
    temporary = place / name
    temporary.mkdir()
    requirements = ("MNT-003", "MNT-006", "MNT-011", "MNT-023", "MNT-025", "CLN-004")
    command = [sys.executable, "-m", "pytest", "--driver=overlay2", "-q", "-p", "no:xdist"]
    command += [f"--requirement={id}" for id in requirements] + ["-p", "no:cacheprovider"]

    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
