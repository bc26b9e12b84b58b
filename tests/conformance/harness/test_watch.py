"""What another process reads of the table of verbs that run."""

import os
import signal
import time

from graphdriver_conformance.fixture.watch import Watch

_READS = 20_000


def test_times_are_read_whole_while_they_are_written() -> None:
    """A reader took half-written times for calls of hours ago, and the run for one that hung."""
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
