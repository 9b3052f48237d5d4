"""What sinks are given: every row once, under tags, whenever the process before was killed.

Weights & Biases and MLflow are stood in for by doubles that keep what their public functions were called with; where
the packages are installed, they are also used themselves, without a network.
"""

import builtins
import json
import math
import sys
import types
from pathlib import Path

import pytest

from reports.cli import main
from training.config import TrainConfig
from training.run_folder import RunFolder
from training.sinks import SinkChoice, Sinks

ROWS = [
    {"epoch": epoch, "step": 10 * epoch, "train_loss": loss, "test_loss": 2.0 - epoch, "angle_layers.1": 90.0 + epoch}
    for epoch, loss in ((-1, math.nan), (0, 2.5), (1, 2.25), (2, math.inf))
]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = tmp_path / "0123456789abcdef"
    folder.mkdir()
    config = TrainConfig(rule="fa", hidden=(8,))
    (folder / "config.json").write_text(json.dumps({"config": config.to_dict(), "data": {}, "key": config.key("data")}))
    made = RunFolder(folder)
    made.write_metrics(ROWS)
    return made


def logged(values):
    """What is to arrive of the rows: finite numbers under their tags."""
    names = {"train_loss": "loss/train", "test_loss": "loss/test", "angle_layers.1": "angle/layers.1"}
    return [{names[k]: v for k, v in row.items() if k in names and math.isfinite(v)} for row in values]


class Wandb(types.ModuleType):
    """Runs by id, as the service keeps them: ``init`` with an id that it knows goes on after the last step."""

    def __init__(self):
        super().__init__("wandb")
        self.runs = {}
        self.begun = []

    def init(self, **how):
        self.begun.append(how)
        kept = self.runs.setdefault(how["id"], [])
        finished = []
        handle = types.SimpleNamespace(step=len(kept), finished=finished)
        handle.define_metric = lambda name, step_metric: None
        handle.log = lambda values, step: kept.append((step, values))
        handle.finish = lambda: finished.append(True)
        self.handle = handle
        return handle


def test_wandb_gets_each_row_once_under_the_name_of_the_run(run, monkeypatch):
    double = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", double)
    choice = SinkChoice("wandb", "mine", {run.path.name: "digits-fa-bs64-seed0"})
    killed = Sinks([choice])
    for count in (1, 2):
        killed(run, ROWS[:count])
    after = Sinks([choice])  # another process goes on from the resume point, with all rows so far
    after(run, ROWS[:2])
    after(run, ROWS)
    after.finish(run)
    first = double.begun[0]
    assert (first["name"], first["project"]) == ("digits-fa-bs64-seed0", "mine")
    assert first["config"]["rule"] == "fa"
    assert first["dir"] == str(run.path)
    (rows,) = double.runs.values()
    assert [step for step, _ in rows] == [0, 1, 2, 3]  # those of the service do not go below 0
    assert [values.pop("epoch") for _, values in rows] == [-1, 0, 1, 2]
    assert [values for _, values in rows] == logged(ROWS)
    assert double.handle.finished


class MlflowClient:
    """Keeps what is logged, as a server does."""

    runs: dict = {}  # noqa: RUF012 (the server's)
    experiments: dict = {}  # noqa: RUF012

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def create_experiment(self, name):
        self.experiments[name] = types.SimpleNamespace(experiment_id=f"id of {name}")
        return f"id of {name}"

    def create_run(self, place, *, run_name, tags):
        identity = f"run {len(self.runs)}"
        self.runs[identity] = {"place": place, "name": run_name, "tags": tags, "parameters": {}, "metrics": []}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=identity))

    def log_param(self, identity, name, value):
        assert len(value) <= 500
        self.runs[identity]["parameters"][name] = value

    def log_batch(self, identity, *, metrics):
        self.runs[identity]["metrics"] += metrics

    def get_metric_history(self, identity, tag):
        return [metric for metric in self.runs[identity]["metrics"] if metric[0] == tag]

    def update_run(self, identity, *, status):
        self.runs[identity]["status"] = status

    def set_terminated(self, identity):
        self.runs[identity]["status"] = "FINISHED"


def test_mlflow_gets_each_row_once_with_the_settings(run, monkeypatch):
    double = types.ModuleType("mlflow")
    double.MlflowClient = MlflowClient
    double.get_tracking_uri = lambda: "file:somewhere"
    double.entities = types.SimpleNamespace(Metric=lambda key, value, timestamp, step: (key, value, step))
    monkeypatch.setitem(sys.modules, "mlflow", double)
    monkeypatch.setattr(MlflowClient, "runs", {})
    Sinks([SinkChoice("mlflow")])(run, ROWS[:2])
    after = Sinks([SinkChoice("mlflow")])
    after(run, ROWS)
    after.finish(run)
    Sinks([SinkChoice("mlflow")]).finish(run)  # it has the run already
    (kept,) = MlflowClient.runs.values()
    assert (kept["name"], kept["place"], kept["status"]) == (run.path.name, "id of alignscape", "FINISHED")
    assert kept["parameters"]["hidden"] == "[8]"
    found = [
        (row["epoch"], tag, value) for row, own in zip(ROWS, logged(ROWS), strict=True) for tag, value in own.items()
    ]
    assert [(step, tag, value) for tag, value, step in kept["metrics"]] == found


def test_event_files_of_a_store_hold_every_run_once(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    flags = ["train", "--hidden", "4", "--train-size", "50", "--epochs", "2", "--device", "cpu", "--quiet"]
    assert main([*flags, "--seeds", "0", "--store", str(tmp_path)]) == 0  # without, at first
    for _ in range(2):
        assert main([*flags, "--seeds", "0", "1", "--tensorboard", "--store", str(tmp_path)]) == 0
    for folder in (tmp_path / "runs").iterdir():
        (file,) = (folder / "tensorboard").iterdir()
        events = accumulator.EventAccumulator(str(file))
        events.Reload()
        losses = [row["test_loss"] for row in RunFolder(folder).read_metrics()]
        found = events.Scalars("loss/test")
        assert [event.step for event in found] == [0, 1, 2]
        assert [event.value for event in found] == pytest.approx(losses, rel=1e-5)
    assert main(["runs", "verify", "--quiet", "--store", str(tmp_path)]) == 0


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
@pytest.mark.parametrize("where", ["--out", "--store"])
def test_a_package_that_is_missing_is_told_before_anything_is_trained(package, where, tmp_path, monkeypatch, capsys):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == package:
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["train", "--hidden", "4", "--epochs", "1", f"--{package}", where, str(tmp_path / "x")]) == 2
    assert f"pip install 'alignscape[{package}]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("metrics.csv"))


def test_the_packages_themselves_without_a_network(run, tmp_path, monkeypatch):
    """MLflow is read back through its own client; of Weights & Biases the file is there, and the tags are in it."""
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow")
    for name, value in {
        "WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlflow'}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    sinks = Sinks([SinkChoice("wandb"), SinkChoice("mlflow")])
    for count in range(1, len(ROWS) + 1):
        sinks(run, ROWS[:count])
    sinks.finish(run)
    (kept,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    assert b"loss/test" in kept.read_bytes()
    identity = json.loads((run.path / "mlflow.json").read_text())["run"]
    history = mlflow.MlflowClient().get_metric_history(identity, "loss/test")
    assert [(one.step, one.value) for one in history] == [(row["epoch"], row["test_loss"]) for row in ROWS]


def test_sinks_import_nothing_heavy():
    code = "import sys, training.sinks; sys.exit(any(m in sys.modules for m in ('torch', 'wandb', 'mlflow', 'pandas')))"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
