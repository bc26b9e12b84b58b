"""The mount table of this process, parsed once for the whole suite (proc_pid_mountinfo(5)).

Rows end with a newline and fields with a blank only: a mount point may contain any other byte,
including a carriage return or the UTF-8 of U+2028, at which `splitlines()` and `split()` of Python
also split.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mount", "mounts_at", "mounts_below", "parse", "read"]

# Blank, tab, newline and backslash; newer kernels also escape '#'.
_PLAIN = re.compile(rb"[^ \t\n\\#]*")
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One row. Paths are unescaped, and decoded as Python decodes file names.

    `options` and `super_options` keep the kernel's escapes, so that a comma separates options.
    """

    id: int
    parent: int
    device: str
    root: str
    point: str
    options: str
    type: str
    source: str
    super_options: str

    def __str__(self) -> str:
        """Return the text for a report: mount point, type, source and options."""
        return f"{self.point} {self.type} {self.source} {self.super_options}"


def parse(table: bytes) -> list[Mount]:
    """Return the rows of a mount table, in its order."""
    rows = map(_parsed, table.split(b"\n"))
    return [row for row in rows if row]


def read() -> list[Mount]:
    """Return the mounts of this process's namespace, in the order in which they were made."""
    return parse(Path("/proc/self/mountinfo").read_bytes())


def mounts_below(directory: Path | str) -> list[Mount]:
    """Return the mounts below `directory`, without one at the directory itself."""
    inside = f"{os.fspath(directory).rstrip('/')}/"
    return [row for row in _at(inside) if row.point.startswith(inside) and row.point != inside]


def mounts_at(point: Path | str) -> list[Mount]:
    """Return the mounts at `point`, the topmost last; os.path.ismount misses bind mounts."""
    requested = os.path.realpath(point)
    return [row for row in _at(requested) if row.point == requested]


def _at(beginning: str) -> list[Mount]:
    """Return the mounts whose point begins so, and maybe others: few rows are worth parsing."""
    plain = _PLAIN.match(os.fsencode(beginning))
    sought = b" " + (plain[0] if plain else b"")
    table = Path("/proc/self/mountinfo").read_bytes()
    return parse(b"\n".join(line for line in table.split(b"\n") if sought in line))


def _parsed(line: bytes) -> Mount | None:
    """Return a row; None if it is malformed, as some file systems print an option unescaped."""
    left, _, right = line.partition(b" - ")
    fields, kind = left.split(b" "), right.split(b" ", 2)
    if len(fields) < 6 or len(kind) < 3 or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    return Mount(
        int(fields[0]),
        int(fields[1]),
        os.fsdecode(fields[2]),
        _path(fields[3]),
        _path(fields[4]),
        os.fsdecode(fields[5]),
        os.fsdecode(kind[0]),
        _path(kind[1]),
        os.fsdecode(kind[2]),
    )


def _path(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), field))
