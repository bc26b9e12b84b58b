"""The map of a sparse member is read in time linear in its size.

The test measures no time: counting subclasses replace bytes and bytearray, and record the number of
bytes that each operation reads or copies.
"""

from collections.abc import Callable
from typing import Any, cast

import pytest

from graphdriver.archive import sparse
from graphdriver.archive.source import Source
from graphdriver.tree.data import Segment

BLOCK = 512
_OPERATIONS = (
    "__add__",
    "__getitem__",
    "count",
    "endswith",
    "find",
    "index",
    "partition",
    "rpartition",
    "split",
    "splitlines",
    "strip",
)


class Work:
    """The number of bytes that operations have processed."""

    def __init__(self) -> None:
        self.bytes = 0


def _counting(base: type[bytes | bytearray], work: Work) -> Any:
    """Return a subclass of bytes or bytearray whose operations add their lengths to `work`."""

    def counted(name: str) -> Callable[..., Any]:
        def operation(self: Any, *arguments: Any) -> Any:
            found = getattr(base, name)(self, *arguments)
            # A slice costs the bytes that it copies, all other operations may read the whole
            # object.
            work.bytes += len(found) if isinstance(found, base) else len(self)
            return made(found) if type(found) is base else found

        return operation

    def added_to(self: Any, other: Any) -> Any:
        work.bytes += len(self) + len(other)
        return made(other + base(self))

    operations: dict[str, Any] = {name: counted(name) for name in _OPERATIONS}
    made: Any = type(f"Counting{base.__name__}", (base,), operations | {"__radd__": added_to})
    return made


class _Blocks:
    """A source that returns counting blocks."""

    def __init__(self, text: bytes, work: Work) -> None:
        self._text = text
        self._bytes = _counting(bytes, work)
        self._position = 0

    def exactly(self, count: int) -> bytes:
        self._position += count
        return cast(bytes, self._bytes(self._text[self._position - count : self._position]))


def _segments(count: int) -> list[Segment]:
    return [Segment(10 * number, 5) for number in range(count)]


def _read(segments: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Segment], int]:
    """Read a map; return its segments, and the bytes processed for each byte of it."""
    work, text = Work(), sparse.map_block(_segments(segments))
    with monkeypatch.context() as patch:
        for base in (bytes, bytearray):
            patch.setattr(sparse, base.__name__, _counting(base, work), raising=False)
        found, length = sparse.from_pax(
            {b"GNU.sparse.major": b"1"}, cast(Source, _Blocks(text, work)), len(text)
        )
    assert len(text) == length
    return found, work.bytes // len(text)


def test_map_is_read_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found, small = _read(500, monkeypatch)
    assert _segments(500) == found
    found, large = _read(50_000, monkeypatch)
    assert _segments(50_000) == found

    assert 0 < large <= 2 * small, "a map a hundred times as long takes more for each byte of it"


def _in_square_time(source: Source, stored: int) -> tuple[list[Segment], int]:
    """Read a map like the first release: the whole buffer is searched after each block."""
    text = b""
    while text.count(b"\n") < 1 or text.count(b"\n") < 1 + 2 * int(text.split(b"\n")[0]):
        text += source.exactly(BLOCK)
    numbers = list(map(int, bytes(text).rstrip(b"\0").split(b"\n")[1:-1]))
    return [Segment(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)], len(text)


def test_measurement_detects_quadratic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_map_before_data", _in_square_time)
    _, small = _read(500, monkeypatch)
    _, large = _read(5_000, monkeypatch)

    assert large > 5 * small
