"""DIF-063: a diff stream that another thread closes."""

import threading

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.tree import Tree, directory, file
from graphdriver_conformance.suite.support.effort import scaled
from graphdriver_conformance.suite.support.resources import resources
from graphdriver_conformance.suite.support.threads import at_once

_READ = 1 << 12


@verifies("DIF-063")
def test_stream_is_closed_while_another_thread_reads(graphdriver: Subject) -> None:
    """A client has disconnected: one thread reads for it, another cancels and closes.

    The reader's call returns, or fails with an error or with the ValueError of a closed file. A
    close during the read may fail once.
    """
    base = graphdriver.build(Tree.of({"top": b"top"}))
    large = {f"d/{number}".encode(): file(b"x" * 300_000) for number in range(6)}
    layer = graphdriver.build(Tree({**Tree.of({"d": directory()}), **large}), base)
    parents = (base, "") if graphdriver.claims(Capability.FLATTENED_DIFF) else (base,)
    rounds = scaled(6)
    graphdriver.diff(layer, base).close()
    before = resources(graphdriver.process)
    for round in range(rounds):
        for parent in parents:
            _close_while_read(graphdriver, layer, parent, round)
            left = graphdriver.mounts()
            assert left == [], f"after the close of diff({layer!r}, {parent!r}) mounts are left"

    more = resources(graphdriver.process) - before
    found = [f"{count} of {what}" for what, count in sorted(more.items()) if count >= rounds]
    assert found == [], f"left after {rounds * len(parents)} streams"
    graphdriver.remove(layer)
    assert not graphdriver.exists(layer), "remove left the layer"


def _close_while_read(graphdriver: Subject, layer: str, parent: str, reads: int) -> None:
    stream = graphdriver.diff(layer, parent)
    begun = threading.Event()

    def read() -> None:
        count = 0
        try:
            while stream.read(_READ):
                count += 1
                if count > reads:
                    begun.set()
        except ValueError:
            pass  # of a file that is closed
        finally:
            begun.set()

    def close() -> None:
        begun.wait()
        try:
            stream.close()
        except (DriverError, OSError, ValueError) as error:
            graphdriver.note(f"the first close failed: {error}")

    at_once([read, close])
    stream.close()
