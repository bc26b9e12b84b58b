"""Errors of a driver are violations with an explanation; errors of the suite or host are not."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.drivers.resolve import resolve
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.environment import Environment, umount_below
from graphdriver_conformance.host.namespaces import leave
from graphdriver_conformance.host.own_work import ProgramMissing, SuiteError, own_work, run_program
from graphdriver_conformance.host.syscalls import mount
from graphdriver_conformance.results.model import Outcome
from graphdriver_conformance.session.classify import classify

pytest_plugins = ["pytester"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")

MINE = """
import io, os, shutil, tarfile
from pathlib import Path
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver

class RowsLost(Driver):
    def changes(self, id, parent=""):
        return [row for row in super().changes(id, parent) if row.path != b"/top"]

class NoLowerDir(Overlay2):
    def get_metadata(self, id):
        return {}

class DiffIsNoArchive(Driver):
    def diff(self, id, parent=""):
        super().diff(id, parent).close()
        return io.BytesIO(b"x" * 1024 + bytes(1024))

class LinksToNothing(Driver):
    def diff(self, id, parent=""):
        super().diff(id, parent).close()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("name")
            info.type, info.linkname = tarfile.LNKTYPE, "nowhere"
            archive.addfile(info)
        return io.BytesIO(buffer.getvalue())

class DotsRemoved(Driver):
    def __init__(self, home, *rest):
        super().__init__(home, *rest)
        self.mine = Path(home)

    def remove(self, id):
        if id == "..":
            shutil.rmtree(self.mine.parent, ignore_errors=True)
        else:
            super().remove(id)

class Joins(Driver):
    def __init__(self, home, *rest):
        super().__init__(home, *rest)
        self.mine = Path(home)

    def create(self, id, parent="", mount_label="", storage_opt=None):
        if "/" in id:
            os.makedirs(os.path.join(self.mine, id), exist_ok=True)
        else:
            super().create(id, parent, mount_label, storage_opt)
"""


def _row(pytester: pytest.Pytester, name: str, id: str, *more: str) -> dict[str, Any]:
    pytester.makepyfile(mine=MINE)
    pytester.runpytest_subprocess(
        f"--driver={name}", f"--requirement={id}", "--graphdriver-report=r.json",
        "--graphdriver-profile=quick", "-p", "no:xdist", "-p", "no:cacheprovider", *more,
    )  # fmt: skip
    rows = json.loads((pytester.path / "r.json").read_text())["requirements"]
    found: dict[str, Any] = next(row for row in rows if row["id"] == id)
    return found


def _said(row: dict[str, Any]) -> str:
    """Return the whole text of the result about a requirement."""
    return json.dumps(row, ensure_ascii=False)


@pytest.mark.parametrize(
    ("driver", "id", "words"),
    [
        ("RowsLost", "CHG-005", "changes has no b'/top'"),
        ("NoLowerDir", "MET-005", "has no LowerDir"),
        ("NoLowerDir", "MET-004", "missing"),
        ("DiffIsNoArchive", "DIF-003", "not an archive"),
        ("DiffIsNoArchive", "CHG-022", "not an archive"),
        ("LinksToNothing", "DIF-003", "a hard link to b'nowhere', which does not exist"),
    ],
)
def test_answer_that_lacks_something_is_a_violation(
    pytester: pytest.Pytester, driver: str, id: str, words: str
) -> None:
    row = _row(pytester, f"mine:{driver}", id)

    assert row["outcome"] == "violated", row
    assert words in _said(row)


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ("DotsRemoved", ["remove('..') removed", "escaped/file"]),
        ("Joins", ["create('../new') made new"]),
    ],
)
def test_call_that_left_the_home_is_named(
    pytester: pytest.Pytester, driver: str, words: list[str]
) -> None:
    row = _row(pytester, f"mine:{driver}", "LIF-013")

    assert row["outcome"] == "violated", row
    assert [one for one in words if one not in _said(row)] == [], row


def test_absolute_ids_stay_off_the_real_root(pytester: pytest.Pytester) -> None:
    before = set(os.listdir("/"))

    row = _row(pytester, "mine:Joins", "LIF-013")

    assert row["outcome"] == "violated", row
    assert set(os.listdir("/")) == before


@pytest.mark.parametrize("id", ["MNT-009", "MNT-023", "INI-013", "KRN-001", "KRN-011", "KRN-012"])
def test_missing_program_is_no_violation(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, id: str
) -> None:
    monkeypatch.setenv("PATH", str(pytester.path))

    row = _row(pytester, "overlay2", id)

    assert row["outcome"] in ("not-provable", "met"), row


def test_failure_of_the_suites_own_work_is_no_violation(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="could not make it"), own_work("make it"):
        (tmp_path / "no" / "such").mkdir()
    with pytest.raises(ProgramMissing, match="no-such-program"):
        run_program(["no-such-program"])
    with pytest.raises(SuiteError, match="false ended with 1"):
        run_program(["false"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    leave()
    mount("tmpfs", tmp_path, "tmpfs", 0, "size=3m")
    yield tmp_path
    umount_below(tmp_path.parent)


@needs_root
def test_full_disk_is_no_violation(small_disk: Path) -> None:
    home = small_disk / "0" / "home"
    home.parent.mkdir()
    environment = Environment("", "", "tmpfs", 0, frozenset())
    subject = Subject(resolve("vfs"), home, (), environment)
    requirement = catalogue()["LIF-001"]
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert classify(requirement, error, subject).outcome is Outcome.VIOLATED

    (small_disk / "filler").write_bytes(bytes(5 << 19))
    result = classify(requirement, error, subject)

    assert result.outcome is Outcome.ERROR
    assert "is full" in (result.actual or "")


def test_long_path_hides_no_reason() -> None:
    error = DriverError(f"lstat /home/{'p' * 5000}/file: file name too long", "shorten it")

    actual = classify(catalogue()["LIF-001"], error, None).actual or ""

    assert len(actual) < 600
    assert "lstat /home/ppp" in actual
    assert "/file: file name too long" in actual
