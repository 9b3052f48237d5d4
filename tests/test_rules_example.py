"""The example of docs/adding-a-rule.md works as it stands, on a network with convolutions too."""

import re
import shlex
import tomllib
from pathlib import Path

import torch
from test_imports import run
from test_plugins import install

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


def test_the_documented_rule_from_a_folder_and_from_a_package(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (entries,) = (tomllib.loads(toml) for toml in re.findall(r"```toml\n(.*?)```", text, re.S))
    commands = [shlex.split(line)[1:] for line in re.findall(r"^    (analyze train --rule .*)$", text, re.M)]
    package = tmp_path / "site" / "my_package"
    package.mkdir(parents=True)
    (tmp_path / "stale.py").write_text(source)
    (package / "stale.py").write_text(source)
    rules = entries["project"]["entry-points"]["alignscape.rules"]
    lines = "".join(f"{name} = {value}\n" for name, value in rules.items())
    install(tmp_path / "site", "my-package", "0.1", f"[alignscape.rules]\n{lines}", {})
    assert [command[-1] for command in commands] == ["stale:StaleTransport", *rules]
    code = "import sys; sys.path.append('site'); from reports.cli import main; sys.exit(main(sys.argv[1:]))"
    for command, out in zip(commands, ("folder", "package"), strict=True):
        small = ["--hidden", "8", "--epochs", "1", "--device", "cpu", "--quiet", "--out", out]
        done = run(tmp_path, code, *command, *small)
        assert done.returncode == 0, done.stderr
    folder, installed = (load_checkpoint(tmp_path / out / "ckpt.pt") for out in ("folder", "package"))
    assert torch.equal(folder.model["layers.0.weight"], installed.model["layers.0.weight"])
    assert installed.rule_origin["distribution"] == "my-package 0.1"


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
