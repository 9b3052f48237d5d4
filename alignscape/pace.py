"""When to measure beside a loop: every N steps, or as often as a share of the time allows."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Pace:
    """Says at which steps of a loop to measure, from what the measurements and the loop have taken so far.

    With ``every`` = N it is every N-th step, whatever that costs. Else the first measurement is made at once, since
    nothing is known of its cost, and each other as soon as it fits: when all of them, the next one included (which is
    taken to cost what the last one did), are at most ``share`` of the time since the start.

    Args:
        every: N; 0 goes by the share.
        share: of the time, above 0 and at most 1.
        clock: seconds, of which only differences count.
    """

    def __init__(self, every: int = 0, share: float = 0.05, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.every, self.share, self.clock = every, share, clock
        self.count, self.spent = 0, 0.0  # measurements and their seconds
        self._last = 0.0  # seconds of the last measurement
        self._before = 0.0  # seconds of the loop in earlier processes
        self._began: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the first step that was asked about, measurements included."""
        return self._before + (0.0 if self._began is None else self.clock() - self._began)

    @property
    def taken(self) -> float:
        """The share of the time that measurements have taken so far; NaN before there is any."""
        return self.spent / elapsed if (elapsed := self.elapsed) > 0 else float("nan")

    def due(self, step: int) -> bool:
        """Whether to measure after ``step``."""
        if self._began is None:
            self._began = self.clock()
        if self.every:
            return step % self.every == 0
        return self.count == 0 or self.spent + self._last <= self.share * (self.elapsed + self._last)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count the seconds of a measurement."""
        began = self.clock()
        yield
        self._last = self.clock() - began
        self.spent += self._last
        self.count += 1

    def state(self) -> dict[str, Any]:
        """Return what a resume point must hold; :meth:`restore` undoes it."""
        return {"count": self.count, "spent": self.spent, "last": self._last, "elapsed": self.elapsed}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`; the time between the two counts for nothing."""
        self.count, self.spent, self._last = state["count"], state["spent"], state["last"]
        self._before, self._began = state["elapsed"], None
