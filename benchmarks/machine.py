"""Whether the speed of the machine is even enough for valid measurements.

A fixed arithmetic task is timed before each round. On an idle machine it always takes the same
time, and the clock time equals the processor time.
"""

import statistics
import time
from dataclasses import dataclass

__all__ = ["Evenness", "Watch"]

# Above these limits, other load or a change of the clock rate affects the results.
_SPREAD, _WAIT = 1.15, 1.05
_WORK = 200_000


@dataclass(frozen=True, slots=True)
class Evenness:
    """`spread`: slowest tenth of the tasks over the median. `wait`: clock over processor time."""

    spread: float
    wait: float

    @property
    def is_even(self) -> bool:
        """Whether the times of the run are valid."""
        return self.spread <= _SPREAD and self.wait <= _WAIT

    def __str__(self) -> str:
        """Return the evenness as a sentence."""
        figures = f"the same work took {self.spread:.2f}x its median in the slowest tenth, "
        figures += f"and waited for the processor {100 * (self.wait - 1):.0f} % of its time"
        return f"{'even' if self.is_even else 'too uneven to count'}: {figures}"


class Watch:
    """Collects the times of the task."""

    def __init__(self) -> None:
        self._clock: list[float] = []
        self._processor: list[float] = []

    def look(self) -> None:
        """Run the task once."""
        clock, processor = time.perf_counter(), time.process_time()
        total = 0
        for number in range(_WORK):
            total += number
        self._processor.append(time.process_time() - processor)
        self._clock.append(time.perf_counter() - clock)

    def evenness(self) -> Evenness:
        """Return the evenness of the collected times."""
        if len(self._clock) < 2:
            return Evenness(1.0, 1.0)
        slowest = statistics.quantiles(self._clock, n=10, method="inclusive")[-1]
        spread = slowest / statistics.median(self._clock)
        return Evenness(spread, sum(self._clock) / sum(self._processor))
