"""Probes of properties in which drivers of one kind differ, for adapters."""

import io

from graphdriver.contract import Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file

__all__ = ["follows_lower_symlinks"]


def follows_lower_symlinks(driver: Driver) -> bool:
    """Return whether apply_diff resolves a path through a symlink of a lower layer.

    The driver's home is discarded afterwards.
    """
    base, layer = "probe-base", "probe-layer"
    archive = build_archive([entry_of("link/file", file(b"x"))])
    try:
        driver.create(base)
        root = driver.get(base)
        (root / "real").mkdir()
        (root / "link").symlink_to("real")
        driver.put(base)
        driver.create(layer, base)
        driver.apply_diff(layer, base, io.BytesIO(archive))
        root = driver.get(layer)
        follows = (root / "link").is_symlink() and (root / "real" / "file").is_file()
        driver.put(layer)
        return follows
    except (DriverError, OSError):
        return False
    finally:
        driver.cleanup()
