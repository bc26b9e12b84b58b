"""Data copied from the stream to a file, by the kernel if the stream is a file."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from graphdriver.archive.source import Source
from graphdriver.errors import BadArchive

# Larger than the buffer of the source and a chunk of the kernel, and not aligned.
SIZE = (40 << 20) + 511
DATA = os.urandom(1 << 20) * 41
BEFORE = b"h" * 513


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(b"skipped" + BEFORE + DATA[:SIZE] + b"after")
    return path


def _buffered(path: Path) -> BinaryIO:
    return path.open("rb")


def _raw(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


def _in_memory(path: Path) -> BinaryIO:
    return io.BytesIO(path.read_bytes())


def _copied(stream: BinaryIO, target: Path) -> None:
    """Copy the data after BEFORE, from a stream whose position is not its beginning."""
    stream.read(len(b"skipped"))
    source = Source(stream)
    assert source.take(len(BEFORE)) == BEFORE
    with target.open("wb") as file:
        source.copy(SIZE, file.fileno())
    assert len(BEFORE) + SIZE == source.offset
    assert source.take(100) == b"after"


@pytest.mark.parametrize("opened", [_buffered, _raw, _in_memory])
def test_copy_takes_what_is_wanted(
    archive: Path, tmp_path: Path, opened: Callable[[Path], BinaryIO]
) -> None:
    with opened(archive) as stream:
        _copied(stream, tmp_path / "target")

        assert archive.stat().st_size == stream.tell()
    assert DATA[:SIZE] == (tmp_path / "target").read_bytes()


@pytest.mark.parametrize("opened", [_buffered, _raw])
@pytest.mark.parametrize("after", [0, 1])
def test_copy_where_the_kernel_cannot(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: Callable[[Path], BinaryIO],
    after: int,
) -> None:
    """A file system without splice(2) fails at the first call; the rest is read and written."""
    sendfile, calls = os.sendfile, list[int]()

    def failing(target: int, source: int, offset: int, count: int) -> int:
        calls.append(count)
        if len(calls) > after:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return sendfile(target, source, offset, count)

    monkeypatch.setattr(os, "sendfile", failing)
    with opened(archive) as stream:
        _copied(stream, tmp_path / "target")

    assert after + 1 == len(calls)
    assert DATA[:SIZE] == (tmp_path / "target").read_bytes()


def test_disk_full_is_raised(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "sendfile", full)
    with archive.open("rb") as stream, pytest.raises(OSError) as caught:
        _copied(stream, tmp_path / "target")

    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("opened", [_buffered, _raw, _in_memory])
def test_file_that_ends_early_is_truncated(
    archive: Path, tmp_path: Path, opened: Callable[[Path], BinaryIO]
) -> None:
    os.truncate(archive, 7 + len(BEFORE) + SIZE - 100)

    with (
        opened(archive) as stream,
        pytest.raises(BadArchive, match=f"ends at byte {len(BEFORE) + SIZE - 100}, 100 bytes"),
    ):
        _copied(stream, tmp_path / "target")
