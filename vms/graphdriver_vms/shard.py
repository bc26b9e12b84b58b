"""Shares of the kernels, to distribute one matrix to several hosts: `2/3` is the second of
three.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Shard", "shard"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index`, counted from 1, of `count`; every name is in exactly one."""

    index: int
    count: int

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names of this share; their order does not matter."""
        return frozenset(sorted(set(names))[self.index - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def shard(text: str) -> Shard:
    """Read `I/N`. Raises argparse.ArgumentTypeError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, as 2/3")
    return Shard(int(index), int(count))
