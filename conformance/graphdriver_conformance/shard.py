"""Shares of a set of names, to distribute work to several machines: `2/3` is the second of
three.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Shard"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index`, counted from 1, of `count`.

    Every name is in exactly one share; the order of the names does not matter.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `I/N`. Raises ValueError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"{text!r} is not I/N, as 2/3")
        shard = cls(int(index), int(count))
        if not 1 <= shard.index <= shard.count:
            raise ValueError(f"{text!r}: the shards are 1/{count} to {count}/{count}")
        return shard

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names of this share."""
        return frozenset(sorted(set(names))[self.index - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
