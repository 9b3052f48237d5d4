"""``analyze alignment`` end to end on runs over the bundled digits."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from reports import figures
from reports.cli import main
from training.angles import alignment
from training.checkpoint import load_checkpoint
from training.rules import make_rule


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    common = ["--dataset", "digits", "--hidden", "12", "10", "--epochs", "2", "--lr", "3e-3", "--quiet"]
    for name, rule, seed, every in (("bp", "bp", 0, 1), ("fa", "fa", 0, 1), ("fa1", "fa", 1, 1), ("bare", "pfa", 0, 0)):
        flags = ["--rule", rule, "--seed", str(seed), "--checkpoint-every", str(every)]
        assert main(["train", "--out", str(root / name), *flags, *common]) == 0
    return root


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([*map(str, arguments), "--quiet", "--device", "cpu"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_table_over_training(runs, tmp_path, capsys):
    status, out, _ = run(capsys, "alignment", runs / "bp", runs / "fa", runs / "fa1", "--out", tmp_path)
    assert status == 0
    assert "alignment.csv" in out
    frame = pd.read_csv(tmp_path / "alignment.csv")
    first = ["checkpoint", "rule", "angle", "seed", "epoch", "layer", "row_angle", "flat_angle", "norm_ratio"]
    assert frame.columns[: len(first)].tolist() == first
    assert frame.groupby("checkpoint")["epoch"].unique().map(list).tolist() == [[0, 1, 2]] * 3
    bp = frame[frame["rule"] == "bp"]
    np.testing.assert_allclose(bp["gradient_cosine"], 1, atol=1e-6)
    assert bp[["row_angle", "norm_ratio"]].isna().all(axis=None)
    metrics = pd.read_csv(runs / "fa" / "metrics.csv")
    fa = frame[(frame["checkpoint"] == str(runs / "fa")) & (frame["layer"] == "layers.1")]
    np.testing.assert_allclose(fa["row_angle"], metrics["angle_layers.1"], rtol=1e-6)
    np.testing.assert_allclose(fa["norm_ratio"], metrics["norm_ratio_layers.1"], rtol=1e-6)
    assert (fa["gradient_cosine_low"] < fa["gradient_cosine"]).all()
    assert (fa["gradient_cosine"] < fa["gradient_cosine_high"]).all()
    assert fa["n_samples"].unique().tolist() == [1437 // 128 * 128]
    sidecar = json.loads((tmp_path / "alignment.json").read_text())
    assert len(sidecar["checkpoint_files"][str(runs / "fa")]) == 3
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"alignment.{suffix}").is_file()


def test_path_through_two_matrices_comes_from_the_checkpoint(runs, tmp_path, capsys):
    status, _, err = run(capsys, "alignment", runs / "bare", "--samples", 128, "--out", tmp_path)
    assert status == 0
    assert "final checkpoint only: train with --checkpoint-every 1" in err
    frame = pd.read_csv(tmp_path / "alignment.csv").set_index("layer")
    assert frame["epoch"].unique().tolist() == [2]
    checkpoint = load_checkpoint(runs / "bare" / "ckpt.pt")
    weight, fixed, plastic = (
        {**checkpoint.model, **checkpoint.feedback}[f"layers.1.{name}"]
        for name in ("weight", "feedback", "feedback_plastic")
    )
    assert frame.loc["layers.1", "row_angle"] == pytest.approx(alignment(weight, fixed @ plastic).row_angle, rel=1e-5)
    assert make_rule(checkpoint.config).name == "pfa"
    assert frame["gradient_cosine_low"].isna().all()  # 128 samples are one mini-batch


def test_figure_has_a_row_for_each_measure_and_the_layers_in_order(runs, tmp_path, capsys):
    assert run(capsys, "alignment", runs / "fa", runs / "fa1", "--samples", 300, "--out", tmp_path)[0] == 0
    figure = figures.alignment(pd.read_csv(tmp_path / "alignment.csv"))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    titles = [axes.get_title(loc="left").split("  ")[-1] for axes in shown]
    assert titles[:2] == ["layers.1", "layers.2"]
    assert titles[-4:] == ["layers.0", "layers.1", "layers.2", "all parameters"]
    assert len({axes.get_ylabel() for axes in shown} - {""}) == 5, "said once for each row"
    assert all(axes.collections for axes in shown)  # a band over the two seeds


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "no checkpoint"), ("foreign.pt", "not a"), ("state.pt", "state.pt is no checkpoint of ours")],
)
def test_refuses_in_one_line_and_writes_nothing(runs, tmp_path, capsys, name, message):
    (runs / "foreign.pt").write_bytes(b"hello")
    torch.save(torch.nn.Linear(2, 2).state_dict(), runs / "state.pt")
    status, _, err = run(capsys, "alignment", runs / name, "--out", tmp_path / "out")
    assert status == 2
    assert err.startswith("analyze: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverged_shows_what_came_before(tmp_path, capsys):
    flags = ["--rule", "fa", "--hidden", "8", "--epochs", "3", "--optimiser", "sgd", "--lr", "1e20", "--quiet"]
    assert main(["train", *flags, "--checkpoint-every", "1", "--out", str(tmp_path / "run")]) == 0
    assert run(capsys, "alignment", tmp_path / "run")[0] == 0
    assert pd.read_csv(tmp_path / "run" / "alignment.csv")["epoch"].unique().tolist() == [0]
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    status, _, err = run(capsys, "alignment", tmp_path / "run", "--force")
    assert status == 2
    assert f"{tmp_path / 'run'}: the weights hold NaN or infinity" in err
    assert (
        main(["train", "--rule", "fa", "--hidden", "8", "--epochs", "1", "--quiet", "--out", str(tmp_path / "b")]) == 0
    )
    status, _, err = run(capsys, "alignment", tmp_path / "run", tmp_path / "b", "--out", tmp_path / "both")
    assert status == 0
    assert f"{tmp_path / 'run'} is left out: its training diverged" in err
    assert set(pd.read_csv(tmp_path / "both" / "alignment.csv")["checkpoint"]) == {str(tmp_path / "b")}
