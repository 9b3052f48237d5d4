"""When a training run saves and reports, and how long the rest of it takes."""

import time

RESUME_SHARE = 0.05  # of the time, at most, goes into writing resume points
DISK_BYTES_PER_SECOND = 2e8  # guess at what writing one costs, until it has been measured
REPORT_SECONDS = 0.5  # between two reports inside an epoch


class Clock:
    """When to write a resume point, when to report, and how long the rest takes."""

    def __init__(self, resume_bytes: int) -> None:
        self.save_cost = 0.003 + resume_bytes / DISK_BYTES_PER_SECOND  # seconds
        self.start(0)

    def start(self, step: int) -> None:
        """Begin to count, at ``step``."""
        self.began = self.last_save = self.last_report = self.last_lap = time.monotonic()
        self.first_step = step

    def lap(self) -> float:
        """Return the seconds since the last call, or since the start."""
        now = time.monotonic()
        seconds, self.last_lap = now - self.last_lap, now
        return seconds

    def saved(self, cost: float) -> None:
        """Note a resume point that took ``cost`` seconds to write; they are no part of the training time."""
        self.save_cost = cost
        self.last_save = self.last_lap = time.monotonic()

    def save_is_due(self) -> bool:
        """Whether the next resume point can be written within its share of the time."""
        return (time.monotonic() - self.last_save) * RESUME_SHARE > self.save_cost

    def report_is_due(self) -> bool:
        """Whether the display has been left alone for long."""
        return time.monotonic() - self.last_report > REPORT_SECONDS

    def seconds_left(self, step: int, total_steps: int) -> tuple[float, float]:
        """Return the seconds that the steps left, and that all of them, take at the pace since the start."""
        self.last_report = time.monotonic()
        pace = (self.last_report - self.began) / max(step - self.first_step, 1)
        return pace * (total_steps - step), pace * total_steps
