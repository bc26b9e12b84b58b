"""A program that creates a driver, uses it, cleans up, and exits normally.

python -m graphdriver_conformance.suite.support.exiting SPEC HOME [OPTION ...]

Prints the threads that Python waits for after `cleanup`, one a line.
"""

import sys
import threading
from pathlib import Path

from graphdriver_conformance.drivers.resolve import resolve

__all__ = ["main"]


def main(spec: str, home: str, *options: str) -> None:
    """Call each verb that a daemon calls between its start and its end."""
    driver = resolve(spec).factory(Path(home), options, (), ())
    driver.create_read_write("base")
    (Path(driver.get("base")) / "file").write_bytes(b"x")
    driver.put("base")
    driver.create_read_write("layer", "base")
    (Path(driver.get("layer")) / "new").write_bytes(b"x")
    driver.put("layer")
    with driver.diff("layer", "base") as archive:
        driver.create("sibling", "base")
        driver.apply_diff("sibling", "base", archive)
    driver.status()
    driver.cleanup()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            print(thread.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
