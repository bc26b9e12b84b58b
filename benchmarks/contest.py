"""Let contestants do the same work in turns and keep every time."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

__all__ = ["Contest", "Contestant", "Timing", "hold"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """Someone who does the work: `run` is timed, `around` (making and removing a layer) is not."""

    name: str
    run: Callable[[], object]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, slots=True)
class Timing:
    """All times of one contestant, in seconds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Contest:
    """One row of the table: the work, the aim, who takes part. The first contestant is ours.

    The aim is either `ratio` (ours over `against`, at most) or `milliseconds`.
    """

    title: str
    contestants: tuple[Contestant, ...]
    against: str = ""
    ratio: float | None = None
    milliseconds: float | None = None
    timings: list[Timing] = field(default_factory=list)

    def hold(self, runs: int) -> None:
        """Fill `timings`: one round to warm up, then `runs` rounds in turns."""
        seconds: dict[str, list[float]] = {one.name: [] for one in self.contestants}
        for round_number in range(runs + 1):
            for one in self.contestants:
                with one.around():
                    start = time.perf_counter()
                    one.run()
                    took = time.perf_counter() - start
                if round_number:
                    seconds[one.name].append(took)
        self.timings.extend(Timing(name, tuple(times)) for name, times in seconds.items())

    def ratio_to(self, name: str) -> float | None:
        """Return our median over that of `name`, None when it took no part."""
        other = next((timing for timing in self.timings if timing.name == name), None)
        return None if other is None else self.timings[0].median / other.median

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None when it could not be measured."""
        if self.milliseconds is not None:
            return self.timings[0].median * 1000 < self.milliseconds
        measured = self.ratio_to(self.against)
        return None if measured is None or self.ratio is None else measured <= self.ratio


@contextmanager
def hold(before: Callable[[], object], after: Callable[[], object]) -> Iterator[None]:
    """Do `before` and `after` around the timed part."""
    before()
    try:
        yield
    finally:
        after()
