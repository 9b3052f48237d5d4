"""Progress for people: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from training.loop import Standing
    from training.store.standing import Running, SweepStanding


EVERY = 10.0  # seconds between lines in a log, where tenths take longer
LONGEST_NAME = 72  # characters of the name of a run in a log, where a line may be longer than on a terminal
LONGEST = 36  # characters of what is done, beside which a line of 80 has room for how far
EVERY_SWEEP = 30.0  # seconds between reports of a sweep
LISTED = 8  # of what runs at once
NOTHING: Mapping[str, str] = {}


def fitted(text: str, longest: int = LONGEST) -> str:
    """Return a text of paths and words without its beginning where it is too long: the end says most."""
    return text if len(text) <= longest else f"…{text[1 - longest :]}"


class ProgressDisplay:
    """A ``progress(done, total)`` that shows on stderr; safe to call as often as one likes.

    On a terminal it is a bar. In a log it is a line at every tenth, and one every ten seconds where these take longer:
    where the work stands and the time left, by what a method tells (products and residuals) or the share done.
    """

    def __init__(self, description: str, unit: str = "step") -> None:
        self.description = fitted(description)
        self.unit = unit
        self._bar: tqdm | None = None
        self._start = self._last = time.monotonic()
        self._tenth = 0

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            self._draw(done, total)
        elif (tenth := 10 * done // max(total, 1)) > self._tenth:
            self._tenth = tenth
            seconds = time.monotonic() - self._start
            self._line(f"{done}/{total} {self.unit}s, {seconds:.0f} s")

    def tell(self, standing: str, share: float) -> None:
        """Show in words where the work stands, of which about ``share`` is done."""
        now = time.monotonic()
        passed = now - self._start
        left = f", about {passed * (1 - share) / share:.0f} s left" if 0.02 < share < 1 else ""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{standing}{left}", refresh=False)
        elif not sys.stderr.isatty() and now - self._last >= EVERY:
            self._line(f"{standing}, {passed:.0f} s{left}")

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self.description}: {text}", file=sys.stderr, flush=True)

    def _draw(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = tqdm(desc=self.description, total=total, unit=self.unit, leave=False, dynamic_ncols=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
            self._bar = None


def show_progress(what: str, unit: str) -> ProgressDisplay:
    """Return where the progress of ``what`` goes, in ``unit``s."""
    return ProgressDisplay(what, unit)


class TrainingDisplay:
    """Shows on stderr where training stands: a bar on a terminal, a line an epoch in a log."""

    def __init__(self, names: Mapping[str, str] = NOTHING) -> None:
        self.names = names  # of runs, by their folders; those of a store are called by keys
        self._bar: tqdm | None = None

    def __call__(self, report: "Standing") -> None:
        if sys.stderr.isatty():
            self._draw(report)
        elif report.ends_epoch:
            print(
                f"{self._place(report, LONGEST_NAME)}  {self._metrics(report)}, {report.seconds_left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _place(self, report: "Standing", longest: int) -> str:
        others = f" and {report.networks - 1} more" if report.networks > 1 else ""
        place = f"[{report.finished + report.networks}/{report.jobs}] " if report.jobs > report.networks else ""
        name = self.names.get(report.name, report.name)
        return f"{fitted(f'{place}{name}{others}', longest)}: epoch {report.epoch}/{report.epochs}"

    def _metrics(self, report: "Standing") -> str:
        row = report.metrics
        return f"loss {row['train_loss']:.4g} train {row['train_accuracy']:.3f} test {row['test_accuracy']:.3f}"

    def _draw(self, report: "Standing") -> None:
        if self._bar is None:
            form = "{desc} {bar} {percentage:3.0f} %{postfix}"
            self._bar = tqdm(total=report.total_steps, leave=False, bar_format=form, dynamic_ncols=True)
        self._bar.n = report.step
        self._bar.set_description_str(self._place(report, 20), refresh=False)
        self._bar.set_postfix_str(
            f"{tqdm.format_interval(report.seconds_left)} left  {self._metrics(report)}", refresh=True
        )
        if report.step >= report.total_steps:
            self._bar.close()
            self._bar = None


class SweepDisplay:
    """Shows on stderr where a sweep stands: what is done, the time left, and what runs with its last metrics.

    On a terminal it is a bar. In a log it is a few lines now and then, and at the end.
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._last = time.monotonic()

    def __call__(self, standing: "SweepStanding") -> None:
        if sys.stderr.isatty():
            self._draw(standing)
        elif standing.done == standing.total or time.monotonic() - self._last >= EVERY_SWEEP:
            self._last = time.monotonic()
            more = len(standing.running) - LISTED
            lines = [f"  {running_text(one)}" for one in standing.running[:LISTED]]
            lines += [f"  and {more} more tasks"] if more > 0 else []
            print(sweep_text(standing), *lines, sep="\n", file=sys.stderr, flush=True)

    def _draw(self, standing: "SweepStanding") -> None:
        if self._bar is None:
            form = "{desc} {bar} {percentage:3.0f} %{postfix}"
            self._bar = tqdm(total=standing.total, leave=False, bar_format=form, dynamic_ncols=True)
        self._bar.n = standing.done
        self._bar.set_description_str(sweep_text(standing), refresh=False)
        self._bar.set_postfix_str("; ".join(map(running_text, standing.running[:1])), refresh=True)
        if standing.done >= standing.total:
            self._bar.close()
            self._bar = None


def sweep_text(standing: "SweepStanding") -> str:
    """Return e.g. ``[12/200] 1 failed, 2 at work, 00:41:10 left``."""
    parts = [f"{standing.failed} failed"] if standing.failed else []
    parts += [f"{len(standing.running)} at work"] if standing.running else []
    left = standing.seconds_left
    parts += [f"{tqdm.format_interval(left)} left"] if left is not None and standing.done < standing.total else []
    return f"[{standing.done}/{standing.total}] {', '.join(parts)}".rstrip()


def running_text(one: "Running") -> str:
    """Return e.g. ``digits-fa-bs64-seed0 and 7 more: epoch 3/30  loss 1.2345  train 0.4567  test 0.4512``."""
    others = f" and {one.networks - 1} more" if one.networks > 1 else ""
    words = {"train_loss": "loss", "train_accuracy": "train", "test_accuracy": "test"}
    metrics = [f"{word} {one.metrics[name]:.4f}" for name, word in words.items() if name in one.metrics]
    place = [f"epoch {one.epoch}/{one.epochs}"] if one.epoch is not None else [f"{one.seconds:.0f} s"]
    return f"{one.name}{others}: {'  '.join(place + metrics)}"
