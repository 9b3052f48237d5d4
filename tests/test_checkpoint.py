"""Checkpoints come back whole, and nothing else comes in."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from alignscape.errors import InputError
from training.checkpoint import (
    Checkpoint,
    DataInfo,
    is_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    split_state,
)
from training.config import TrainConfig
from training.foreign import load_state_dict
from training.models import build_model
from training.rules import RULES, make_rule

INFO = DataInfo(name="digits", input_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,), digest="0" * 64)


def make(rule: str = "fa") -> Checkpoint:
    config = TrainConfig(rule=rule, hidden=(6, 5), angle=30 if rule == "ifa" else 0)
    learning_rule, model = make_rule(config), build_model(config, (1, 8, 8), 10)
    learning_rule.initialise(model)
    plain, feedback = split_state(model, learning_rule.wrap(model, (1, 8, 8)))
    return Checkpoint(config=config, data=INFO, model=plain, feedback=feedback, epoch=2, step=9, metrics={"a": 0.5})


@pytest.mark.parametrize("rule", RULES)
def test_round_trip(rule, tmp_path):
    saved = make(rule)
    save_checkpoint(saved, tmp_path / "ckpt.pt")
    loaded = load_checkpoint(tmp_path / "ckpt.pt")
    assert (loaded.config, loaded.data, loaded.epoch, loaded.step) == (saved.config, INFO, 2, 9)
    for ours, theirs in ((loaded.model, saved.model), (loaded.feedback, saved.feedback)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    twin = loaded.training_twin()
    assert all(torch.equal(twin.state_dict()[name], tensor) for name, tensor in saved.feedback.items())
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.plain_model()(x), loaded.feedback_path()(x))


def test_the_file_has_the_promised_fields_and_the_size_of_the_network(tmp_path):
    save_checkpoint(make(), tmp_path / "ckpt.pt")
    fields = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    assert set(fields) == {"format", "config", "model", "feedback", "epoch", "step", "metrics"}
    parameters = sum(t.numel() for t in (*fields["model"].values(), *fields["feedback"].values()))
    assert (tmp_path / "ckpt.pt").stat().st_size < 4 * parameters + 12_000


class Bomb:
    """Runs code when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (os.fspath(self.target),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(how, tmp_path):
    file = tmp_path / "evil.pt"
    bomb = {"format": 1, "model": Bomb(tmp_path / "ran"), "config": {}, "feedback": {}}
    torch.save(bomb, file) if how == "torch" else file.write_bytes(pickle.dumps(bomb))
    with pytest.raises(InputError, match=r"refused: it holds more than tensors"):
        load_checkpoint(file)
    with pytest.raises(InputError, match=r"refused"):
        load_state_dict(file)
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False) if how == "torch" else pickle.loads(file.read_bytes())
    assert (tmp_path / "ran").exists(), "the bomb is real: loaded carelessly, it does run"


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(keep, tmp_path):
    save_checkpoint(make(), tmp_path / "ckpt.pt")
    whole = (tmp_path / "ckpt.pt").read_bytes()
    (tmp_path / "ckpt.pt").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"ckpt.pt is truncated or not a torch file"):
        load_checkpoint(tmp_path / "ckpt.pt")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + b"x" * 500, b"hello, world\n", b"\x80\x02}q\x00."])
def test_a_foreign_file_is_named(content, tmp_path):
    (tmp_path / "ckpt.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"truncated or not a torch file|not an alignscape checkpoint"):
        load_checkpoint(tmp_path / "ckpt.pt")


def test_a_checkpoint_from_the_future_and_a_damaged_one(tmp_path):
    file = tmp_path / "ckpt.pt"
    save_checkpoint(make(), file)
    fields = torch.load(file, weights_only=True)
    torch.save({**fields, "format": 99}, file)
    with pytest.raises(InputError, match="format 99"):
        load_checkpoint(file)
    torch.save({**fields, "config": {**fields["config"], "quantum": 1}}, file)
    with pytest.raises(InputError, match="unknown fields: quantum"):
        load_checkpoint(file)
    torch.save({**fields, "config": {}}, file)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(file)


def test_state_dicts_from_other_trainers(tmp_path):
    model = nn.Linear(3, 2)
    state = model.state_dict()
    torch.save(state, tmp_path / "bare.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "lightning.pt")
    save_file(state, tmp_path / "s.safetensors")
    for name in ("bare.pt", "lightning.pt", "s.safetensors"):
        loaded = load_state_dict(tmp_path / name)
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[k], state[k]) for k in state)
    assert not is_checkpoint(tmp_path / "bare.pt")
    (tmp_path / "s.safetensors").write_bytes((tmp_path / "s.safetensors").read_bytes()[:20])
    with pytest.raises(InputError, match="safetensors"):
        load_state_dict(tmp_path / "s.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="no state dict"):
        load_state_dict(tmp_path / "list.pt")
    with pytest.raises(InputError, match="no such file"):
        load_state_dict(tmp_path / "nothing.pt")


def test_weights_that_do_not_fit_are_named():
    model = nn.Linear(3, 2)
    with pytest.raises(
        InputError, match=r"missing bias; unexpected head; weight is \(2, 4\), the model wants \(2, 3\)"
    ):
        load_weights(model, {"weight": torch.zeros(2, 4), "head": torch.zeros(1)})
    with pytest.raises(InputError, match="NaN or infinity in weight"):
        load_weights(model, {"weight": torch.full((2, 3), float("nan")), "bias": torch.zeros(2)})


def test_the_count_of_batches_may_be_missing_as_in_torch():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    weights = {name: tensor + 1 for name, tensor in model.state_dict().items() if "num_batches" not in name}
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).load_state_dict(weights)  # strict, and it takes them
    load_weights(model, weights)
    assert torch.equal(model[1].running_var, torch.full((2,), 2.0))
    with pytest.raises(InputError, match=r"missing 1\.running_mean"):
        load_weights(model, {name: tensor for name, tensor in weights.items() if name != "1.running_mean"})


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(make(), tmp_path / "ckpt.pt")
    before = (tmp_path / "ckpt.pt").read_bytes()

    def broken(fields, handle):
        handle.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(make(), tmp_path / "ckpt.pt")
    assert (tmp_path / "ckpt.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["ckpt.pt"]
