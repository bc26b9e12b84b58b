"""A program that creates a driver in a user namespace and checks its layers.

python -m graphdriver_conformance.suite.support.rootless SPEC HOME

Prints errors; exits with 0 without errors, with REFUSED if Init refuses.
"""

import sys
from pathlib import Path

from graphdriver.contract import Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.drivers.resolve import resolve
from graphdriver_conformance.oracle.compare import differences
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import plant
from graphdriver_conformance.suite.support.container_edits import IMAGE, edit

__all__ = ["REFUSED", "main"]

REFUSED = 3


def main(spec: str, home: str) -> int:
    """Return the exit code."""
    try:
        driver = resolve(spec).factory(Path(home), (), (), ())
    except (DriverError, OSError) as error:
        print(error)
        return REFUSED
    plain = Path(home).with_name("rootless-plain")
    plain.mkdir()
    plant(IMAGE, plain)
    driver.create("base")
    plant(IMAGE, Path(driver.get("base")))
    driver.put("base")
    driver.create_read_write("work", "base")
    edit(Path(driver.get("work")))
    driver.put("work")
    edit(plain)
    lines = [line for id in ("work", _carried(driver)) for line in _wrong(driver, id, plain)]
    driver.cleanup()
    print("\n".join(lines))
    return 1 if lines else 0


def _carried(driver: Driver) -> str:
    """Copy the layer to a sibling."""
    driver.create("sibling", "base")
    with driver.diff("work", "base") as archive:
        driver.apply_diff("sibling", "base", archive)
    return "sibling"


def _wrong(driver: Driver, id: str, plain: Path) -> list[str]:
    shown = observe(Path(driver.get(id)))
    driver.put(id)
    return [f"{id}: {line}" for line in differences(observe(plain), shown)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
