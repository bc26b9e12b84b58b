"""Reads of the table of running verbs by another process."""

import os
import signal
import time

from graphdriver_conformance.fixture.watch import Watch

_READS = 20_000


def test_times_are_read_whole_while_they_are_written() -> None:
    """Half-written times looked like calls of hours ago, and the run like one that hangs."""
    watch = Watch()
    watch.start_program()
    started = time.monotonic_ns() - 10**9
    writer = os.fork()
    if not writer:
        while True:
            with watch.running("get('layer')"):
                pass
    try:
        early = [
            since
            for _ in range(_READS)
            for since in (watch.last_event, *(call.since for call in watch.calls()))
            if since < started
        ]
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)

    assert early == []
