"""An archive is consistent: while it is read, the layer cannot be changed in place."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from graphdriver.contract import Driver as DriverProtocol
from graphdriver.errors import LayerInUse
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")


def _archive() -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("new"))
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("factory", [Overlay2, Vfs])
def test_layer_whose_archive_is_read_is_not_changed_in_place(
    tmp_path: Path, factory: type[Overlay2] | type[Vfs]
) -> None:
    driver: DriverProtocol = factory(tmp_path / "home")
    driver.create("base")
    driver.create_read_write("layer", "base")

    with driver.diff("layer", "") as stream:
        stream.read(1)
        with pytest.raises(LayerInUse, match="layer layer is"):
            driver.apply_diff("layer", "base", _archive())
    driver.get("layer")
    driver.apply_diff("layer", "base", _archive())

    assert (driver.get("layer") / "new").exists()
    driver.cleanup()
