"""Progress for people: a bar on a terminal, plain lines in a log."""

import sys
import time

from tqdm import tqdm


class ProgressDisplay:
    """A ``progress(done, total)`` that shows on stderr; safe to call as often as one likes."""

    def __init__(self, description: str, unit: str = "step") -> None:
        self.description = description
        self.unit = unit
        self._bar: tqdm | None = None
        self._start = time.monotonic()
        self._tenth = 0

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            self._draw(done, total)
        elif (tenth := 10 * done // max(total, 1)) > self._tenth:
            self._tenth = tenth
            seconds = time.monotonic() - self._start
            print(f"{self.description}: {done}/{total} {self.unit}s, {seconds:.0f} s", file=sys.stderr, flush=True)

    def _draw(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = tqdm(desc=self.description, total=total, unit=self.unit, leave=False)
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
            self._bar = None


def show_progress(what: str, unit: str) -> ProgressDisplay:
    """Return where the progress of ``what`` goes, in ``unit``s."""
    return ProgressDisplay(what, unit)
