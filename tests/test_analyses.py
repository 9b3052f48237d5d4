"""The analyses of the figures as a worker calls them: files in, tables out, the numbers of the library behind them."""

import numpy as np
import pandas as pd
import pytest
import torch

from reports.analyses import ANALYSES, known_tables
from reports.paper.corrupted_set import corrupted_set
from reports.tables import read_table
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = TrainConfig(rule="fa", hidden=(8,), epochs=2, lr=1e-2, snapshot_every=5, seed=3)
    return train(config, load_dataset("digits"), tmp_path_factory.mktemp("run") / "fa")


def table(analysis, folder, inputs, name=None, **parameters):
    folder.mkdir(exist_ok=True)
    ANALYSES[analysis].stored(folder, inputs, device="cpu", data_root=None, **parameters)
    name = name or analysis
    return read_table(folder / f"{name}.csv", known_tables()[name])


def dense_hessian(run, samples):
    """Return the Hessian of the mean loss over the samples that an analysis takes, by autograd, in float64."""
    from torch.func import functional_call, hessian

    from reports.subjects import load_subject

    subject = load_subject(run.checkpoint, split="train", samples=samples, seed=0, device="cpu")
    model, inputs = subject.model.double(), subject.inputs().double()
    shapes = {name: p.shape for name, p in model.named_parameters()}

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return torch.nn.functional.cross_entropy(functional_call(model, weights, (inputs,)), subject.labels)

    return hessian(loss)(torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_the_hessian_is_that_of_the_same_samples(run, tmp_path):
    found = table("hessian", tmp_path, {"checkpoint": run.checkpoint}, k=2, samples=50, probes=60, trace_tol=0.02)
    dense = dense_hessian(run, 50)
    top = torch.linalg.eigvalsh(dense).flip(0)[:2].tolist()
    assert found.loc[found.quantity == "eigenvalue", "value"].tolist() == pytest.approx(top, rel=1e-3)
    trace = found[found.quantity == "trace"].iloc[0]
    assert trace.ci_low <= trace.value <= trace.ci_high
    assert trace.value == pytest.approx(float(dense.trace()), rel=0.1)
    assert (found["n_samples"] == 50).all()


def test_the_spectrum_has_the_traces_mean(run, tmp_path):
    found = table("spectrum", tmp_path, {"checkpoint": run.checkpoint}, steps=30, probes=30, samples=50)
    assert found.groupby("probe")["weight"].sum().tolist() == pytest.approx([1.0] * 30)
    mean = (found["weight"] * found["node"]).groupby(found["probe"]).sum().mean()
    dense = dense_hessian(run, 50)
    assert mean * len(dense) == pytest.approx(float(dense.trace()), rel=0.3)


def test_the_surface_and_the_path_meet_at_the_network(run, tmp_path):
    surface = table("surface", tmp_path / "s", {"checkpoint": run.checkpoint}, points=[5], extent=[0.2], samples=50)
    assert len(surface) == 25
    centre = surface[(surface.alpha == 0) & (surface.beta == 0)]["loss"].item()
    files = {"checkpoint": run.checkpoint, "trajectory": run.path / "trajectory.npy"}
    path = table("trajectory", tmp_path / "p", files, points=5, samples=50)
    assert path["loss"].iloc[-1] == pytest.approx(centre, rel=1e-5)
    assert path["step"].tolist() == [0, 5, 10, 15, 20, 24]
    plane = pd.read_csv(tmp_path / "p" / "trajectory_plane.csv")
    for axis in ("alpha", "beta"):
        assert plane[axis].min() < path[axis].min()
        assert plane[axis].max() > path[axis].max()


def test_attacks_follow_both_gradients(run, tmp_path):
    settings = {"attacks": ["fgsm"], "eps": [0, 0.1], "gradients": ["true", "feedback"], "samples": None}
    found = table("attack", tmp_path, {"checkpoint": run.checkpoint}, **settings)
    assert set(found["gradient"]) == {"true", "feedback"}
    clean = found[found.eps == 0]["accuracy"]
    assert clean.tolist() == pytest.approx([load_checkpoint(run.checkpoint).metrics["test_accuracy"]] * 2)
    assert (found[found.eps > 0]["accuracy"] <= clean.max()).all()


def test_a_corrupted_set_is_made_and_used(run, tmp_path):
    made = tmp_path / "set"
    made.mkdir()
    what = {"dataset": "digits", "severity": 3, "images": 40, "seed": 0, "frost": "default"}
    corrupted_set(made, {}, device="cpu", data_root=None, **what)
    with np.load(made / "samples.npz") as images:
        assert set(images) == {"clean", "gaussian_noise", "gaussian_blur", "contrast", "pixelate"}
    inputs = {"checkpoint": run.checkpoint, "set": made / "provenance.json"}
    cells = table("corruptions", tmp_path / "c", inputs, no_clean=True)
    assert set(cells["severity"]) == {3}
    assert len(cells) == 4
    assert (cells["n_samples"] == 40).all()
    summary = pd.read_csv(tmp_path / "c" / "corruptions_summary.csv")
    mean = cells.loc[cells.severity == 3, "accuracy"].mean()
    assert summary[(summary.quantity == "mean_accuracy") & (summary.group == "all")]["value"].item() == pytest.approx(
        mean
    )


def test_a_network_that_diverged_gives_empty_tables(run, tmp_path):
    import dataclasses

    checkpoint = load_checkpoint(run.checkpoint)
    lost = dataclasses.replace(
        checkpoint,
        model={name: torch.full_like(weight, torch.nan) for name, weight in checkpoint.model.items()},
        metrics={**checkpoint.metrics, "diverged": True},
    )
    save_checkpoint(lost, tmp_path / "ckpt.pt")
    inputs = {"checkpoint": tmp_path / "ckpt.pt", "trajectory": run.path / "trajectory.npy", "set": tmp_path}
    whole = table("hessian", tmp_path / "w", {"checkpoint": run.checkpoint}, k=1, samples=20, probes=4, trace_tol=0.5)
    empty = table("hessian", tmp_path / "e", inputs, k=1, samples=20, probes=4, trace_tol=0.5)
    assert empty.empty
    assert list(empty) == list(whole)
    assert table("spectrum", tmp_path / "2", inputs, steps=5, probes=1, samples=20).empty
    assert table("surface", tmp_path / "3", inputs, points=[3], extent=[1], samples=20).empty
    assert table("attack", tmp_path / "4", inputs, attacks=["fgsm"], eps=[0], samples=20).empty
    assert table("trajectory", tmp_path / "5", inputs, points=3, samples=20).empty
    assert table("corruptions", tmp_path / "6", inputs, no_clean=True).empty
