"""Damaged or invalid archives: BadArchive names the member, and the layer is unchanged."""

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from graphdriver.errors import BadArchive
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from reference.archive.headers import END, block, damaged, extended, long, pax

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: owners and devices")

numbers = itertools.count()
IMPOSSIBLE = {
    "symlink without a target": pax((b"linkpath", b"")) + block("name", type=b"2"),
    "symlink with a long target": long(b"t" * 5000, b"K") + block("name", type=b"2", linkname="t"),
    "hard link to a long name": long(b"t" * 300, b"K") + block("name", type=b"1", linkname="t"),
    "hard link to nothing": block("name", type=b"1"),
    "hard link to the root": block("name", type=b"1", linkname="./"),
    "hard link to itself": block("name", type=b"1", linkname="name"),
    "whiteout device": block("name", type=b"3"),
    "device no kernel has": block("name", type=b"3", devmajor=0o7777777),
    "long part of a name": long(b"name/" + b"n" * 256) + block("name"),
    "long directory of a whiteout": long(b"name" * 64 + b"n/.wh.x") + block("name"),
    "double sign": pax((b"uid", b"--5")) + block("name"),
    "record that is none": extended(b"5 abc") + block("name"),
    "contradictory map": pax((b"GNU.sparse.map", b"9,1,0,1")) + block("name"),
    "member below a file": block("name") + block("name/below"),
    "bare whiteout": block("name/.wh."),
    "outside": block("../name"),
}


@pytest.fixture(params=[Overlay2, Vfs], ids=["overlay2", "vfs"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Overlay2 | Vfs]:
    made = request.param(tmp_path / "home")
    yield made
    made.cleanup()


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_member_is_refused_by_its_name(driver: Overlay2 | Vfs, case: str) -> None:
    driver.create("n")

    with pytest.raises(BadArchive, match="name"):
        driver.apply_diff("n", "", io.BytesIO(block("before") + IMPOSSIBLE[case] + END))

    assert driver.changes("n", "") == []


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(damaged())
def test_damaged_archive_is_applied_or_refused(driver: Overlay2 | Vfs, archive: bytes) -> None:
    id = f"n{next(numbers)}"
    driver.create(id)
    refused = False
    try:
        driver.apply_diff(id, "", io.BytesIO(archive))
    except BadArchive:
        refused = True

    assert not refused or driver.changes(id, "") == []
    driver.remove(id)
