"""What a command loads, and where it finds the data."""

import json

import pytest
import torch

from alignscape.errors import InputError
from reports.subjects import find_data_root, load_subject
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = load_dataset("digits", train_size=200, subset_seed=4)
    config = TrainConfig(rule="ifa", angle=45, hidden=(8,), epochs=1, train_size=200, subset_seed=4, checkpoint_every=1)
    return train(config, data, tmp_path_factory.mktemp("runs") / "run").path


def test_a_run_folder_stands_for_its_final_checkpoint(run):
    subject = load_subject(run, device="cpu")
    assert subject.path == run / "ckpt.pt"
    assert subject.columns == {"rule": "ifa", "angle": 45.0, "seed": 0, "epoch": 1}
    assert (len(subject.labels), subject.dataset, subject.split) == (360, "digits", "test")
    start = load_subject(run / "checkpoints" / "epoch-0000.pt", device="cpu")
    assert start.columns["epoch"] == 0


def test_the_train_split_is_the_subset_that_was_trained_on(run):
    subject = load_subject(run, split="train", device="cpu")
    assert torch.equal(subject.images, load_dataset("digits", train_size=200, subset_seed=4).train.images)


def test_samples_are_drawn_by_the_seed(run):
    first, again, other = (load_subject(run, samples=50, seed=s, device="cpu") for s in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert first.data_digest == again.data_digest != other.data_digest
    assert len(load_subject(run, samples=10**6, device="cpu").labels) == 360


def test_the_pixel_model_normalises_inside(run):
    subject = load_subject(run, device="cpu")
    pixels = subject.images.float() / 255
    torch.testing.assert_close(subject.pixel_model()(pixels), subject.model(subject.inputs()), rtol=1e-4, atol=1e-5)


def test_data_root_is_taken_as_given_then_from_the_environment_then_from_the_run(tmp_path, monkeypatch):
    monkeypatch.delenv("ALIGNSCAPE_DATA", raising=False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"data_root": "/from/run"}))
    for checkpoint in (tmp_path / "ckpt.pt", tmp_path / "checkpoints" / "epoch-0001.pt"):
        assert str(find_data_root(None, checkpoint)) == "/from/run"
    monkeypatch.setenv("ALIGNSCAPE_DATA", "/from/environment")
    assert str(find_data_root(None, tmp_path / "ckpt.pt")) == "/from/environment"
    assert str(find_data_root(tmp_path, tmp_path / "ckpt.pt")) == str(tmp_path)
    monkeypatch.delenv("ALIGNSCAPE_DATA")
    assert str(find_data_root(None, tmp_path / "elsewhere" / "deep" / "ckpt.pt")) == "data"


def test_a_network_that_does_not_fit_the_data_is_named(tmp_path, monkeypatch, run):
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n"
        "def wide(): return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))\n"
        "def few(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        "def flat(): return nn.Sequential(nn.Flatten(0), nn.Linear(128, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    for name, size, message in [
        ("wide", (10, 65), "does not take digits's images of shape"),
        ("few", (3, 64), "3 outputs, digits has 10 classes"),
        ("flat", (3, 128), "one tensor of logits"),
    ]:
        torch.save({"1.weight": torch.zeros(size), "1.bias": torch.zeros(size[0])}, "w.pt")
        with pytest.raises(InputError, match=message):
            load_subject(tmp_path / "w.pt", model=f"odd:{name}", dataset="digits", device="cpu")
    with pytest.raises(InputError, match="1 channels: --mean and --std need 1"):
        load_subject(run, mean=(0.1, 0.2, 0.3), device="cpu")
