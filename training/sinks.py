"""Where the metrics of runs go while they come, besides their folders: TensorBoard, Weights & Biases, MLflow.

A sink is called with a run and all its rows after each epoch (``OnEpoch``) and finishes a run at its end. Each kind is
three short methods below :class:`Rows`, which knows what is written already; none of them changes what a run is.
"""

import csv
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from alignscape.errors import InputError
from training.run_folder import RunFolder

Handle = TypeVar("Handle")

_TAGS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
    "validation_loss": "loss/validation",
    "validation_accuracy": "accuracy/validation",
}
_PER_LAYER = ("angle_", "flat_angle_", "norm_ratio_", "gradient_cosine_")
_KINDS = {
    "tensorboard": "training.tensorboard:EventFiles",
    "wandb": "training.wandb:WandbRuns",
    "mlflow": "training.mlflow:MlflowRuns",
}


class MetricsSink(Protocol):
    """What takes the metrics of runs as they come."""

    def __call__(self, run: RunFolder, rows: Sequence[dict[str, float]]) -> None:
        """Take those ``rows`` of ``run``, which are all so far, that it has not yet."""
        ...

    def finish(self, run: RunFolder) -> None:
        """Take what it lacks of a complete run, and let go of it."""
        ...


@dataclass(frozen=True)
class SinkChoice:
    """A sink before it is made: workers in other processes make their own.

    Attributes:
        kind: ``tensorboard``, ``wandb`` or ``mlflow``.
        project: of Weights & Biases, or the experiment of MLflow.
        names: of the runs for people, by the names of their folders.
    """

    kind: str
    project: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    def make(self) -> MetricsSink:
        """Return the sink.

        Raises:
            InputError: its package is missing.
        """
        module, _, name = _KINDS[self.kind].partition(":")
        made: MetricsSink = getattr(importlib.import_module(module), name)(self)
        return made


class Rows(ABC, Generic[Handle]):
    """A sink that writes each row once, whenever the process before was killed; its kinds say how.

    Args:
        choice: what was asked for.

    Raises:
        InputError: the package is missing.
    """

    def __init__(self, choice: SinkChoice) -> None:
        self.choice = choice
        self._handles: dict[Path, Handle] = {}
        self._written: dict[Path, int] = {}

    @abstractmethod
    def open(self, run: RunFolder) -> tuple[Handle, int]:
        """Return where the metrics of ``run`` go, and how many of its rows are there for good."""

    @abstractmethod
    def write(self, handle: Handle, index: int, epoch: int, values: Mapping[str, float]) -> None:
        """Write row ``index``: ``values`` by tag, all finite."""

    @abstractmethod
    def close(self, handle: Handle) -> None:
        """Let go of a complete run."""

    @abstractmethod
    def has(self, run: RunFolder) -> bool:
        """Whether an earlier process has taken ``run``."""

    def flush(self, handle: Handle) -> None:
        """Have what was written leave this process."""

    def name(self, run: RunFolder) -> str:
        """Return what people call ``run``."""
        return self.choice.names.get(run.path.name, run.path.name)

    def __call__(self, run: RunFolder, rows: Sequence[dict[str, float]]) -> None:
        """Write those ``rows`` of metrics that are not written yet."""
        if run.path not in self._handles:
            self._handles[run.path], self._written[run.path] = self.open(run)
        handle = self._handles[run.path]
        for index, row in list(enumerate(rows))[self._written[run.path] :]:
            values = {tag: value for name, value in row.items() if (tag := tag_of(name)) and math.isfinite(value)}
            self.write(handle, index, int(row["epoch"]), values)
        self._written[run.path] = max(len(rows), self._written[run.path])
        self.flush(handle)

    def finish(self, run: RunFolder) -> None:
        """Close what is open of ``run``; one that was complete already is written if it is not there."""
        if run.path not in self._handles:
            if self.has(run):
                return
            with open(run.path / "metrics.csv", encoding="utf-8", newline="") as handle:
                rows = [{k: float(v) if v else math.nan for k, v in row.items()} for row in csv.DictReader(handle)]
            self(run, rows)
        self.close(self._handles.pop(run.path))


class Sinks:
    """Several sinks as one."""

    def __init__(self, choices: Iterable[SinkChoice]) -> None:
        self.sinks = [choice.make() for choice in choices]

    def __call__(self, run: RunFolder, rows: Sequence[dict[str, float]]) -> None:
        for sink in self.sinks:
            sink(run, rows)

    def finish(self, run: RunFolder) -> None:
        """Have each finish ``run``."""
        for sink in self.sinks:
            sink.finish(run)


def tag_of(name: str) -> str | None:
    """Return the tag of a column of ``metrics.csv``: ``loss/train``, ``angle/layers.1``; None for epoch and time."""
    per_layer = next((prefix for prefix in _PER_LAYER if name.startswith(prefix)), None)
    return _TAGS.get(name) if per_layer is None else f"{per_layer[:-1]}/{name.removeprefix(per_layer)}"


def needs(package: str, load: Callable[[], Any], extra: str | None = None) -> Any:
    """Return what ``load`` imports of ``package``.

    Raises:
        InputError: it is missing; the message says how to get it.
    """
    try:
        return load()
    except ImportError as error:
        raise InputError(f"--{package} needs the package {package}: pip install 'alignscape[{package}]'") from error
