"""The metrics of runs at MLflow: one run there for each of ours, its settings and name with it.

Where they go is that package's own affair: ``MLFLOW_TRACKING_URI``, a server or a folder.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignscape.errors import InputError
from alignscape.files import write_json
from training.run_folder import RunFolder
from training.sinks import Rows, SinkChoice, needs
from training.store.run_store import read_json

LONGEST_PARAMETER = 500  # characters that each server takes


@dataclass(frozen=True)
class MlflowRun:
    """A run there."""

    id: str


class MlflowRuns(Rows[MlflowRun]):
    """Logs rows to runs of MLflow. Which of them is a run's is noted in ``RUN/mlflow.json``: one that goes on after a
    kill goes on there too.

    Raises:
        InputError: the package ``mlflow`` is missing.
    """

    def __init__(self, choice: SinkChoice) -> None:
        super().__init__(choice)
        self._mlflow = needs("mlflow", _package)
        self._client: Any = None

    def open(self, run: RunFolder) -> tuple[MlflowRun, int]:
        """Begin a run there, or go on with it after the rows that it has.

        Raises:
            InputError: the place cannot be reached.
        """
        try:
            self._client = self._client or self._mlflow.MlflowClient()
            noted = read_json(run.path / "mlflow.json")
            if noted.get("uri") == self._mlflow.get_tracking_uri():
                return MlflowRun(noted["run"]), self._rows_of(noted["run"])
            return MlflowRun(self._begin(run)), 0
        except Exception as error:  # of a package that has many of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"--mlflow: {reason} (MLFLOW_TRACKING_URI says where runs go)") from error

    def _rows_of(self, identity: str) -> int:
        self._client.update_run(identity, status="RUNNING")
        return len(self._client.get_metric_history(identity, "loss/test"))

    def _begin(self, run: RunFolder) -> str:
        recorded = run.read_config()
        experiment = self._client.get_experiment_by_name(self._project)
        place = self._client.create_experiment(self._project) if experiment is None else experiment.experiment_id
        tags = {"alignscape.key": recorded["key"]}
        identity: str = self._client.create_run(place, run_name=self.name(run), tags=tags).info.run_id
        for name, value in recorded["config"].items():
            self._client.log_param(identity, name, str(value)[:LONGEST_PARAMETER])
        write_json(run.path / "mlflow.json", {"run": identity, "uri": self._mlflow.get_tracking_uri()})
        return identity

    @property
    def _project(self) -> str:
        return self.choice.project or "alignscape"

    def write(self, handle: MlflowRun, index: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log a row as one batch."""
        now = int(1000 * time.time())
        metric = self._mlflow.entities.Metric
        self._client.log_batch(handle.id, metrics=[metric(tag, value, now, epoch) for tag, value in values.items()])

    def close(self, handle: MlflowRun) -> None:
        """End the run there."""
        self._client.set_terminated(handle.id)

    def has(self, run: RunFolder) -> bool:
        """Whether a process has logged it from here."""
        return (run.path / "mlflow.json").is_file()


def _package() -> Any:
    import mlflow

    return mlflow
