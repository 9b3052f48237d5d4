"""``analyze hessian`` and ``analyze spectrum`` from the command line, on a network of ours trained for a moment."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from landscape import HessianOperator
from reports.cli import main
from reports.subjects import load_subject


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "fa"
    flags = ["--rule", "fa", "--epochs", "2", "--checkpoint-every", "1", "--hidden", "8", "--lr", "0.01", "--quiet"]
    assert main(["train", *flags, "--train-size", "200", "--out", str(folder)]) == 0
    return folder


def dense(path) -> torch.Tensor:
    subject = load_subject(path, split="train")
    model = subject.model.double()
    operator = HessianOperator(model, torch.nn.CrossEntropyLoss(), (subject.inputs().double(), subject.labels))
    return operator.product(torch.eye(operator.dim, dtype=torch.float64))


def test_hessian_writes_what_it_prints(run, tmp_path, capsys):
    assert main(["hessian", str(run), "--k", "3", "--layers", "--out", str(tmp_path), "--quiet"]) == 0
    frame = pd.read_csv(tmp_path / "hessian.csv")
    assert list(frame.columns[:10]) == [
        *("checkpoint", "quantity", "index", "value", "ci_low", "ci_high", "residual"),
        *("n_samples", "n_hvp", "seconds"),
    ]
    truth = dense(run)
    spectrum = torch.linalg.eigvalsh(truth).flip(0)
    values = frame.loc[frame["quantity"] == "eigenvalue", "value"]
    assert values.tolist() == pytest.approx(spectrum[:3].tolist(), rel=1e-3)
    trace = frame[frame["quantity"] == "trace"].iloc[0]
    half = trace["ci_high"] - trace["value"]
    assert abs(trace["value"] - float(truth.trace())) < 2.5 * half  # five standard errors
    layers = frame[frame["quantity"].str.startswith("trace:")]
    assert layers["value"].sum() == pytest.approx(trace["value"], rel=1e-5)
    assert (frame["n_samples"] == 200).all()
    assert frame["rule"].eq("fa").all()
    sidecar = json.loads((tmp_path / "hessian.json").read_text())
    assert sidecar["seed"] == 0
    assert (tmp_path / "hessian.pdf").is_file()
    assert f"{values.iloc[0]:.5g}" in capsys.readouterr().out


def test_batch_size_and_memory_change_nothing(run, tmp_path):
    values = []
    for flags in (["--batch-size", "7"], ["--batch-size", "200"], ["--memory", "1e-6"]):
        assert main(["hessian", str(run), "--k", "3", *flags, "--out", str(tmp_path), "--quiet"]) == 0
        values.append(pd.read_csv(tmp_path / "hessian.csv")["value"].to_numpy())
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-5)


def test_every_epoch(run, tmp_path):
    assert main(["hessian", str(run), "--every-epoch", "--k", "2", "--out", str(tmp_path), "--quiet"]) == 0
    frame = pd.read_csv(tmp_path / "hessian.csv")
    assert frame["epoch"].unique().tolist() == [0, 1, 2]
    for epoch in (0, 2):
        spectrum = torch.linalg.eigvalsh(dense(run / "checkpoints" / f"epoch-{epoch:04d}.pt")).flip(0)
        found = frame[(frame["epoch"] == epoch) & (frame["quantity"] == "eigenvalue")]["value"]
        assert found.tolist() == pytest.approx(spectrum[:2].tolist(), rel=1e-3)


def test_parameter_filter_and_ends(run, tmp_path):
    name = next(name for name, p in load_subject(run, split="train").model.named_parameters() if p.ndim == 1)
    flags = ["--params", name, "--ends", "smallest", "--k", "2", "--out", str(tmp_path), "--quiet"]
    assert main(["hessian", str(run), *flags]) == 0
    found = pd.read_csv(tmp_path / "hessian.csv")
    model = load_subject(run, split="train").model
    first, places = 0, slice(0)
    for other, parameter in model.named_parameters():
        if other == name:
            places = slice(first, first + parameter.numel())
        first += parameter.numel()
    block = dense(run)[places, places]
    values = found.loc[found["quantity"] == "eigenvalue", "value"]
    expected = torch.linalg.eigvalsh(block)[:2].tolist()
    assert values.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(block.norm()))


def test_bootstrap_adds_intervals_over_samples(run, tmp_path):
    flags = ["--k", "2", "--bootstrap", "100", "--out", str(tmp_path), "--quiet"]
    assert main(["hessian", str(run), *flags]) == 0
    frame = pd.read_csv(tmp_path / "hessian.csv")
    assert (frame["data_ci_low"] < frame["value"]).all()
    assert (frame["value"] < frame["data_ci_high"]).all()
    trace = frame.iloc[0]
    assert trace["data_ci_high"] - trace["data_ci_low"] > trace["ci_high"] - trace["ci_low"]


def test_check_against_pyhessian(run, tmp_path):
    pytest.importorskip("pyhessian", reason="the extra `peers` is not installed")
    flags = ["--k", "1", "--ends", "magnitude", "--check", "pyhessian", "--out", str(tmp_path), "--quiet"]
    assert main(["hessian", str(run), *flags]) == 0
    frame = pd.read_csv(tmp_path / "hessian.csv")
    top = frame[frame["quantity"] == "eigenvalue"].iloc[0]
    assert top["value_pyhessian"] == pytest.approx(top["value"], rel=2e-2)
    assert top["n_hvp_pyhessian"] > 1


def test_spectrum(run, tmp_path, capsys):
    flags = ["--steps", "40", "--probes", "4", "--out", str(tmp_path), "--quiet"]
    assert main(["spectrum", str(run), *flags]) == 0
    frame = pd.read_csv(tmp_path / "spectrum.csv")
    assert list(frame.columns[:4]) == ["checkpoint", "probe", "node", "weight"]
    spectrum = torch.linalg.eigvalsh(dense(run))
    assert frame["node"].max() == pytest.approx(float(spectrum[-1]), rel=1e-4)
    assert frame.groupby("probe")["weight"].sum().tolist() == pytest.approx([1, 1, 1, 1])
    assert (tmp_path / "spectrum.png").is_file()
    assert "share < -width" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--params", "conv*"], "no parameters matching conv*"),
        (["--probes", "1"], "at least 2"),
        (["--bootstrap", "9"], "at least 10"),
        (["--check", "pyhessian", "--params", "*bias"], "cannot restrict"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, capsys, flags, message):
    if "pyhessian" in flags:
        pytest.importorskip("pyhessian")
    assert main(["hessian", str(run), *flags, "--out", str(tmp_path / "new"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("analyze: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["hessian", "spectrum", "surface"])
@pytest.mark.parametrize(("scale", "message"), [(float("nan"), "NaN"), (1e30, "the loss is not finite")])
def test_weights_that_have_no_curvature(run, tmp_path, capsys, command, scale, message):
    content = torch.load(run / "ckpt.pt", weights_only=True)
    content["model"] = {name: tensor * scale for name, tensor in content["model"].items()}
    torch.save(content, tmp_path / "bad.pt")
    assert main([command, str(tmp_path / "bad.pt"), "--out", str(tmp_path / "new"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("analyze: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_more_eigenvalues_than_parameters_are_all_there_are(run, tmp_path, capsys):
    name = next(name for name, p in load_subject(run, split="train").model.named_parameters() if p.ndim == 1)
    flags = ["--params", name, "--k", "500", "--out", str(tmp_path), "--quiet"]
    assert main(["hessian", str(run), *flags]) == 0
    assert "warning: 500 eigenvalues asked of" in capsys.readouterr().err
    frame = pd.read_csv(tmp_path / "hessian.csv")
    values = frame.loc[frame["quantity"] == "eigenvalue", "value"]
    size = dict(load_subject(run, split="train").model.named_parameters())[name].numel()
    assert len(values) == size
    assert values.sum() == pytest.approx(frame["value"].iloc[0], rel=1e-3)  # the trace


def test_an_accuracy_of_the_whole_range_is_none(run, tmp_path, capsys):
    assert main(["spectrum", str(run), "--accuracy", "1", "--out", str(tmp_path / "new"), "--quiet"]) == 2
    assert "accuracy is 1; it must lie in (0, 1)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_every_epoch_of_a_checkpoint_file(run, tmp_path, capsys):
    assert main(["hessian", str(run / "ckpt.pt"), "--every-epoch", "--out", str(tmp_path)]) == 2
    assert "--checkpoint-every 1" in capsys.readouterr().err
