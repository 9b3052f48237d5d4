"""Event files, read back by TensorBoard's own reader."""

import builtins

import pandas as pd
import pytest

from reports.cli import main

FLAGS = ["train", "--rule", "fa", "--hidden", "6", "--epochs", "3", "--quiet", "--gradient-alignment", "200"]


def scalars(folder):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is missing"
    )
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def check(run):
    metrics = pd.read_csv(run / "metrics.csv")
    found = scalars(run / "tensorboard")
    assert {"loss/train", "loss/test", "accuracy/train", "accuracy/test", "angle/layers.1"} <= found.keys()
    assert "gradient_cosine/layers.0" in found
    for tag, column in (("loss/test", "test_loss"), ("angle/layers.1", "angle_layers.1")):
        assert [step for step, _ in found[tag]] == metrics["epoch"].tolist()
        assert [value for _, value in found[tag]] == pytest.approx(metrics[column].tolist(), rel=1e-5)
    assert [step for step, _ in found["loss/train"]] == [1, 2, 3]  # nothing was trained at epoch 0


def test_every_epoch_is_there_once(tmp_path):
    assert main([*FLAGS, "--seeds", "0", "1", "--tensorboard", "--out", str(tmp_path)]) == 0
    for run in ("digits-fa-seed0", "digits-fa-seed1"):
        check(tmp_path / run)


def test_a_complete_run_gets_them_later(tmp_path):
    assert main([*FLAGS, "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "tensorboard").exists()
    for _ in range(2):
        assert main([*FLAGS, "--tensorboard", "--out", str(tmp_path / "run")]) == 0
        check(tmp_path / "run")


def test_without_the_package_one_line_says_so(tmp_path, monkeypatch, capsys):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main([*FLAGS, "--tensorboard", "--out", str(tmp_path / "run")]) == 2
    assert "pip install 'alignscape[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
