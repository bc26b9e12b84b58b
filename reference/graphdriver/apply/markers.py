"""The whiteouts and opaque markers of one archive, kept until its last member has been read.

A marker hides lower files at its literal path, at any position in the archive. It follows symlinks
of lower layers that the archive does not change, and no symlinks of its own archive (rulings 14 to
16, 31).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Hidden", "Markers"]


@dataclass(frozen=True, slots=True)
class Hidden:
    """The hidden paths: `whiteouts`, and all lower entries of the directories `opaque`."""

    whiteouts: set[bytes] = field(default_factory=set)
    opaque: set[bytes] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether they hide any path."""
        return bool(self.whiteouts or self.opaque)

    def covers(self, path: bytes) -> bool:
        """Return whether `path`, which is not the root, is hidden, or is below a hidden path."""
        if path in self.whiteouts:
            return True
        while path:
            path = path.rpartition(b"/")[0]
            if path in self.opaque or (path and path in self.whiteouts):
                return True
        return False


class Markers:
    """Collects markers in archive order; `hidden` resolves them."""

    def __init__(self) -> None:
        self.written = Hidden()
        """Paths as in the archive."""

    def whiteout(self, directory: bytes, name: bytes) -> None:
        """Record that `name` in `directory` is hidden."""
        self.written.whiteouts.add(directory + b"/" + name if directory else name)

    def opaque(self, directory: bytes) -> None:
        """Record that all lower entries of `directory` are hidden."""
        self.written.opaque.add(directory)

    def hidden(self, locate: Callable[[bytes], tuple[bytes | None, list[bytes]]]) -> Hidden:
        """Return the hidden paths, resolved.

        `locate` returns the real path of a directory, None if it does not exist or a symlink of the
        archive is in the path, and the symlinks that it followed. Markers through a symlink that
        other markers hide have no effect: for the lower layers it no longer exists.
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
