"""``analyze train --monitor hessian``: the weights are those of a run without, and a kill changes no byte."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_stack import Killed, assert_same_run, kill_at
from torch import nn
from torch.nn import functional as F

from landscape import top_eigenpairs
from reports.cli import main
from reports.page.collect import batches, find_tables
from reports.page.sections import sections
from reports.schema import CURVATURE
from reports.tables import check_columns, read_table
from training import clock
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.data import Normalise, load_dataset
from training.loop import train, train_many
from training.models import MODELS
from training.rules import RULES
from training.run_folder import RunFolder
from training.stack import Stack

MONITOR = {"monitor": "hessian", "monitor_every": 3, "monitor_samples": 40, "monitor_k": 2}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_size=160)


def config(**fields) -> TrainConfig:
    return TrainConfig(**{"hidden": (7, 6), "epochs": 2, "batch_size": 32, "lr": 1e-2, "train_size": 160, **fields})


def table(run: RunFolder) -> pd.DataFrame:
    return read_table(run.path / "curvature.csv", CURVATURE)


@pytest.mark.parametrize("rule", RULES)
def test_the_weights_come_out_the_same_bit_for_bit(digits, tmp_path, rule):
    plain = train(config(rule=rule, mirror_steps=2 if rule == "wm" else 0), digits, tmp_path / "plain")
    watched = train(config(rule=rule, mirror_steps=2 if rule == "wm" else 0, **MONITOR), digits, tmp_path / "watched")
    assert_same_run(plain.path, watched.path)
    frame = table(watched)
    check_columns(frame, CURVATURE)
    assert frame["step"].tolist() == [0, 3, 6, 9]
    assert frame["epoch"].tolist() == pytest.approx([0, 0.6, 1.2, 1.8])
    assert frame["update_cosine"].notna().all() == (rule != "bp")
    assert frame["preconditioned_eigenvalue"].isna().tolist() == [True, False, False, False]


def test_dropout_noise_and_batch_norm_come_out_the_same(digits, tmp_path, monkeypatch):
    def build(config, shape, classes):
        layers = nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, classes)
        return nn.Sequential(nn.Flatten(), *layers)

    monkeypatch.setitem(MODELS, "dropping", build)
    fields = {"model": "dropping", "rule": "fa", "noise_epochs": 1, "snapshot_every": 2, "optimiser": "sgd"}
    plain = train(config(**fields), digits, tmp_path / "plain")
    watched = train(config(**fields, **MONITOR), digits, tmp_path / "watched")
    assert_same_run(plain.path, watched.path)
    assert table(watched)["step"].tolist() == [0, 3, 6, 9]  # none on noise


def test_a_row_is_what_the_analysis_finds_at_the_checkpoint(digits, tmp_path):
    """On the same samples: the first 40 of the subset by seed 0. Of the true loss, whatever the rule."""
    run = train(config(rule="fa", checkpoint_every=1, **{**MONITOR, "monitor_every": 5}), digits, tmp_path)
    samples = digits.train.subset(40, 0)
    data = Normalise(digits.mean, digits.std)(samples.images), samples.labels
    for epoch, row in table(run).iterrows():
        model = load_checkpoint(run.epoch_checkpoint(epoch)).plain_model()
        pairs = top_eigenpairs(model, F.cross_entropy, data, k=2, tol=1e-6)
        assert row["eigenvalue"] == pytest.approx(pairs.frame()["value"][0], rel=1e-4)
        assert row["eigenvalue_2"] == pytest.approx(pairs.frame()["value"][1], rel=1e-4)
        gradients = torch.autograd.grad(F.cross_entropy(model(data[0]), data[1]), list(model.parameters()))
        g = torch.cat([part.flatten() for part in gradients])
        assert row["gradient_norm"] == pytest.approx(float(g.norm()), rel=1e-4)
        assert row["alignment"] == pytest.approx(float((pairs.vectors @ g).norm() / g.norm()) ** 2, abs=1e-3)


def test_the_update_of_a_rule_with_true_feedback_is_the_gradient(digits, tmp_path):
    run = train(config(rule="ifa", angle=0, **{**MONITOR, "monitor_every": 20}), digits, tmp_path)
    first = table(run).iloc[0]
    assert first["update_cosine"] == pytest.approx(1, abs=1e-5)
    assert first["update_alignment"] == pytest.approx(first["alignment"], abs=1e-4)


@pytest.mark.parametrize("steps", [3, 7])
def test_killed_and_resumed_the_table_is_the_same_byte_for_byte(digits, tmp_path, monkeypatch, steps):
    cfg = config(rule="fa", **MONITOR)
    whole = train(cfg, digits, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(clock, "RESUME_SHARE", 1e9)  # a resume point after every step
        kill_at(patch, Stack, "train_step", steps + 1)
        with pytest.raises(Killed):
            train(cfg, digits, tmp_path / "cut")
    cut = train(cfg, digits, tmp_path / "cut")
    assert_same_run(cut.path, whole.path)
    assert (cut.path / "curvature.csv").read_bytes() == (whole.path / "curvature.csv").read_bytes()


def test_each_network_of_a_stack_has_its_own_also_after_a_kill(digits, tmp_path, monkeypatch):
    """The third diverges, and leaves."""
    fields = {"rule": "fa", "optimiser": "sgd", **MONITOR}
    configs = [config(**fields, seed=seed, lr=lr) for seed, lr in enumerate((0.01, 0.02, 1e8))]

    def jobs(folder: str) -> list[tuple[TrainConfig, Path]]:
        return [(one, tmp_path / folder / str(i)) for i, one in enumerate(configs)]

    whole = train_many(jobs("whole"), digits, stack=3)
    with monkeypatch.context() as patch:
        patch.setattr(clock, "RESUME_SHARE", 1e9)
        kill_at(patch, Stack, "train_step", 5)
        with pytest.raises(Killed):
            train_many(jobs("cut"), digits, stack=3)
    cut = train_many(jobs("cut"), digits, stack=3)
    for one, other in zip(whole, cut, strict=True):
        assert (one.path / "curvature.csv").read_bytes() == (other.path / "curvature.csv").read_bytes()
    for i in (0, 1):
        alone = table(train(configs[i], digits, tmp_path / f"alone-{i}"))
        pd.testing.assert_frame_equal(
            table(whole[i]).drop(columns="n_products"), alone.drop(columns="n_products"), rtol=1e-2, atol=1e-3
        )
        assert table(whole[i])["threshold"].iloc[0] == pytest.approx(3.8 / configs[i].lr)
    lost = table(whole[2])
    assert lost["eigenvalue"].notna().tolist()[0]
    assert lost["eigenvalue"].isna().tolist()[-1]


def test_without_every_the_share_decides(digits, tmp_path):
    """A share of 1 measures at every step; next to none, once."""
    by_share = {"monitor": "hessian", "monitor_samples": 40, "monitor_k": 2}
    often = train(config(**by_share, monitor_share=1.0), digits, tmp_path / "often")
    once = train(config(**by_share, monitor_share=1e-9), digits, tmp_path / "once")
    assert table(often)["step"].tolist() == list(range(11))
    assert table(once)["step"].tolist() == [0]
    assert_same_run(often.path, once.path)
    done = json.loads((often.path / "done.json").read_text())
    assert done["monitor"]["measurements"] == 11
    assert 0 < done["monitor"]["share"] < 1
    assert "curvature.csv" in done["files"]


SMALL = ["train", "--hidden", "8", "--train-size", "100", "--batch-size", "50", "--epochs", "2", "--device", "cpu"]
FLAGS = ["--monitor", "hessian", "--monitor-every", "2", "--monitor-samples", "50", "--monitor-k", "2"]


def test_the_command_says_what_it_took_and_the_page_shows_it(tmp_path, capsys):
    assert main([*SMALL, *FLAGS, "--seeds", "0..1", "--rule", "fa", "--out", str(tmp_path / "runs")]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("curvature: 3 measurements a run, ")
    assert last.endswith(" % of the time")
    (batch,) = batches(find_tables(tmp_path / "runs"), "curvature")
    assert set(batch.frame["rule"]) == {"fa"}
    assert set(batch.frame["seed"]) == {0, 1}
    figure = sections()["curvature"].drawings[0].figure({"curvature": batch.frame}, "curvature")
    assert "cosine" in [axes.get_ylabel() for axes in figure.axes]


def test_the_store_keeps_it_with_the_run(tmp_path):
    assert main([*SMALL, *FLAGS, "--quiet", "--store", str(tmp_path / "store")]) == 0
    assert main([*SMALL, "--quiet", "--store", str(tmp_path / "store")]) == 0
    tables = list((tmp_path / "store").rglob("curvature.csv"))
    assert len(tables) == 1
    runs = list((tmp_path / "store").rglob("done.json"))
    assert len(runs) == 2  # like snapshots, a monitor is part of the key
    assert_same_run(*(run.parent for run in runs))
    assert main(["runs", "verify", "--store", str(tmp_path / "store"), "--quiet"]) == 0


@pytest.mark.parametrize(("k", "what"), [("900", "training needs"), ("100", "a search for 100 eigenvectors needs")])
def test_a_search_that_no_memory_holds_is_refused_before_anything_is_made(tmp_path, capsys, monkeypatch, k, what):
    monkeypatch.setattr("alignscape.memory.free_memory", lambda device=None: 4_000_000)
    wide = ["--hidden", "100", "--optimiser", "sgd", "--rule", "bp", "--monitor", "hessian", "--monitor-k"]
    others = [word for word in SMALL if word not in ("--hidden", "8")]  # given twice it is a sweep
    assert main([*others, *wide, k, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert "--monitor-k" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [["--monitor-every", "5"], ["--monitor-k", "2"], [*FLAGS, "--monitor-share", ".1"]])
def test_flags_without_effect_are_refused(tmp_path, capsys, flags):
    assert main([*SMALL, *flags, "--out", str(tmp_path / "run")]) == 2
    assert "--monitor hessian" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
