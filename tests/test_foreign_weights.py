"""Weights from elsewhere in whatever wrapping: read, fitted to their network, or refused with what to do."""

import argparse
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from alignscape.errors import InputError
from reports.cli import main
from reports.found import _foreign_model
from reports.subjects import load_subject
from training import load_dataset, load_state_dict
from training.foreign import fitting, outputs_wanted, weights_digest


class Net(nn.Module):
    """Something whose weights have names of two parts, and a module that is called as wrappers are."""

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4))
        self.head = nn.ModuleDict({"module": nn.Linear(4, outputs)})

    def forward(self, x):
        return self.head["module"](self.body(x))


class Trainer(nn.Module):
    """Holds the network as Lightning's modules do, beside a loss with weights of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        setattr(self, name, Net())
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(10))


def of_lightning(name):
    return {"state_dict": Trainer(name).state_dict(), "pytorch-lightning_version": "2.5", "epoch": 3}


def averaged():
    return torch.optim.swa_utils.AveragedModel(Net()).state_dict()


WRITTEN = {
    "bare": lambda: Net().state_dict(),
    **{key: lambda key=key: {key: Net().state_dict(), "epoch": 3}
       for key in ("state_dict", "model_state_dict", "model", "net", "ema", "params")},
    "nested twice": lambda: {"checkpoint": 1, "state_dict": {"model": Net().state_dict(), "step": 2}},
    "DataParallel": lambda: nn.DataParallel(Net()).state_dict(),
    "torch.compile": lambda: torch.compile(Net()).state_dict(),
    "compiled in parallel": lambda: nn.DataParallel(torch.compile(Net())).state_dict(),
    "a compiled part": lambda: {name.replace("body.", "body._orig_mod."): w for name, w in Net().state_dict().items()},
    "Lightning's model": lambda: of_lightning("model"),
    "Lightning's net": lambda: of_lightning("net"),
    "an average": averaged,
    "any one prefix": lambda: {f"encoder.q.{name}": w for name, w in Net().state_dict().items()},
}  # fmt: skip


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.filterwarnings("ignore:only what is under")
def test_weights_come_out_of_any_wrapping(how, tmp_path):
    torch.manual_seed(len(how))
    expected = Net().state_dict()
    torch.manual_seed(len(how))
    torch.save(WRITTEN[how](), tmp_path / "theirs.pt")
    found = fitting(load_state_dict(tmp_path / "theirs.pt"), Net())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_left_out_and_what_was_chosen_is_said(tmp_path):
    with pytest.warns(UserWarning, match=r"only what is under model was loaded, not criterion\.weight"):
        fitting(Trainer("model").state_dict(), Net())
    torch.save({"ema": Net().state_dict(), "model": Net().state_dict()}, tmp_path / "two.pt")
    with pytest.warns(UserWarning, match="holds weights as model and as ema: model is taken"):
        load_state_dict(tmp_path / "two.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitting(Net().state_dict(), Net())


def test_weights_that_do_not_fit_keep_the_names_that_do():
    state = {name: weights for name, weights in Net().state_dict().items() if "head" not in name}
    assert fitting(state, Net()).keys() == state.keys()
    assert "body.1.weight" in fitting({f"net.{name}": weights for name, weights in state.items()}, Net())


def test_the_size_of_the_head_is_that_of_the_weights():
    assert outputs_wanted({f"net.{name}": w for name, w in Net(7).state_dict().items()}, Net(10)) == 7
    assert outputs_wanted(Net(10).state_dict(), Net(10)) is None
    other = {**Net(7).state_dict(), "body.1.weight": torch.zeros(4, 65)}
    assert outputs_wanted(other, Net(10)) is None


def test_a_network_in_several_files(tmp_path):
    state = Net().state_dict()
    parts = {"a.safetensors": ["body.1.weight", "body.1.bias"], "b.safetensors": list(state)[2:]}
    for name, keys in parts.items():
        save_file({key: state[key] for key in keys}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: name for name, keys in parts.items() for key in keys}}))
    found, before = load_state_dict(index), weights_digest(index)
    assert all(torch.equal(found[key], state[key]) for key in state)
    save_file({key: state[key] + 1 for key in parts["a.safetensors"]}, tmp_path / "a.safetensors")
    assert weights_digest(index) != before  # though the index is what it was
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"names b\.safetensors, which is not there"):
        load_state_dict(index)
    index.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(InputError, match="no file beside it"):
        load_state_dict(index)
    index.write_text("[]")
    with pytest.raises(InputError, match="no index of weights"):
        load_state_dict(index)


REFUSED = {
    "module": (lambda path: torch.save(Net(), path), '.state_dict(), "weights.pt"'),
    "namespace": (
        lambda path: torch.save({"model": Net().state_dict(), "args": argparse.Namespace(lr=0.1)}, path),
        '["model"], "weights.pt"',
    ),
    "old format": (
        lambda path: torch.save(
            {"net": Net().state_dict(), "args": argparse.Namespace()}, path, _use_new_zipfile_serialization=False
        ),
        '["net"], "weights.pt"',
    ),
    "torchscript": (
        lambda path: torch.jit.save(torch.jit.trace(Net().eval(), torch.zeros(2, 1, 8, 8)), path),
        '.state_dict(), "weights.pt"',
    ),
}


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_must_not_be_loaded_says_what_to_do_and_that_works(how, tmp_path):
    write, kept = REFUSED[how]
    write(tmp_path / "theirs.pt")
    with pytest.raises(InputError) as refused:
        load_state_dict(tmp_path / "theirs.pt")
    advice = str(refused.value).partition("python -c ")[2]
    assert kept in advice
    assert "truncated" not in str(refused.value)
    found = {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}  # their code is at hand
    shell = f'python() {{ {sys.executable} "$@"; }}; python -c {advice}'
    subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=found, check=True, capture_output=True)
    assert load_state_dict(tmp_path / "weights.pt").keys() == Net().state_dict().keys()


NETS = """
from torch import nn

def ten():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def twelve():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
"""


def test_a_zoo_takes_the_size_of_the_head_from_the_weights(tmp_path):
    for outputs in (10, 7, 1000):
        theirs = get_model("squeezenet1_1", num_classes=outputs)
        file = tmp_path / "theirs.safetensors"
        save_file({f"model.{name}": w for name, w in theirs.state_dict().items()}, file)
        found = _foreign_model(file, file, "torchvision:squeezenet1_1", "cifar10")
        assert found.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, outputs)


def test_outputs_are_the_classes_and_chance_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    flags = ["--dataset", "digits", "--samples", "100", "--eps", "0", "--quiet", "--device", "cpu", "--out", "out"]
    torch.save({"1.weight": torch.zeros(12, 64), "1.bias": torch.zeros(12)}, "twelve.pt")
    assert main(["attack", "twelve.pt", "--model", "nets_of_mine:twelve", *flags]) == 2
    assert capsys.readouterr().err == "analyze: error: the model has 12 outputs, digits has 10 classes\n"
    assert not (tmp_path / "out").exists()
    torch.save({"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}, "ten.pt")
    assert main(["attack", "ten.pt", "--model", "nets_of_mine:ten", *flags]) == 0
    assert "no more than by chance" in capsys.readouterr().err
    data = load_dataset("digits")
    pixels = data.train.images.flatten(1).double() / 255
    means = torch.stack([pixels[data.train.labels == label].mean(0) for label in range(10)]).float()
    scale, shift = data.std[0], data.mean[0]  # the nearest mean, of pixels as they were
    weights = {"1.weight": means * scale, "1.bias": (means * shift).sum(1) - (means**2).sum(1) / 2}
    torch.save(weights, "ten.pt")
    assert main(["attack", "ten.pt", "--model", "nets_of_mine:ten", *flags, "--force"]) == 0
    assert "chance" not in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_told_by_what_it_lacks(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["hessian", str(tmp_path), "--quiet"]) == 2
    assert "not finished" not in capsys.readouterr().err


def test_a_hugging_face_folder(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
        num_channels=1, num_labels=10, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path / "vit")
    subject = load_subject(tmp_path / "vit", dataset="digits", samples=60, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(subject.model(subject.inputs()), theirs(subject.inputs()).logits)
    flags = ["--dataset", "digits", "--samples", "60", "--quiet", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["hessian", str(tmp_path / "vit"), "--k", "1", *flags]) == 0
    assert main(["hessian", str(tmp_path / "vit"), "--k", "1", "--quiet"]) == 2
    assert capsys.readouterr().err.endswith("give --dataset\n")
