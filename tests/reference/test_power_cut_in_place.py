"""A power cut during apply_diff to a held layer: data that was on the disk is kept."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from powercut import CUTS, start_again

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: a loop mount")

OLD = build_archive([entry_of(f"f{n}", file(b"old %d" % n)) for n in range(20)])
NEW = build_archive([entry_of(f"f{n}", file(b"new %d" % n * 1000)) for n in range(10)])

# In a separate process, whose end closes all files on the disk.
CUT_IN_PLACE = """
import io, os, sys
from pathlib import Path
from powercut import end_power
from graphdriver import overlay2, vfs
disk, flag, name, archive = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
class Cutting(io.BytesIO):
    def read(self, size=-1):
        data = super().read(size)
        if not data:
            end_power(disk, flag)
            os._exit(0)
        return data
driver = {"overlay2": overlay2, "vfs": vfs}[name].Driver(disk / "home")
driver.get("layer")
driver.apply_diff("layer", "", Cutting(open(archive, "rb").read()[:-1024]))
"""


@pytest.mark.parametrize("flag", CUTS)
@pytest.mark.parametrize("factory", [Overlay2, Vfs])
def test_content_on_the_disk_is_restored(
    disk: Path, flag: int, factory: type[Overlay2] | type[Vfs]
) -> None:
    """Recovery replaces the tree by a copy: without a sync of it, files would be empty."""
    driver = factory(disk / "home")
    name = str(driver)
    driver.create("layer")
    driver.apply_diff("layer", "", io.BytesIO(OLD))
    os.sync()
    del driver
    archive = disk.parent / "archive"
    archive.write_bytes(NEW)
    command = [sys.executable, "-c", CUT_IN_PLACE, str(disk), str(flag), name, str(archive)]
    tests = str(Path(__file__).parents[1])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": tests})
    start_again(disk)

    root = factory(disk / "home").get("layer")
    found = {path.name: path.read_bytes() for path in root.iterdir()}
    assert {f"f{n}": b"old %d" % n for n in range(20)} == found
