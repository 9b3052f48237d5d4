"""``analyze surface`` and ``analyze trajectory`` end to end on runs over the bundled digits."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from landscape.parameters import flatten, select_parameters
from reports.cli import main
from reports.subjects import load_subject


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a bp and an fa run with weight snapshots, and of one without."""
    root = tmp_path_factory.mktemp("runs")
    common = ["--dataset", "digits", "--hidden", "16", "--epochs", "4", "--lr", "3e-3", "--quiet"]
    for name, rule, more in (("bp", "bp", 5), ("fa", "fa", 10), ("bare", "bp", None)):
        snapshots = [] if more is None else ["--snapshot-every", str(more)]
        assert main(["train", "--rule", rule, "--out", str(root / name), *common, *snapshots]) == 0
    return root


def run(capsys, *arguments):
    """Return exit status, stdout and stderr of ``analyze``."""
    try:
        status = main([*map(str, arguments), "--quiet", "--device", "cpu"])
    except SystemExit as stop:  # argparse's own errors
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# -- surface --------------------------------------------------------------------------------------------------------


def test_surface_of_eigenvectors(runs, tmp_path, capsys):
    status, out, _ = run(
        capsys, "surface", runs / "bp", runs / "fa", "--points", 5, 3, "--extent", 0.4, 0.2, "--out", tmp_path
    )
    assert status == 0
    frame = pd.read_csv(tmp_path / "surface.csv")
    assert list(frame.columns[:4]) == ["checkpoint", "alpha", "beta", "loss"]
    assert frame.groupby("checkpoint").rule.first().tolist() == ["bp", "fa"]
    assert len(frame) == 2 * 5 * 3
    assert sorted(frame.alpha.unique()) == pytest.approx([-0.4, -0.2, 0, 0.2, 0.4])
    assert sorted(frame.beta.unique()) == pytest.approx([-0.2, 0, 0.2])
    subject = load_subject(runs / "fa", device="cpu", split="train")
    loss = torch.nn.functional.cross_entropy(subject.model(subject.inputs()), subject.labels).item()
    centre = frame[(frame.checkpoint == str(runs / "fa")) & (frame.alpha.abs() < 1e-9) & (frame.beta.abs() < 1e-9)]
    assert float(centre.loss.iloc[0]) == pytest.approx(loss, rel=1e-5)
    assert "eigenvalue_1" in out
    checks = json.loads((tmp_path / "surface.json").read_text())["checks"]
    assert [c["checkpoint"] for c in checks] == [str(runs / "bp"), str(runs / "fa")]
    for check in checks:
        assert check["hessian_1"] == pytest.approx(check["eigenvalue_1"], rel=0.01)
        assert check["hessian_2"] == pytest.approx(check["eigenvalue_2"], rel=0.01)
    for name in ("surface.pdf", "surface.png", "surface-3d.pdf"):
        assert (tmp_path / name).is_file()


def test_surface_of_random_directions_follows_its_seed_not_the_batches(runs, tmp_path, capsys):
    frames = []
    for index, (seed, size) in enumerate([(0, 500), (0, 77), (1, 500)]):
        options = ["--plane", "random", "--points", 3, "--seed", seed, "--batch-size", size, "--split", "test"]
        assert run(capsys, "surface", runs / "bp", *options, "--out", tmp_path / str(index))[0] == 0
        frames.append(pd.read_csv(tmp_path / str(index) / "surface.csv"))
    np.testing.assert_allclose(frames[0].loss, frames[1].loss, rtol=1e-5)
    assert abs(frames[0].loss - frames[2].loss).max() > 0.01


def test_surface_of_one_point(runs, tmp_path, capsys):
    assert run(capsys, "surface", runs / "bp", "--points", 1, "--out", tmp_path)[0] == 0
    frame = pd.read_csv(tmp_path / "surface.csv")
    assert frame[["alpha", "beta"]].to_numpy().tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--points", 3, 3, 3], "--points takes one value"),
        (["--params", "nothing.*"], "no parameters matching nothing.*"),
        (["--plane", "random", "--params", "*.bias"], "no weights with filters"),
    ],
)
def test_surface_refuses_in_one_line_and_writes_nothing(runs, tmp_path, capsys, arguments, message):
    status, _, err = run(capsys, "surface", runs / "bp", *arguments, "--out", tmp_path / "out")
    assert status == 2
    assert err.startswith("analyze: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# -- trajectory -----------------------------------------------------------------------------------------------------


def test_trajectory_of_one_run(runs, tmp_path, capsys):
    status, out, _ = run(capsys, "trajectory", runs / "bp", "--points", 5, "--gif", "--out", tmp_path)
    assert status == 0
    assert "baseline" in out
    frame = pd.read_csv(tmp_path / "trajectory.csv")
    expected = ["checkpoint", "step", "alpha", "beta", "distance", "off_plane", "loss", "plane_loss"]
    assert list(frame.columns[:8]) == expected
    steps = json.loads((runs / "bp" / "trajectory.json").read_text())["steps"]
    assert frame.step.tolist() == steps
    last = frame.iloc[-1]
    assert last[["alpha", "beta", "distance", "off_plane"]].abs().max() < 1e-6  # the plane goes through theta_T
    subject = load_subject(runs / "bp", device="cpu", split="train")
    loss = torch.nn.functional.cross_entropy(subject.model(subject.inputs()), subject.labels).item()
    assert last.loss == pytest.approx(loss, rel=1e-5)
    assert last.plane_loss == pytest.approx(loss, rel=1e-5)
    weights = np.load(runs / "bp" / "trajectory.npy")
    np.testing.assert_allclose(frame.distance, np.linalg.norm(weights - weights[-1], axis=1), rtol=1e-4, atol=1e-6)
    hypotenuse = np.sqrt(frame.alpha**2 + frame.beta**2 + frame.off_plane**2)
    np.testing.assert_allclose(hypotenuse, frame.distance, rtol=1e-5, atol=1e-6)
    with np.load(tmp_path / "surface.npz") as plane:
        assert plane["loss"].shape == (5, 5)
        assert plane["alpha"].min() < frame.alpha.min()
        assert plane["beta"].max() > frame.beta.max()
    with Image.open(tmp_path / "trajectory.gif") as animation:
        assert animation.n_frames > 10
    assert (tmp_path / "trajectory.pdf").is_file()


def test_snapshots_are_in_the_order_of_the_flat_vector(runs):
    subject = load_subject(runs / "bp", device="cpu")
    weights = np.load(runs / "bp" / "trajectory.npy")[-1]
    np.testing.assert_array_equal(flatten(select_parameters(subject.model)).detach().numpy(), weights)


def test_trajectories_of_several_runs_share_a_plane(runs, tmp_path, capsys):
    options = ["--points", 3, "--every", 2, "--origin", "mean", "--out", tmp_path]
    assert run(capsys, "trajectory", runs / "bp", runs / "fa", *options)[0] == 0
    frame = pd.read_csv(tmp_path / "trajectory.csv")
    assert frame.groupby("checkpoint").rule.first().tolist() == ["bp", "fa"]
    np.testing.assert_allclose(frame[["alpha", "beta"]].mean(), 0, atol=1e-6)  # about the mean of all snapshots
    starts = frame.groupby("checkpoint")[["step", "alpha", "beta"]].last()
    assert starts.step.max() == starts.step.min()
    assert abs(starts.alpha.diff().iloc[1]) > 0.01
    sidecar = json.loads((tmp_path / "trajectory.json").read_text())
    assert len(sidecar["explained_variance_ratio"]) == len(sidecar["baseline"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("bare", "no trajectory.npy and no trajectory.json"), ("nowhere", "nowhere"), ("bp/ckpt.pt", "is a file")],
)
def test_trajectory_refuses_in_one_line_and_writes_nothing(runs, tmp_path, capsys, name, message):
    status, _, err = run(capsys, "trajectory", runs / name, "--out", tmp_path / "out")
    assert status == 2
    assert err.startswith("analyze: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
