"""``analyze sharpness`` and ``analyze compare --gap`` on runs of ours."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from alignscape import load
from alignscape.errors import InputError
from reports.analyses import Sharpness
from reports.analyses.sharpness import kept_checkpoints, mean_loss
from reports.cli import main
from reports.subjects import load_subject
from training import TrainConfig, load_dataset, train

FAST = {"samples": 100, "steps": 4, "draws": 3, "probes": 20, "trace_tol": 0.1, "rho": (0.05,), "adaptive_rho": (0.1,)}
MEASURES = [
    "loss", "trace", "eigenvalue", "trace_min", "eigenvalue_min", "sam", "sam_worst", "asam", "asam_worst", "keskar",
    "fisher_rao", "relative_flatness", "sigma", "sigma_magnitude",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders bp0 ... fa2, which keep every second epoch."""
    root = tmp_path_factory.mktemp("runs")
    for rule in ("bp", "fa"):
        for seed in range(3):
            config = TrainConfig(rule=rule, hidden=(8,), epochs=4, lr=1e-2, seed=seed, checkpoint_every=2)
            train(config, load_dataset("digits"), root / f"{rule}{seed}")
    return root


def test_every_measure_has_a_row_and_an_interval(runs, tmp_path):
    result = load(runs / "bp0", device="cpu").sharpness(**FAST, groups=10)
    frame = result.frame()
    whole = frame[frame["layer"] == ""]
    assert whole["measure"].tolist() == MEASURES
    assert (whole["ci_low"] < whole["value"]).all()
    assert (whole["value"] < whole["ci_high"]).all()
    assert frame.loc[frame["layer"] != "", "layer"].tolist() == ["layers.0.weight", "layers.1.weight"]
    values = whole.set_index("measure")["value"]
    assert values["trace_min"] <= values["trace"] * 1.1
    assert values["eigenvalue_min"] <= values["eigenvalue"] * 1.01
    bound = whole.set_index("measure")["bound"]["eigenvalue_min"]
    assert 0.97 * values["eigenvalue_min"] <= bound <= values["eigenvalue_min"]
    assert values["sam"] <= values["sam_worst"] * (1 + 1e-5)
    per_loss = whole.set_index("measure")["per_loss"]
    assert per_loss["trace"] == pytest.approx(values["trace"] / values["loss"])
    assert per_loss[["sigma", "sigma_magnitude", "keskar"]].isna().all()
    paths = result.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*(f"sharpness.{e}" for e in ("csv", "json", "pdf", "png"))}
    assert json.loads(paths[0].with_suffix(".json").read_text())["checks"] == []


def test_scaling_layers_changes_one_half_of_the_measures():
    torch.manual_seed(0)
    layers = torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 10)
    net, other = (torch.nn.Sequential(*(torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU(),
                                        torch.nn.Linear(12, 10))) for _ in range(2))  # fmt: skip
    net.load_state_dict(torch.nn.Sequential(*layers).state_dict())
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other[1].weight *= 10
        other[1].bias *= 10
        other[3].weight /= 10
    found = load({"net": net, "other": other}, dataset="digits", device="cpu").sharpness(**FAST, groups=0)
    frame = found.frame()
    values = frame[frame["layer"] == ""].pivot_table(index="measure", columns="checkpoint", values="value")
    ratios = values["other"] / values["net"]
    for measure in ("trace_min", "eigenvalue_min", "asam", "asam_worst", "fisher_rao", "sigma_magnitude"):
        assert ratios[measure] == pytest.approx(1, rel=0.1), measure
    assert ratios["relative_flatness"] == pytest.approx(1, rel=0.25)  # probes of their own
    for measure in ("trace", "eigenvalue", "sam", "keskar", "sigma"):
        assert abs(math.log(ratios[measure])) > 0.3, measure
    assert frame[["ci_low", "ci_high"]].loc[frame["measure"] == "sam"].isna().all(axis=None)


def test_what_cannot_be_rescaled_is_named():
    nets = {
        name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), between, torch.nn.Linear(8, 10))
        for name, between in (("tanh", torch.nn.Tanh()), ("gelu", torch.nn.GELU()))
    }
    found = load(nets, dataset="digits", device="cpu").sharpness(samples=100, measures=["rescaled"])
    frame = found.frame()
    assert frame.loc[frame["measure"] == "trace_min", "value"].isna().all()
    told = str(found).splitlines()
    assert any(line.startswith("tanh: ") and "2, a Tanh, is not positively homogeneous" in line for line in told)
    assert any(line.startswith("gelu: ") and "2, a GELU, is not positively homogeneous" in line for line in told)
    assert [row["checkpoint"] for row in found.origin["checks"]] == ["tanh", "gelu"]


def test_at_loss_takes_the_first_checkpoint_that_has_it(runs, tmp_path):
    run = runs / "bp1"
    losses = {}
    for file in kept_checkpoints(run):
        subject = load_subject(file, split="train", samples=100, device="cpu")
        losses[subject.columns["epoch"]] = mean_loss(subject)
    assert list(losses)[:3] == [0, 2, 4]
    level = (losses[0] + losses[2]) / 2
    with pytest.warns(UserWarning, match="kept no checkpoint between epochs 0 and 2"):
        found = (
            load(run, device="cpu").sharpness(samples=100, at_loss=level, measures=["fisher-rao"], groups=10).frame()
        )
    assert set(found["epoch"]) == {2}
    assert set(found["checkpoint"]) == {str(run)}
    assert found["value"].iloc[0] == pytest.approx(losses[2], rel=1e-5)
    with pytest.raises(InputError, match=r"no checkpoint that .*bp1 kept has a loss of 0.001 or less: the lowest is"):
        load(run, device="cpu").sharpness(samples=100, at_loss=1e-3)
    with pytest.raises(InputError, match="is no run folder"):
        load(run / "checkpoints" / "epoch-0002.pt", device="cpu").sharpness(at_loss=1.0)
    Sharpness.stored(tmp_path, {"checkpoint": run / "ckpt.pt"}, device="cpu", data_root=None, samples=50, at_loss=1e-3)
    assert pd.read_csv(tmp_path / "sharpness.csv").empty


def test_gaps_are_correlated_with_what_was_measured(runs, tmp_path, capsys):
    folders = [str(runs / f"{rule}{seed}") for rule in ("bp", "fa") for seed in range(3)]
    cheap = ["--samples", "100", "--measures", "fisher-rao", "trace", "--groups", "0", "--device", "cpu", "--quiet"]
    assert main(["sharpness", *folders, *cheap, "--out", str(tmp_path)]) == 0
    tables = ["--tables", str(tmp_path / "sharpness.csv"), "--gap", "--attack"]
    assert main(["compare", *folders, *tables, "--out", str(tmp_path), "--device", "cpu", "--quiet"]) == 0
    found = pd.read_csv(tmp_path / "gap.csv")
    assert {"gap.csv", "gap.json", "gap.pdf", "gap.png"} <= {path.name for path in tmp_path.iterdir()}
    assert set(found["over"]) == {"all", "bp", "fa", "psi, rule"}
    gaps, measured = [], pd.read_csv(tmp_path / "sharpness.csv")
    for folder in folders:
        ends = {}
        for split in ("train", "test"):
            subject = load_subject(Path(folder), split=split, device="cpu")
            ends[split] = torch.nn.functional.cross_entropy(subject.model(subject.inputs()), subject.labels).item()
        gaps.append(ends["test"] - ends["train"])
    values = measured[measured["measure"] == "trace"].set_index("checkpoint")["value"].loc[folders]
    row = found[(found["quantity"].str.startswith("sharpness trace")) & (found["gap"] == "loss")].set_index("over")
    assert row.loc["all", "tau"] == pytest.approx(stats.kendalltau(values, gaps).statistic, abs=1e-6)
    assert row.loc["fa", "tau"] == pytest.approx(stats.kendalltau(values[3:], gaps[3:]).statistic, abs=1e-6)
    same = [np.sign(values.iloc[k] - values.iloc[k + 3]) * np.sign(gaps[k] - gaps[k + 3]) for k in range(3)]
    assert row.loc["psi, rule", "tau"] == pytest.approx(np.mean(same), abs=1e-6)
    assert (found.loc[found["over"] == "all", ["n_runs", "n_seeds"]] == [6, 3]).all(axis=None)
    assert "rank correlation with the generalisation gap" in capsys.readouterr().out


def test_what_sharpness_does_not_measure_is_no_setting_of_it(runs, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sharpness", str(runs / "bp0"), "--by", "layer"])
    assert ended.value.code == 2
    assert "--by" in capsys.readouterr().err


def test_a_gap_needs_tables_and_runs(runs, tmp_path, capsys):
    assert main(["compare", str(runs / "bp0"), str(runs / "fa0"), "--gap", "--device", "cpu"]) == 2
    assert "--gap has an effect with --tables only" in capsys.readouterr().err
    on_training_set = ["--gap", "--tables", "x.csv", "--split", "train", "--device", "cpu"]
    assert main(["compare", str(runs / "bp0"), str(runs / "fa0"), *on_training_set]) == 2
    assert "leave --split at test" in capsys.readouterr().err
    cheap = ["--samples", "50", "--measures", "rescaled", "--groups", "0", "--device", "cpu", "--quiet"]
    assert main(["sharpness", str(runs / "fa0"), *cheap, "--out", str(tmp_path)]) == 0
    two = [str(runs / "bp0"), str(runs / "fa0"), "--tables", str(tmp_path / "sharpness.csv"), "--attack", "--gap"]
    assert main(["compare", *two, "--device", "cpu", "--quiet", "--out", str(tmp_path)]) == 2
    assert "give three or more, not 2" in capsys.readouterr().err
    assert not (tmp_path / "gap.csv").exists()
