"""Progress on the terminal: a line for each step of each machine."""

import sys
import threading
import time
from collections.abc import Collection

__all__ = ["Progress"]


class Progress:
    """Prints steps with the time since the start; lanes share one."""

    def __init__(self, names: list[str]) -> None:
        self._started = time.monotonic()
        self._left = list(names)
        self._lock = threading.Lock()
        self._width = max((len(name) for name in names), default=0)

    def say(self, name: str, text: str) -> None:
        """Print the current step of `name`."""
        with self._lock:
            minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
            print(f"{minutes:3}:{seconds:02}  {name:<{self._width}}  {text}", flush=True)

    def done(self, name: str, text: str) -> None:
        """Print that `name` has ended, and the number of remaining ones."""
        with self._lock:
            if name in self._left:
                self._left.remove(name)
            left = f"; left: {', '.join(self._left)}" if self._left else ""
        self.say(name, text + left)

    def remove(self, names: Collection[str]) -> None:
        """Count `names` as done, because another process has reported them."""
        with self._lock:
            self._left = [one for one in self._left if one not in names]

    def warn(self, text: str) -> None:
        """Print an error, on standard error."""
        with self._lock:
            sys.stdout.flush()
            print(text, file=sys.stderr, flush=True)
