"""The metrics of runs as TensorBoard event files: ``RUN/tensorboard/``, one scalar a metric and epoch."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignscape.errors import InputError
from training.run_folder import RunFolder

_TAGS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
    "validation_loss": "loss/validation",
    "validation_accuracy": "accuracy/validation",
}
_PER_LAYER = ("angle_", "flat_angle_", "norm_ratio_", "gradient_cosine_")


class EventFiles:
    """Writes the rows of each run that it is called with, as they come.

    The event files of an earlier process are replaced, so that no epoch is in them twice, whenever that was killed.

    Raises:
        InputError: the package ``tensorboard`` is missing.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "event files need the package tensorboard: pip install 'alignscape[tensorboard]'"
            ) from error
        self._open = SummaryWriter
        self._writers: dict[Path, Any] = {}
        self._written: dict[Path, int] = {}

    def __call__(self, run: RunFolder, rows: Sequence[dict[str, float]]) -> None:
        """Write those ``rows`` of metrics that are not written yet.

        Raises:
            OSError: the disk is full, say.
        """
        folder = run.path / "tensorboard"
        try:
            self._write(folder, rows)
        except OSError as error:  # of a thread of the writer's, which does not know the path
            raise OSError(error.errno, error.strerror, str(folder)) from error

    def _write(self, folder: Path, rows: Sequence[dict[str, float]]) -> None:
        if folder not in self._writers:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writers[folder], self._written[folder] = self._open(str(folder)), 0
        for row in rows[self._written[folder] :]:
            for name, value in row.items():
                if (tag := tag_of(name)) is not None and not math.isnan(value):
                    self._writers[folder].add_scalar(tag, value, global_step=int(row["epoch"]))
        self._written[folder] = len(rows)
        self._writers[folder].flush()

    def finish(self, run: RunFolder) -> None:
        """Close the files of ``run``; one that was complete already gets those that it lacks."""
        folder = run.path / "tensorboard"
        if folder not in self._writers:
            if any(folder.glob("events.out.tfevents.*")):
                return
            with open(run.path / "metrics.csv", encoding="utf-8", newline="") as handle:
                rows = [{k: float(v) if v else math.nan for k, v in row.items()} for row in csv.DictReader(handle)]
            self(run, rows)
        self._writers.pop(folder).close()


def tag_of(name: str) -> str | None:
    """Return the tag of a column of ``metrics.csv``: ``loss/train``, ``angle/layers.1``; None for epoch and time."""
    per_layer = next((prefix for prefix in _PER_LAYER if name.startswith(prefix)), None)
    return _TAGS.get(name) if per_layer is None else f"{per_layer[:-1]}/{name.removeprefix(per_layer)}"
