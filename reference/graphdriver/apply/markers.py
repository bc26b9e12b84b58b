"""The whiteouts and opaque markers of one archive, kept until its last member has been read.

A marker hides what the layers below hold at the path as it is written, wherever it stands in the
archive. It goes through symlinks of these layers as far as the archive leaves them alone, and
through none of its own (rulings 14 to 16, 31).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Hidden", "Markers"]


@dataclass(frozen=True, slots=True)
class Hidden:
    """What markers hide: the paths `whiteouts`, and all that is in the directories `opaque`."""

    whiteouts: set[bytes] = field(default_factory=set)
    opaque: set[bytes] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether they hide anything."""
        return bool(self.whiteouts or self.opaque)

    def covers(self, path: bytes) -> bool:
        """Say whether `path`, which is not the root, is hidden, or is below what is."""
        if path in self.whiteouts:
            return True
        while path:
            path = path.rpartition(b"/")[0]
            if path in self.opaque or (path and path in self.whiteouts):
                return True
        return False


class Markers:
    """Collects markers as they are written; `hidden` says what they come to."""

    def __init__(self) -> None:
        self.written = Hidden()
        """Paths as they stand in the archive."""

    def whiteout(self, directory: bytes, name: bytes) -> None:
        """Note that `name` in `directory` is hidden."""
        self.written.whiteouts.add(directory + b"/" + name if directory else name)

    def opaque(self, directory: bytes) -> None:
        """Note that all in `directory` is hidden."""
        self.written.opaque.add(directory)

    def hidden(self, locate: Callable[[bytes], tuple[bytes | None, list[bytes]]]) -> Hidden:
        """Return what is hidden, by real paths.

        `locate` returns the real path of a directory, None for nothing there or a symlink of the
        archive's on the way, and the symlinks it went through. What goes through a symlink that
        other markers hide does not count: to those layers it is not there any more.
        """
        found: list[tuple[bytes, bool, list[bytes]]] = []
        known: dict[bytes, tuple[bytes | None, list[bytes]]] = {}
        for directory in sorted(self.written.opaque):
            real, through = known.setdefault(directory, locate(directory))
            if real is not None:
                found.append((real, True, through))
        for path in sorted(self.written.whiteouts):
            directory, _, name = path.rpartition(b"/")
            if directory not in known:
                known[directory] = locate(directory)
            real, through = known[directory]
            if real is not None:
                found.append((real + b"/" + name if real else name, False, through))
        every = _hidden(found)
        return _hidden(
            [one for one in found if not any(every.covers(symlink) for symlink in one[2])]
        )


def _hidden(found: list[tuple[bytes, bool, list[bytes]]]) -> Hidden:
    return Hidden(
        {path for path, is_opaque, _ in found if not is_opaque},
        {path for path, is_opaque, _ in found if is_opaque},
    )
