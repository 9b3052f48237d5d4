"""Curvature while a run trains: when it is measured, and what of it is part of the run.

What measures is named in a string, so that training needs to know no analysis. Like snapshots, a monitor is part of a
run's config and so of its key, though the weights come out the same: a run that has ``curvature.csv`` is another one
in a store than one that has not.
"""

from typing import Any, Protocol

from torch import Tensor

from alignscape.imports import import_reference
from alignscape.pace import Pace
from training.config import TrainConfig
from training.optimiser import learning_rate

MONITORS = {"hessian": "reports.monitoring:HessianMonitor"}

Moments = dict[str, dict[str, Tensor]]


class Measuring(Protocol):
    """What measures one network."""

    def measure(self, step: int, lr: float, moments: Moments) -> dict[str, float]:
        """Return a row of ``curvature.csv``, without the epoch.

        Args:
            step: finished steps.
            lr: the learning rate.
            moments: state of the optimiser by parameter (``StackOptimiser.state``), on the CPU.
        """

    def state(self) -> dict[str, Any]:
        """Return what a resume point must hold, tensors and numbers."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to it."""


class Monitoring:
    """The monitor of one network of a stack; networks that train together share a pace, since they share the time."""

    def __init__(self, config: TrainConfig, network: Any, steps_per_epoch: int) -> None:
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.rows: list[dict[str, float]] = []
        self.pace = Pace(config.monitor_every, config.monitor_share)
        make = import_reference(MONITORS[config.monitor], flag="--monitor", ours_first=True)
        self.monitor: Measuring = make(network)

    def measure(self, step: int, moments: Moments) -> None:
        """Add a row for the network as it stands after ``step`` steps."""
        # The rate of the step that comes next, which an edge of stability is about; at the end, of the last one.
        next_step = min(step, max(self.config.epochs * self.steps_per_epoch - 1, 0))
        row = self.monitor.measure(step, learning_rate(self.config, next_step, self.steps_per_epoch), moments)
        self.rows.append({"step": step, "epoch": step / self.steps_per_epoch, **row})

    def state(self) -> dict[str, Any]:
        """Return this part of a resume point."""
        return {"rows": list(self.rows), "pace": self.pace.state(), "monitor": self.monitor.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a resume point."""
        self.rows = list(state["rows"])
        self.pace.restore(state["pace"])
        self.monitor.restore(state["monitor"])

    def summary(self) -> dict[str, float]:
        """Return what ``done.json`` says: measurements, and seconds and share of the time, of all networks of the
        stack."""
        return {"measurements": len(self.rows), "seconds": self.pace.spent, "share": self.pace.taken}
