"""Run candidates on the same work in rotated order, and store every time."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.machine import Watch

__all__ = ["Aim", "Candidate", "Comparison", "Ratio", "Row", "Verdict", "between"]


class Verdict(StrEnum):
    """The result of a row compared with an aim."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate: `run` is timed, `around` (creating and removing a layer) is not.

    A candidate that measures itself, in a separate process, returns its seconds from `run`.
    """

    name: str
    run: Callable[[], object]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, slots=True)
class Aim:
    """The limit for `who`: `ratio` times the time of `against`, or `milliseconds`."""

    who: str
    against: str = ""
    ratio: float = 0.0
    milliseconds: float = 0.0

    def __str__(self) -> str:
        """Return the aim in the form of the table."""
        if self.milliseconds:
            return f"under {self.milliseconds:g} ms"
        return f"{self.ratio:g}x {self.against}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, and the quartiles below and above it."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """Return the ratio with its quartiles."""
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Row:
    """The measured times of each candidate in seconds, one for each round."""

    title: str
    seconds: dict[str, tuple[float, ...]]
    aims: tuple[Aim, ...] = ()
    reason: str = ""
    """The reason for a row without measurements, otherwise empty."""

    def median(self, name: str) -> float | None:
        """Return the median of a candidate, None if it has no times."""
        times = self.seconds.get(name)
        return statistics.median(times) if times else None

    def ratio(self, name: str, against: str) -> Ratio | None:
        """Compare two candidates, round by round; None if one of them has no times."""
        ours, theirs = self.seconds.get(name, ()), self.seconds.get(against, ())
        if not ours or not theirs:
            return None
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        if len(ratios) < 2:
            return Ratio(ratios[0], ratios[0], ratios[0])
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return Ratio(low, statistics.median(ratios), high)

    def verdict(self, aim: Aim) -> Verdict:
        """Return whether an aim is met."""
        if aim.milliseconds:
            median = self.median(aim.who)
            if median is None:
                return Verdict.NOT_MEASURED
            return Verdict.MET if median * 1000 < aim.milliseconds else Verdict.MISSED
        ratio = self.ratio(aim.who, aim.against)
        if ratio is None:
            return Verdict.NOT_MEASURED
        return Verdict.MET if ratio.median <= aim.ratio else Verdict.MISSED


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the table: the work, the candidates, and the aims. The reference is first."""

    title: str
    candidates: Sequence[Candidate]
    aims: tuple[Aim, ...] = ()

    def measure(self, rounds: int, watch: Watch) -> Row:
        """Measure one warm-up round, then `rounds`, each with another candidate first."""
        seconds: dict[str, list[float]] = {one.name: [] for one in self.candidates}
        for number in range(rounds + 1):
            first = number % len(self.candidates)
            watch.look()
            for one in (*self.candidates[first:], *self.candidates[:first]):
                with one.around():
                    start = time.perf_counter()
                    own = one.run()
                    took = time.perf_counter() - start
                if number:
                    seconds[one.name].append(own if isinstance(own, float) else took)
        return Row(self.title, {name: tuple(times) for name, times in seconds.items()}, self.aims)


@contextmanager
def between(before: Callable[[], object], after: Callable[[], object]) -> Iterator[None]:
    """Run the timed part between calls of `before` and `after`."""
    before()
    try:
        yield
    finally:
        after()
