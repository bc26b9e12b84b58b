"""The stream of an archive: errors are permanent, and keep no objects alive."""

import gc
import io
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from graphdriver.archive.entry import Entry, Kind
from graphdriver.archive.source import Source
from graphdriver.archive.stream import open_stream
from graphdriver.archive.writer import Record
from graphdriver.errors import DriverError


class _Strange(Exception):
    """An exception that cannot be constructed from its arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def _failing(error: BaseException) -> Iterator[Record]:
    yield Record(Entry(b"f", Kind.FILE))
    raise error


def _breaking() -> Iterator[Record]:
    """Fail like a disk; no variable refers to the error, which would keep it alive."""
    yield Record(Entry(b"f", Kind.FILE))
    raise OSError(5, "broken")


_ERRORS = [OSError(5, "broken", "name"), DriverError("broken", "mend it"), _Strange("brok", "en")]


@pytest.mark.parametrize("error", _ERRORS)
def test_error_is_raised_again_with_its_notes(error: Exception) -> None:
    error.add_note("a note")
    with open_stream(_failing(error)) as stream:
        for _ in range(3):
            with pytest.raises((type(error), OSError), match="broken") as caught:
                stream.read(10)
            assert caught.value.__notes__ == ["a note"]


def test_stream_that_has_failed_is_released_with_its_last_reference() -> None:
    """The stored traceback formed a cycle, which the collector freed in an arbitrary thread."""
    released = []
    stream = open_stream(_breaking(), lambda: released.append(True))
    dead = weakref.ref(stream)
    gc.disable()
    try:
        for _ in range(2):
            with suppress(OSError):
                stream.read(10)
        del stream
        assert dead() is None
    finally:
        gc.enable()
    assert released == [True]


def test_small_reads_do_not_copy_the_rest_of_the_buffer() -> None:
    """A sparse map of 40,000 bytes copied the buffer 40,000 times."""
    source = Source(io.BytesIO(bytes(range(256)) * 4096))
    written: list[bytes] = []

    def write(_: int, piece: bytes | memoryview) -> int:
        written.append(bytes(piece))
        return len(piece)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.write", write)
        source.take(1)
        tracemalloc.start()
        try:
            for _ in range(100):
                source.copy(3, -1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 1 << 18, "the rest of the buffer, 1 MiB, was copied"
    assert (bytes(range(256)) * 2)[1:301] == b"".join(written)
    assert source.offset == 301


def test_close_by_another_thread_waits_for_the_read() -> None:
    """close() of a running generator is a ValueError, and its resources stayed open."""
    making, proceed = threading.Event(), threading.Event()
    ended = []

    def records() -> Iterator[Record]:
        try:
            making.set()
            assert proceed.wait(60)
            yield Record(Entry(b"f", Kind.FILE))
        finally:
            ended.append("records")

    stream = open_stream(records(), lambda: ended.append("released"))
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(stream.read(512)))
    reading.start()
    assert making.wait(60)
    closing = threading.Thread(target=stream.close)
    closing.start()
    proceed.set()
    reading.join(60)
    closing.join(60)

    assert ended == ["records", "released"]
    assert stream.closed
    assert [len(one) for one in read] == [512]
