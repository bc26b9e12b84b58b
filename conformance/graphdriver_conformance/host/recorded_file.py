"""A file whose writes and flushes are recorded: a FUSE server in a process of its own.

The writes of a loop device on it can be replayed up to any flush, as a power cut leaves a disk with
a cache. Unlike dm-log-writes it needs no kernel module.
"""

import errno
import os
import signal
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphdriver_conformance.host.processes import die_with_parent
from graphdriver_conformance.host.syscalls import MountFlag, mount, umount

__all__ = ["Flush", "RecordedFile", "Write"]

# include/uapi/linux/fuse.h
_REQUEST = struct.Struct("=IIQQIIIHH")  # fuse_in_header
_ANSWER = struct.Struct("=IiQ")  # fuse_out_header
_INIT = struct.Struct("=4I2H2I36x")  # fuse_init_out
_TRANSFER = struct.Struct("=2Q2IQ2I")  # fuse_read_in, fuse_write_in
_ATTRIBUTES = struct.Struct("=QII3Q3Q10I")  # fuse_attr_out
_OPENED = struct.Struct("=QII")  # fuse_open_out
_WRITTEN = struct.Struct("=II")  # fuse_write_out
_FORGET, _GETATTR, _OPEN, _READ, _WRITE, _RELEASE = 2, 3, 14, 15, 16, 18
_FSYNC, _FLUSH, _INIT_CALL, _INTERRUPT, _BATCH_FORGET = 20, 25, 26, 36, 42
_SILENT = (_FORGET, _INTERRUPT, _BATCH_FORGET)
_DIRECT_IO = 1
_MINOR = 31
_LARGEST = 1 << 17
_REGULAR = 0o100600
# Precedes each entry of the record; a flush has no data and this offset.
_ENTRY = struct.Struct("=QQ")
_IS_FLUSH = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Write:
    """Data that was written at an offset."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Flush:
    """All earlier writes are on the disk."""


class RecordedFile:
    """The file `image`, visible at `path` with its writes recorded. Raises OSError.

    `path` is created; a loop device can be attached to the descriptor `opened`.
    """

    def __init__(self, image: int, path: Path) -> None:
        self._path = path
        path.touch()
        self._record = os.memfd_create("record")
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            options = f"fd={device},rootmode={_REGULAR:o},user_id=0,group_id=0"
            mount("graphdriver", path, "fuse", MountFlag.NOSUID, options)
            self._process = _forked(lambda: _serve(device, image, self._record))
        finally:
            os.close(device)
        self.opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def position(self) -> int:
        """Return the current length of the record."""
        return os.fstat(self._record).st_size

    def entries(self, start: int, end: int) -> list[Write | Flush]:
        """Return the entries of the record between two positions."""
        found: list[Write | Flush] = []
        while start < end:
            offset, length = _ENTRY.unpack(os.pread(self._record, _ENTRY.size, start))
            start += _ENTRY.size
            if offset == _IS_FLUSH:
                found.append(Flush())
            else:
                found.append(Write(offset, os.pread(self._record, length, start)))
                start += length
        return found

    def close(self) -> None:
        """Unmount, and end the process."""
        os.close(self.opened)
        umount(self._path)
        os.kill(self._process, signal.SIGKILL)  # if another process has the file open
        os.waitpid(self._process, 0)
        os.close(self._record)
        self._path.unlink()


def _forked(work: Callable[[], None]) -> int:
    """Do `work` in a new process; return its id."""
    with warnings.catch_warnings():
        # Python 3.12 warns if other threads run: the child needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        try:
            die_with_parent()
            work()
        finally:
            os._exit(0)
    return process


def _serve(device: int, image: int, record: int) -> None:
    """Answer the kernel until the file is unmounted."""
    while True:
        try:
            request = os.read(device, 2 * _LARGEST)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the caller did not wait
                continue
            return
        _, verb, number, *_ = _REQUEST.unpack_from(request)
        if verb in _SILENT:
            continue
        body = request[_REQUEST.size :]
        try:
            failed, data = 0, _answer(verb, body, image, record)
        except OSError as error:
            failed, data = error.errno or errno.EIO, b""
        os.write(device, _ANSWER.pack(_ANSWER.size + len(data), -failed, number) + data)


def _answer(verb: int, body: bytes, image: int, record: int) -> bytes:
    if verb == _INIT_CALL:
        major, _, readahead, _ = struct.unpack_from("=4I", body)
        return _INIT.pack(major, _MINOR, readahead, 0, 8, 6, _LARGEST, 1)
    if verb == _GETATTR:
        size = os.fstat(image).st_size
        times = (0,) * 6
        rest = (_REGULAR, 1, 0, 0, 0, 4096, 0)
        return _ATTRIBUTES.pack(3600, 0, 0, 1, size, size >> 9, *times[:3], *times[3:], *rest)
    if verb == _OPEN:
        return _OPENED.pack(0, _DIRECT_IO, 0)
    if verb == _READ:
        _, offset, size, *_ = _TRANSFER.unpack_from(body)
        return os.pread(image, size, offset)
    if verb == _WRITE:
        _, offset, size, *_ = _TRANSFER.unpack_from(body)
        data = body[_TRANSFER.size : _TRANSFER.size + size]
        os.pwrite(image, data, offset)
        _append(record, _ENTRY.pack(offset, size) + data)
        return _WRITTEN.pack(size, 0)
    if verb == _FSYNC:
        _append(record, _ENTRY.pack(_IS_FLUSH, 0))
        return b""
    if verb in (_RELEASE, _FLUSH):
        return b""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _append(record: int, data: bytes) -> None:
    os.pwrite(record, data, os.fstat(record).st_size)
