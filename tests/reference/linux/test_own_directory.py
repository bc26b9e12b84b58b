"""Work in a thread with a directory of its own, when a signal comes meanwhile."""

import os
import signal
import threading
from pathlib import Path

import pytest

from graphdriver.linux.mounts import with_own_directory


class Interrupted(Exception):
    """What the handler of the signal raises."""


def test_signal_waits_for_the_end_of_the_work(tmp_path: Path) -> None:
    """The caller closes the directory: a file opened next would have its number."""
    begun, ended = threading.Event(), threading.Event()
    handled = threading.Event()

    def interrupt(*_: object) -> None:
        handled.set()
        raise Interrupted

    def work() -> None:
        begun.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert handled.wait(60)
        ended.set()

    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            with_own_directory(directory, work)
        assert ended.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(directory)
