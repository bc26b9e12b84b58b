"""A FUSE file system that passes calls through to a directory, the base of mutants of views.

The kernel's protocol (include/uapi/linux/fuse.h), spoken by one thread of a process of its own. A
node is a descriptor opened with O_PATH, which can name a file of any kind. Nothing is cached.
"""

import errno
import os
import resource
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from graphdriver_conformance.host.syscalls import (
    Rename,
    fallocate,
    renameat2,
    set_filesystem_ids,
)
from graphdriver_mutants.fuse_wire import (
    ANSWER,
    DIRENT,
    ENTRY,
    INIT,
    REQUEST,
    TRANSFER,
    attributes,
    changes_in,
    name_in,
    opened,
    sized,
    statistics,
)

__all__ = ["Directory", "Passthrough"]

_MINOR = 36
_LARGEST_WRITE = 1 << 17
# Size of a part of a listing: less than the buffer of readdir(3), which then reads all of it.
_LISTING = 4096
# Flags that the kernel handles itself.
_NOT_PASSED = os.O_APPEND | os.O_DIRECT | os.O_NOFOLLOW

_Key = tuple[int, int, bytes]


@dataclass
class Directory:
    """A directory that someone lists: names with inode numbers, and where the listing stands."""

    node: int
    names: list[tuple[bytes, int]] = field(default_factory=list)
    position: int = 0


class Passthrough:
    """Serves the directory `root` over `device`, both descriptors, until it is unmounted."""

    flags = 0
    """Of the answer to FUSE_INIT."""

    def __init__(self, device: int, root: int) -> None:
        self._device = device
        self._nodes = {1: root}
        self._lookups = {1: 1}
        self._keys: dict[int, _Key] = {}
        self._numbers: dict[_Key, int] = {}
        self._last = 1
        self.directories: dict[int, Directory] = {}
        self._user = (0, 0)
        self._verbs: dict[int, Callable[[int, bytes], bytes | None]] = {
            1: self.lookup, 2: self.forget, 3: self.getattr, 4: self.setattr, 5: self.readlink,
            6: self.symlink, 8: self.mknod, 9: self.mkdir, 10: self.unlink, 11: self.rmdir,
            12: self.rename, 13: self.link, 14: self.open, 15: self.read, 16: self.write,
            17: self.statfs, 18: self.release, 20: self.fsync, 21: self.setxattr,
            22: self.getxattr, 23: self.listxattr, 24: self.removexattr, 25: self.flush,
            26: self.init, 27: self.opendir, 28: self.readdir, 29: self.releasedir,
            30: self.fsyncdir, 31: self.lock, 32: self.lock, 33: self.lock, 35: self.create,
            42: self.batch_forget, 43: self.fallocate, 45: self.rename2, 46: self.lseek,
            51: self.tmpfile,
        }  # fmt: skip

    def run(self) -> None:
        """Answer until the file system is unmounted."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        os.umask(0)
        while True:
            try:
                request = os.read(self._device, 2 * _LARGEST_WRITE)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # the caller was interrupted
                    continue
                return
            _, verb, number, node, uid, gid, *_ = REQUEST.unpack_from(request)
            self._user = (uid, gid)
            self._answer(number, self._verbs.get(verb), node, request[REQUEST.size :])

    def _answer(
        self, number: int, verb: Callable[[int, bytes], bytes | None] | None, node: int, body: bytes
    ) -> None:
        failed, data = errno.ENOSYS, b""
        if verb:
            try:
                answer = verb(node, body)
            except OSError as error:
                failed = error.errno or errno.EIO
            else:
                if answer is None:
                    return
                failed, data = 0, answer
        header = ANSWER.pack(ANSWER.size + len(data), -failed, number)
        with suppress(OSError):  # the caller may have exited
            os.writev(self._device, [header, data])

    # Nodes.

    def path(self, node: int, name: bytes = b"") -> bytes:
        """Return a path of a node, or of a name in it."""
        start = b"/proc/self/fd/%d" % self._nodes[node]
        return start + b"/" + name if name else start

    def known(self, found: os.stat_result, path: bytes) -> int:
        """Return the kernel's node of a file, 0 if it has none."""
        return self._numbers.get(_key(found, path), 0)

    def _entry(self, path: bytes, flags: int = os.O_NOFOLLOW) -> bytes:
        """Register a file and return its fuse_entry_out."""
        descriptor = os.open(path, os.O_PATH | flags)
        found = os.fstat(descriptor)
        node = self.known(found, path)
        if node:
            os.close(descriptor)
        else:
            self._last = node = self._last + 1
            self._nodes[node] = descriptor
            self._keys[node] = _key(found, path)
            self._numbers[self._keys[node]] = node
        self._lookups[node] = self._lookups.get(node, 0) + 1
        return ENTRY.pack(node, 0, 0, 0, 0, 0) + attributes(found)

    def _forget(self, node: int, count: int) -> None:
        self._lookups[node] -= count
        if node != 1 and self._lookups[node] <= 0:
            del self._lookups[node]
            os.close(self._nodes.pop(node))
            key = self._keys.pop(node)
            if self._numbers.get(key) == node:
                del self._numbers[key]

    @contextmanager
    def _as_user(self) -> Iterator[None]:
        """Create a node owned by the calling user."""
        if any(self._user):
            set_filesystem_ids(*self._user)
        try:
            yield
        finally:
            if any(self._user):
                set_filesystem_ids(0, 0)

    # Requests of the kernel, by their names in fuse.h.

    def init(self, node: int, body: bytes) -> bytes:
        """Negotiate the protocol version."""
        ahead = struct.unpack_from("<I", body, 8)[0]
        return INIT.pack(7, _MINOR, ahead, self.flags, 16, 12, _LARGEST_WRITE, 1)

    def lookup(self, node: int, body: bytes) -> bytes:
        """Find a name."""
        return self._entry(self.path(node, name_in(body)))

    def forget(self, node: int, body: bytes) -> None:
        """Close a node. FUSE expects no response."""
        self._forget(node, struct.unpack_from("<Q", body)[0])

    def batch_forget(self, node: int, body: bytes) -> None:
        """Close several nodes. FUSE expects no response."""
        for one, count in struct.iter_unpack("<2Q", body[8:]):
            self._forget(one, count)

    def getattr(self, node: int, body: bytes) -> bytes:
        """Stat."""
        return bytes(16) + attributes(os.fstat(self._nodes[node]))

    def setattr(self, node: int, body: bytes) -> bytes:
        """Chown, chmod, truncate, utime."""
        path, wanted = self.path(node), changes_in(body, os.fstat(self._nodes[node]))
        if wanted.owner:
            os.chown(path, *wanted.owner)
        if wanted.mode is not None:
            os.chmod(path, wanted.mode)
        if wanted.size is not None:
            os.truncate(path, wanted.size)
        if wanted.times:
            os.utime(path, ns=wanted.times)
        return self.getattr(node, b"")

    def readlink(self, node: int, body: bytes) -> bytes:
        """Return a symlink's target."""
        return os.readlink(b"", dir_fd=self._nodes[node])

    def symlink(self, node: int, body: bytes) -> bytes:
        """Make a symlink."""
        name, target, _ = body.split(b"\0", 2)
        with self._as_user():
            os.symlink(target, self.path(node, name))
        return self._entry(self.path(node, name))

    def mknod(self, node: int, body: bytes) -> bytes:
        """Make a file, a device or a pipe."""
        mode, device = struct.unpack_from("<2I", body)
        with self._as_user():
            os.mknod(self.path(node, name_in(body[16:])), mode, device)
        return self._entry(self.path(node, name_in(body[16:])))

    def mkdir(self, node: int, body: bytes) -> bytes:
        """Make a directory."""
        (mode,) = struct.unpack_from("<I", body)
        with self._as_user():
            os.mkdir(self.path(node, name_in(body[8:])), mode)
        return self._entry(self.path(node, name_in(body[8:])))

    def unlink(self, node: int, body: bytes) -> bytes:
        """Remove a name."""
        os.unlink(self.path(node, name_in(body)))
        return b""

    def rmdir(self, node: int, body: bytes) -> bytes:
        """Remove a directory."""
        os.rmdir(self.path(node, name_in(body)))
        return b""

    def rename(self, node: int, body: bytes, skipped: int = 8, flags: int = 0) -> bytes:
        """Rename."""
        (to,) = struct.unpack_from("<Q", body)
        old, new, _ = body[skipped:].split(b"\0", 2)
        renameat2(self.path(node, old), self.path(to, new), Rename(flags))
        return b""

    def rename2(self, node: int, body: bytes) -> bytes:
        """Rename, with flags."""
        return self.rename(node, body, 16, struct.unpack_from("<I", body, 8)[0])

    def link(self, node: int, body: bytes) -> bytes:
        """Create a hard link."""
        (old,) = struct.unpack_from("<Q", body)
        above, name = self._nodes[node], name_in(body[8:])
        os.link(self.path(old), name, dst_dir_fd=above, follow_symlinks=True)
        return self._entry(self.path(node, name))

    def open(self, node: int, body: bytes) -> bytes:
        """Open; the handle is the descriptor."""
        (flags,) = struct.unpack_from("<I", body)
        return opened(os.open(self.path(node), flags & ~_NOT_PASSED))

    def create(self, node: int, body: bytes) -> bytes:
        """Make a file and open it."""
        flags, mode = struct.unpack_from("<2I", body)
        path = self.path(node, name_in(body[16:]))
        with self._as_user():
            handle = os.open(path, flags & ~_NOT_PASSED | os.O_CREAT | os.O_NOFOLLOW, mode)
        return self._entry(path) + opened(handle)

    def tmpfile(self, node: int, body: bytes) -> bytes:
        """Make a file without a name and open it."""
        flags, mode = struct.unpack_from("<2I", body)
        with self._as_user():
            handle = os.open(self.path(node), flags & ~_NOT_PASSED | os.O_TMPFILE, mode)
        return self._entry(b"/proc/self/fd/%d" % handle, 0) + opened(handle)

    def read(self, node: int, body: bytes) -> bytes:
        """Read."""
        handle, offset, size, *_ = TRANSFER.unpack_from(body)
        return os.pread(handle, size, offset)

    def write(self, node: int, body: bytes) -> bytes:
        """Write."""
        handle, offset, size, *_ = TRANSFER.unpack_from(body)
        data = body[TRANSFER.size : TRANSFER.size + size]
        return struct.pack("<II", os.pwrite(handle, data, offset), 0)

    def lseek(self, node: int, body: bytes) -> bytes:
        """Find data and holes."""
        handle, offset, whence = struct.unpack_from("<2QI", body)
        return struct.pack("<Q", os.lseek(handle, offset, whence))

    def fallocate(self, node: int, body: bytes) -> bytes:
        """Allocate, or punch a hole."""
        handle, offset, length, mode = struct.unpack_from("<3QI", body)
        fallocate(handle, mode, offset, length)
        return b""

    def fsync(self, node: int, body: bytes) -> bytes:
        """Sync a file."""
        handle, only_data = struct.unpack_from("<QI", body)
        (os.fdatasync if only_data & 1 else os.fsync)(handle)
        return b""

    def fsyncdir(self, node: int, body: bytes) -> bytes:
        """Sync a directory."""
        descriptor = os.open(self.path(node), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return b""

    def flush(self, node: int, body: bytes) -> bytes:
        """Do nothing: no data is cached."""
        return b""

    def release(self, node: int, body: bytes) -> bytes:
        """Close."""
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def lock(self, node: int, body: bytes) -> bytes:
        """Fail: the kernel handles locks itself unless `flags` request them."""
        raise OSError(errno.ENOSYS, "locks are the kernel's")

    def statfs(self, node: int, body: bytes) -> bytes:
        """Return size and free space."""
        return statistics(os.fstatvfs(self._nodes[1]))

    def opendir(self, node: int, body: bytes) -> bytes:
        """Begin a listing."""
        self._last += 1
        self.directories[self._last] = Directory(node)
        return opened(self._last)

    def releasedir(self, node: int, body: bytes) -> bytes:
        """End a listing."""
        del self.directories[struct.unpack_from("<Q", body)[0]]
        return b""

    def readdir(self, node: int, body: bytes) -> bytes:
        """Return a part of the listing, from the offset of the kernel."""
        handle, offset, size, *_ = TRANSFER.unpack_from(body)
        directory = self.directories[handle]
        if not offset:
            with os.scandir(self.path(node)) as found:
                directory.names = [(b".", 1), (b"..", 1), *((e.name, e.inode()) for e in found)]
        data = b""
        directory.position = self.place(directory, offset)
        for name, inode in directory.names[directory.position :]:
            one = DIRENT.pack(inode, directory.position + 1, len(name), 0) + name
            one += bytes(-len(one) % 8)
            if len(data) + len(one) > min(size, _LISTING):
                break
            data += one
            directory.position += 1
        return data

    def place(self, directory: Directory, offset: int) -> int:
        """Return the index of the first name to list."""
        return offset

    def getxattr(self, node: int, body: bytes) -> bytes:
        """Return an attribute."""
        return sized(body, os.getxattr(self.path(node), name_in(body[8:])))

    def listxattr(self, node: int, body: bytes) -> bytes:
        """Return the names of the attributes."""
        names = os.listxattr(self.path(node))
        return sized(body, b"".join(os.fsencode(name) + b"\0" for name in names))

    def setxattr(self, node: int, body: bytes) -> bytes:
        """Set an attribute."""
        size, flags = struct.unpack_from("<2I", body)
        name, _, value = body[8:].partition(b"\0")
        os.setxattr(self.path(node), name, value[:size], flags)
        return b""

    def removexattr(self, node: int, body: bytes) -> bytes:
        """Remove an attribute."""
        os.removexattr(self.path(node), name_in(body))
        return b""


def _key(found: os.stat_result, path: bytes) -> _Key:
    """Return the identity of a file.

    Names of one file are several: where overlayfs copies one of them up, it parts with the others.
    """
    several = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
    return found.st_dev, found.st_ino, path if several else b""
