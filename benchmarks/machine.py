"""Is the machine even enough for times to count?

A fixed piece of arithmetic is timed before each round. On an idle machine it takes the same time
each time, and as much of the clock's as of the processor's.
"""

import statistics
import time
from dataclasses import dataclass

__all__ = ["Evenness", "Watch"]

# Beyond these, neighbours or a change of the clock rate are in the figures.
_SPREAD, _WAIT = 1.15, 1.05
_WORK = 200_000


@dataclass(frozen=True, slots=True)
class Evenness:
    """`spread`: the slowest tenth of the pieces over the median. `wait`: clock over processor."""

    spread: float
    wait: float

    @property
    def is_even(self) -> bool:
        """Whether the run's times count."""
        return self.spread <= _SPREAD and self.wait <= _WAIT

    def __str__(self) -> str:
        """Return it as a sentence."""
        figures = f"the same work took {self.spread:.2f}x its median in the slowest tenth, "
        figures += f"and waited for the processor {100 * (self.wait - 1):.0f} % of its time"
        return f"{'even' if self.is_even else 'too uneven to count'}: {figures}"


class Watch:
    """Collects how long the piece of work takes."""

    def __init__(self) -> None:
        self._clock: list[float] = []
        self._processor: list[float] = []

    def look(self) -> None:
        """Do the piece of work once."""
        clock, processor = time.perf_counter(), time.process_time()
        total = 0
        for number in range(_WORK):
            total += number
        self._processor.append(time.process_time() - processor)
        self._clock.append(time.perf_counter() - clock)

    def evenness(self) -> Evenness:
        """Return what was seen."""
        if len(self._clock) < 2:
            return Evenness(1.0, 1.0)
        slowest = statistics.quantiles(self._clock, n=10, method="inclusive")[-1]
        spread = slowest / statistics.median(self._clock)
        return Evenness(spread, sum(self._clock) / sum(self._processor))
