"""``analyze train``: what a command line asks for, where it goes, and what is shown meanwhile."""

import sys

import pytest

from reports.cli import main
from reports.commands.train import run_name
from training.checkpoint import load_checkpoint
from training.config import TrainConfig

SMALL = ["train", "--hidden", "8", "--train-size", "200", "--batch-size", "50", "--epochs", "2", "--device", "cpu"]


def test_a_sweep_trains_as_one_stack_in_named_folders(tmp_path, capsys):
    sweep = ["--seeds", "0..1", "--lr", "1e-3", "0.01", "--weight-decay", "0", "1e-3", "--stack", "8"]
    assert main([*SMALL, *sweep, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    configs = {run.name: load_checkpoint(run / "ckpt.pt").config for run in tmp_path.iterdir()}
    expected = {
        f"digits-bp-lr{lr:g}-wd{decay:g}-seed{seed}": (lr, decay, seed)
        for lr in (1e-3, 0.01)
        for decay in (0, 1e-3)
        for seed in (0, 1)
    }
    assert {name: (c.lr, c.weight_decay, c.seed) for name, c in configs.items()} == expected
    assert err.splitlines()[0] == "8 networks, 8 at a time: as asked for"
    assert "and 7 more: epoch 1/2  loss 2." in err
    assert err.splitlines()[-1].endswith("0 s left")
    assert len(out.splitlines()) == 1 + 8


def test_what_does_not_vary_is_not_in_the_names(tmp_path):
    assert main([*SMALL, "--seeds", "3..4", "--lr", "0.01", "--quiet", "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits-bp-seed3", "digits-bp-seed4"]


def test_the_display_counts_networks_over_all_stacks(tmp_path, capsys):
    assert main([*SMALL, "--seeds", "0..2", "--stack", "2", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "3 networks, 2 at a time: as asked for"
    assert [line.split(":")[0] for line in lines[1:]] == [
        *["[2/3] digits-bp-seed0 and 1 more"] * 2,
        *["[3/3] digits-bp-seed2"] * 2,
    ]


def test_quiet_shows_results_only(tmp_path, capsys):
    assert main([*SMALL, "--seeds", "0..2", "--quiet", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1 + 3


def test_a_terminal_shows_a_bar_with_loss_accuracy_and_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([*SMALL, "--out", str(tmp_path / "run")]) == 0
    err = capsys.readouterr().err
    assert "run: epoch 1/2" in err
    assert " 50 %" in err
    assert "loss 2." in err
    assert "test 0." in err
    assert "00:00 left" in err


def test_scales_of_both_directions_are_swept(tmp_path):
    scales = ["--forward-scale", "1", "2", "--backward-scale", "0.5", "1.5"]
    assert main([*SMALL, "--rule", "fa", *scales, "--quiet", "--out", str(tmp_path)]) == 0
    found = {
        (c.forward_scale, c.backward_scale) for c in (load_checkpoint(r / "ckpt.pt").config for r in tmp_path.iterdir())
    }
    assert found == {(1, 0.5), (1, 1.5), (2, 0.5), (2, 1.5)}
    assert (tmp_path / "digits-fa-forward2-backward0.5-seed0").is_dir()


@pytest.mark.parametrize(
    ("flags", "owners"),
    [
        (["--mirror-rate", "0.5"], "wm"),
        (["--alignment", "exact"], "ifa"),
        (["--expansion", "3"], "pfa"),
        (["--feedback-density", "0.5"], "fa, dfa, pfa, pfa-o"),
    ],
)
def test_a_flag_that_the_rule_would_not_heed_is_refused(flags, owners, tmp_path, capsys):
    assert main([*SMALL, "--rule", "bp", *flags, "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"analyze: error: {flags[0]} belongs to --rule {owners}; bp does not use it\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", ["0", "-2", "many"])
def test_a_stack_size_is_a_number_or_auto(size, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*SMALL, "--stack", size, "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert "--stack" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_names_of_runs_tell_networks_apart():
    assert run_name(TrainConfig(rule="ifa", angle=45.0)) == "digits-ifa45-seed0"
    assert run_name(TrainConfig(model="lenet")) == "digits-lenet-bp-seed0"
    assert run_name(TrainConfig(model="torchvision:resnet18")) == "digits-torchvision-resnet18-bp-seed0"
