"""Create archive records from files on disk."""

import os
import stat
from collections.abc import Iterator

from graphdriver.archive.entry import (
    DIRECTORY,
    FILE,
    HARDLINK,
    OPAQUE_MARKER,
    WHITEOUT_PREFIX,
    Entry,
    Kind,
)
from graphdriver.archive.ids import xattrs_to_container
from graphdriver.archive.writer import NotNative, Record
from graphdriver.errors import DriverError
from graphdriver.idmapping import IDMapping
from graphdriver.linux.files import at
from graphdriver.tree.descent import Descent
from graphdriver.tree.xattrs import NO_XATTRS, exported_xattrs, listxattr

__all__ = ["RecordMaker"]

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


class RecordMaker:
    """Creates the records of one archive; remembers hard links between them."""

    def __init__(self, ids: IDMapping, refuse: str = "") -> None:
        """Map owners with `ids`; a file with the xattr `refuse` raises NotNative."""
        self._ids = ids
        self._refuse = refuse
        self._mapped = None if ids.identity else ids
        self._links: dict[tuple[int, int], bytes] = {}

    def record(self, dir_fd: int, base: bytes, name: bytes, found: os.stat_result) -> Record | None:
        """Return the record of `base` in `dir_fd`, with the path `name` in the archive.

        None for a socket, which archives do not support. Raises UnmappedId, and DriverError for a
        file whose name would be read as a whiteout when the archive is applied (podman #3582).
        """
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        if base.startswith(WHITEOUT_PREFIX):
            raise DriverError(
                f"the file {name!r} would delete another when the archive is applied",
                "names that begin with '.wh.' are the archive's own; rename it",
            )
        if kind is not DIRECTORY and found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), name)
            if first is not name:
                return Record(self._entry(name, HARDLINK, found)._replace(linkname=first))
        if kind is FILE and found.st_size:
            return Record(self._entry(name, kind, found), dir_fd, base, self._refuse, self._mapped)
        entry = self._entry(name, kind, found)
        path = at(dir_fd, base)
        if names := listxattr(path):
            if self._refuse in names:
                raise NotNative(f"{name!r} is a metacopy, its data lies below")
            xattrs = exported_xattrs(path, names)
            if xattrs and self._mapped:
                xattrs = xattrs_to_container(xattrs, self._mapped)
            entry = entry._replace(xattrs=xattrs)
        if kind is Kind.SYMLINK:
            entry = entry._replace(linkname=os.readlink(base, dir_fd=dir_fd))
        elif kind is Kind.CHARACTER or kind is Kind.BLOCK:
            device = found.st_rdev
            entry = entry._replace(major=os.major(device), minor=os.minor(device))
        return Record(entry)

    def whole(self, dir_fd: int, name: bytes) -> Iterator[Record]:
        """Yield the records of all entries of the directory `name`, open as `dir_fd`, depth first.

        For directories that do not exist in lower layers: nothing has to be compared.
        """
        walk = Descent(dir_fd)
        stack = [(name + b"/" if name else b"", _listed(dir_fd))]
        try:
            while stack:
                prefix, names = stack[-1]
                if not names:
                    stack.pop()
                    if stack:
                        walk.leave()
                    continue
                base, here = names.pop(), walk.here.fd
                found = os.stat(base, dir_fd=here, follow_symlinks=False)
                mode = found.st_mode
                if stat.S_ISREG(mode):  # nearly all are
                    yield self._file(here, base, prefix + base, found)
                    continue
                if stat.S_ISCHR(mode) and not found.st_rdev:
                    continue  # a whiteout without a lower file
                record = self.record(here, base, prefix + base, found)
                if record is not None:
                    yield record
                if stat.S_ISDIR(mode):
                    inner = walk.enter(base)
                    stack.append((prefix + base + b"/", _listed(inner.fd)))
        finally:
            walk.close()

    def _file(self, dir_fd: int, base: bytes, name: bytes, found: os.stat_result) -> Record:
        """Return the record of a regular file; faster than `record` for files without xattrs."""
        if found.st_nlink > 1 or not found.st_size or base[:4] == WHITEOUT_PREFIX:
            record = self.record(dir_fd, base, name, found)
            assert record is not None, "files have records"
            return record
        entry = self._entry(name, FILE, found)
        return tuple.__new__(Record, (entry, dir_fd, base, self._refuse, self._mapped))

    def _entry(self, name: bytes, kind: Kind, found: os.stat_result) -> Entry:
        uid, gid = found.st_uid, found.st_gid
        if not self._ids.identity:
            uid, gid = self._ids.to_container(uid, gid)
        # The times in the tuple are tv_sec, which is rounded down also before 1970.
        mtime = int(found[stat.ST_MTIME])
        size = found.st_size if kind is FILE else 0
        mode = found.st_mode & 0o7777
        # Equivalent to Entry(...), in half the time: one is created for each file.
        fields = (name, kind, mode, uid, gid, mtime, size, b"", 0, 0, NO_XATTRS)
        return tuple.__new__(Entry, fields)

    @staticmethod
    def whiteout(directory: bytes, base: bytes) -> Record:
        """Return the record that deletes `base`; its owner and time have no meaning and are 0."""
        return Record(Entry(_join(directory, WHITEOUT_PREFIX + base), FILE, 0o600))

    @staticmethod
    def opaque(directory: bytes) -> Record:
        """Return the record that hides all lower entries of `directory`."""
        return Record(Entry(_join(directory, OPAQUE_MARKER), FILE, 0o600))


def _listed(dir_fd: int) -> list[bytes]:
    """Return the names in an open directory, the first one last."""
    # By its path in /proc: listing a descriptor would decode each name.
    return sorted(os.listdir(b"/proc/self/fd/%d" % dir_fd), reverse=True)


def _join(directory: bytes, base: bytes) -> bytes:
    return directory + b"/" + base if directory else base
