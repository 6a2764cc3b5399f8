"""What is being done, and how long it will take: one line a batch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Say = Callable[[str], None]


def say(line: str) -> None:
    """Print to standard error, so that standard output holds the result alone."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Time left, from the work that is done.

    Args:
        work: optimiser steps times faces, by method: what is ahead.
        tell: gets a line for each piece of work.

    """

    def __init__(self, work: dict[str, int], tell: Say = say) -> None:
        self._left = dict(work)
        self._done: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._tell = tell
        self._began = time.perf_counter()

    def start(self) -> None:
        """Call before a piece of work."""
        self._began = time.perf_counter()

    def done(self, method: str, work: int, what: str) -> None:
        """Call after it."""
        spent = time.perf_counter() - self._began
        self._left[method] -= work
        self._done[method] = self._done.get(method, 0) + work
        self._seconds[method] = self._seconds.get(method, 0.0) + spent
        left = self.seconds_left()
        ahead = f"about {duration(left)} left" if any(self._left.values()) else "done"
        self._tell(f"{what}: {duration(spent)}; {ahead}")

    def seconds_left(self) -> float:
        """Each method's work left at its own pace, or at the mean pace where it has none yet."""
        steps, seconds = sum(self._done.values()), sum(self._seconds.values())
        mean = seconds / steps if steps else 0.0
        total = 0.0
        for method, work in self._left.items():
            known = self._done.get(method, 0)
            total += work * (self._seconds[method] / known if known else mean)
        return total


def duration(seconds: float) -> str:
    """Seconds as a person says them: 3.2 s, 12 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
