"""The example of docs/adding-a-rule.md works as it stands, on a network with convolutions too."""

import re
from pathlib import Path

import torch

from reports.cli import main
from training.angles import alignment
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train
from training.rules import RULES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-a-rule.md"


def test_the_documented_rule_trains_and_is_resumable(tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    namespace: dict[str, object] = {}
    exec(compile(source, str(PAGE), "exec"), namespace)
    rule = namespace["StaleTransport"]
    monkeypatch.setitem(RULES, rule.name, rule)
    data = load_dataset("digits")
    config = TrainConfig(rule="stale", hidden=(40, 30), epochs=10, lr=3e-3)
    final = load_checkpoint(train(config, data, tmp_path / "run").checkpoint)
    assert final.metrics["test_accuracy"] > 0.85, "chance is 0.1"
    layer = final.training_twin().layers[1]
    assert not torch.equal(layer.feedback, layer.weight)
    assert alignment(layer.weight, layer.feedback).row_angle < 30, "B follows W"


def test_a_module_that_cannot_be_wrapped_ends_the_command_with_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "prelu_net.py").write_text(
        "from torch import nn\n"
        "def net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.PReLU(), nn.Linear(8, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert (
        main(["train", "--rule", "fa", "--network", "prelu_net:net", "--device", "cpu", "--out", "run", "--quiet"]) == 2
    )
    assert "no rule can wrap module 2 (PReLU)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
