"""``analyze train``: what a command line asks for, where it goes, and what is shown meanwhile."""

import errno
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignscape.errors import InputError
from alignscape.settings import Setting, settings_of
from reports.cli import main
from reports.commands.train_flags import config_text
from reports.flags import givable, read_toml
from reports.trainer import configs_of, idle_in
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.names import run_name, run_names
from training.rules import RULES, option_owners
from training.run_folder import RunFolder

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
        (["--feedback-density", "0.5"], "fa, dfa, pfa, pfa-o, usf, frsf, brsf"),
        (["--mirror-noise", "uniform"], "wm"),
        (["--angle", "0"], "ifa"),
        (["--mirror-decay", "0.01"], "wm"),
        (["--pal-noise", "0.01"], "pal"),
        (["--backward-scale", "1", "2"], "fa, ifa, dfa, pfa, pfa-o, usf, frsf, brsf, kp, pal, wm"),
    ],
)
def test_a_flag_that_the_rule_would_not_heed_is_refused(flags, owners, tmp_path, capsys):
    assert main([*SMALL, "--rule", "bp", *flags, "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"analyze: error: {flags[0]} belongs to --rule {owners}; bp does not use it\n"
    assert not (tmp_path / "run").exists()


IDLE = [
    (["--momentum", "0.9"], "--momentum has an effect with --optimiser sgd only"),
    (["--optimiser", "adam", "--momentum", "0.5"], "--momentum has an effect with --optimiser sgd only"),
    (["--network", "lenet", "--hidden", "8"], "--hidden has an effect with --network mlp only"),
    (["--lr-gamma", "0.1"], "--lr-gamma has an effect with --lr-steps only"),
    (["--subset-seed", "0"], "--subset-seed has an effect with --train-size or --validation only"),
    (["--snapshot-dtype", "float32"], "--snapshot-dtype has an effect with --snapshot-every only"),
    (["--snapshot-sketch", "0"], "--snapshot-sketch has an effect with --snapshot-every only"),
    (["--rule", "ifa", "--alignment", "exact"], "--alignment has an effect with an --angle between 0 and 180 only"),
    (["--workers", "2"], "--workers has an effect with --executor ray only"),
    (["--ray-address", "auto"], "--ray-address has an effect with --executor ray only"),
]


@pytest.mark.parametrize(("flags", "message"), IDLE)
def test_a_flag_without_effect_is_refused_even_at_its_default(flags, message, tmp_path, capsys):
    for where in ("--out", "--store"):
        assert main(["train", "--epochs", "1", *flags, where, str(tmp_path / "run")]) == 2
        assert capsys.readouterr().err == f"analyze: error: {message}: leave it out\n"
    assert list(tmp_path.iterdir()) == []


def test_figures_refuse_ray_s_flags_without_ray(tmp_path, capsys):
    for flags in (["--workers", "2"], ["--ray-address", "auto"]):
        given = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
        assert main(["figures", "--profile", "smoke", *flags, *given]) == 2
        assert capsys.readouterr().err.startswith(f"analyze: error: {flags[0]} has an effect with --executor ray only")
    assert list(tmp_path.iterdir()) == []


def test_alignment_is_heeded_where_one_angle_of_a_sweep_heeds_it(tmp_path):
    flags = ["--rule", "ifa", "--angles", "0", "30", "--alignment", "exact", "--quiet", "--out", str(tmp_path)]
    assert main([*SMALL, *flags]) == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "1e-3", "nan"], "lr is nan; it must be finite"),
        (["--lr", "inf"], "lr is inf; it must be finite"),
        (["--weight-decay", "inf"], "weight_decay is inf; it must be finite"),
        (["--first-epoch-weight-decay", "1e400"], "first_epoch_weight_decay is inf; it must be finite"),
        (["--rule", "wm", "--mirror-rate", "inf"], "mirror_rate is inf; it must be finite"),
        (["--rule", "ifa", "--angle", "nan"], "angle is nan; it must be finite"),
        (["--forward-scale", "1e39"], "forward_scale is 1e+39; it must be finite in float32"),
        (["--lr-steps", "0"], "lr_steps is 0; it must be at least 1"),
        (["--lr-steps", "1", "--lr-gamma", "-1"], "lr_gamma is -1; it must be positive"),
        (["--seed", "-1"], "seed is -1; it must not be negative"),
        (["--hidden", "1000000000000"], "hidden is 1000000000000; it must be at least 1 unit, and at most 1000000"),
        (["--rule", "pfa", "--expansion", "20000"], "expansion is 20000; it must be at least 1, and at most 10000"),
        (["--snapshot-every", "1", "--snapshot-sketch", "20000"], "it must be at least 0, and at most 10000"),
    ],
)
def test_numbers_that_no_training_survives_are_refused_before_anything_is_written(flags, message, tmp_path, capsys):
    assert main([*SMALL, *flags, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_no_one_means_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*SMALL, "--seeds", "0..1000000000000"])
    assert "has more than 100000 seeds" in capsys.readouterr().err


def test_a_config_of_old_with_a_setting_without_effect_still_loads():
    for old in ({"momentum": 0.5}, {"angle": 30.0}, {"snapshot_dtype": "float16"}, {"model": "lenet", "hidden": [4]}):
        assert TrainConfig.from_dict(old).to_dict().items() >= old.items()


def test_help_says_which_rules_read_an_option():
    """Their names stand before the explanation, in the order of the registry."""
    for option in {option for rule in RULES.values() for option in rule.options}:
        names, _, _ = settings_of(TrainConfig)[option].help.partition(":")
        owners = set(names.split(", ")) if names != "all but bp" else RULES.keys() - {"bp"}
        assert owners == set(option_owners(option)), option


def dumped(capsys, *flags: str) -> str:
    assert main(["train", *flags, "--dump-config"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


SWEEP = [
    *("--rule", "ifa", "--angles", "30", "60", "--alignment", "exact", "--seeds", "1..2", "--optimiser", "sgd"),
    *("--momentum", "0.5", "--lr", "0.01", "--lr-steps", "1", "--hidden", "8", "--train-size", "200", "--epochs", "2"),
]


def test_a_run_of_a_dumped_file_is_the_run_of_the_flags(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text(dumped(capsys, *SWEEP))
    common = ["--quiet", "--device", "cpu", "--store", str(tmp_path / "store")]
    assert main(["train", *SWEEP, *common]) == 0
    assert capsys.readouterr().err == "4 trained, 0 there already\n"
    assert main(["train", "--config", str(file), *common]) == 0
    assert capsys.readouterr().err == "0 trained, 4 there already\n"


def test_a_dump_writes_a_file_of_every_field_and_nothing_else(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SWEEP, "--dump-config", "new/run.toml", "--out", "out", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert [path.as_posix() for path in Path().rglob("*")] == ["new", "new/run.toml"]
    text = Path("new/run.toml").read_text()
    for name, one in givable(TrainConfig).items():
        assert re.search(rf"^(# )?{name} = ", text, re.M), name
        assert " ".join(one.help.split()) in " ".join(text.replace("\n# ", " ").split()), name
    found = tomllib.loads(text)
    assert found["angle"] == [30, 60]
    assert found["seed"] == [1, 2]
    assert {"expansion", "mirror_rate", "first_epoch_weight_decay"}.isdisjoint(found)
    assert dumped(capsys, "--config", "new/run.toml") == text


def test_flags_win_over_the_file(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text('rule = "fa"\nseed = "0..3"\nlr = [0.1, 0.2]\nmodel = "lenet"\n')
    found = tomllib.loads(dumped(capsys, "--config", str(file), "--rule", "dfa", "--lr", "0.3"))
    assert (found["rule"], found["seed"], found["lr"], found["model"]) == ("dfa", [0, 1, 2, 3], 0.3, "lenet")


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("momentum = 0.9", [], "momentum in FILE has an effect with --optimiser sgd only: leave it out"),
        ("momentum = 0.9", ["--momentum", "0.9"], "--momentum has an effect with --optimiser sgd only: leave it out"),
        ("angle = 30", [], "angle in FILE belongs to --rule ifa; bp does not use it"),
        ("angle = 30", ["--rule", "fa"], "angle in FILE belongs to --rule ifa; fa does not use it"),
        ("rule = 'hebb'", [], "unknown rule 'hebb'; known: bp, fa"),
        ("rule = ['bp', 3]", [], "FILE: rule is 3; it must be text"),
        ("rule = ['bp', 'fa']\nangle = [0, 30]", [], "angle in FILE belongs to --rule ifa; bp, fa do not use it"),
        ("hidden = [[8], 8]", [], "FILE: hidden is 8; it must be a sequence"),
        ("lr = [[1]]", [], "FILE: lr is [1]; it must be a number"),
        ("epochs = 'none'", [], "FILE: epochs is 'none'; it must be a whole number"),
        ("warp = 1", [], "FILE has the unknown setting 'warp'; known: rule, angle"),
        ("lr = 'fast'", [], "FILE: lr is 'fast'; it must be a number"),
        ("lr", [], "FILE is not TOML"),
    ],
)
@pytest.mark.parametrize("dump", [[], ["--dump-config", "new.toml"]])
def test_what_a_file_gets_wrong_is_one_line(text, flags, message, dump, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text(text)
    assert main(["train", "--config", "FILE", *flags, *dump, "--out", "run"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"analyze: error: {message}")
    assert (out, err.count("\n")) == ("", 1)
    assert os.listdir() == ["FILE"]


def values_of(one: Setting) -> st.SearchStrategy[Any]:
    """Values that a setting may have, with ends of its range."""
    if one.choices:
        return st.sampled_from(one.choices)
    if one.kind is str:
        return st.sampled_from(sorted(RULES)) if one.name == "rule" else st.text()
    whole = st.integers(0, 2**70) | st.integers(1, 200)
    number = whole if one.kind is int else st.floats(0, 1e38) | st.floats(0, 1)
    return number.filter(lambda value: not one.problem((one.typed(value),) if one.several else one.typed(value)))


def given_values(one: Setting) -> st.SearchStrategy[Any]:
    value = values_of(one)
    return st.lists(value, min_size=0 if one.empty else 1, max_size=3).map(tuple) if one.several else value


FLAGS = {flag.removeprefix("--").replace("-", "_"): n for n, one in givable(TrainConfig).items() for flag in one.flags}
FIELDS = st.fixed_dictionaries(
    {"rule": st.sampled_from(sorted(RULES))},
    optional={name: given_values(one) for name, one in givable(TrainConfig).items() if name != "rule"},
)


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of which up to four have several values."""
    values = draw(FIELDS)
    for name in draw(st.lists(st.sampled_from(sorted(values)), unique=True, max_size=4)):
        values[name] = [
            values[name],
            *draw(st.lists(given_values(settings_of(TrainConfig)[name]), min_size=1, max_size=2)),
        ]
    return values


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sweeps())
def test_any_sweep_comes_back_from_its_file(tmp_path_factory, values):
    configs: list[TrainConfig] = []
    while not configs:  # without what is refused, of which a message names one after the other
        try:
            configs = configs_of(values)
        except InputError as error:
            name = str(error).split()[0].removeprefix("--").replace("-", "_")
            values.pop(FLAGS.get(name, name))
    assert len(set(configs)) == len(configs)
    assert len(set(run_names(configs))) == len(configs)
    alone = {config.key("d") for config in configs}
    for config in configs:  # each is what its own command line would make, but for what keys of old hold
        settled = {name: value for name, value in config.to_dict().items() if name in values}
        settled = {name: value for name, value in settled.items() if name not in idle_in(config, settled)}
        again = configs_of({**settled, "rule": config.rule})
        assert [one.key("d") for one in again] == [config.key("d")] or config.alignment != "gaussian"
    assert len(alone) == len(configs)
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(config_text(configs), encoding="utf-8")
    again = configs_of(read_toml(path, TrainConfig))
    assert again == configs


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


TOO_MUCH = [
    (["--weight-decay", "inf"], "weight_decay is inf; it must be finite"),
    (["--rule", "wm", "--mirror-rate", "inf"], "mirror_rate is inf; it must be finite"),
    (["--hidden", "9" * 23], "it must be at least 1 unit, and at most 1000000"),
    (
        ["--hidden", "1000000", "1000000"],
        "training needs 16,001 GB of memory at least (optimiser 8,001 GB, weights 4,000 GB",
    ),
    (["--rule", "pfa", "--hidden", "9000", "9000", "--expansion", "10000"], "feedback 6,484 GB, gradients 3,244 GB"),
    (["--hidden", "9000", "9000", "--snapshot-every", "1", "--snapshot-sketch", "10000"], "at least (sketch"),
    (["--rule", "wm", "--batch-size", str(10**15)], "GB of memory at least (noise"),
    (["--batch-size", "9" * 20], "it must fit into 64 bits"),
    (["--seed", str(2**63)], "it must fit into 64 bits"),
    (["--seeds", "0.."], "0.. has one end"),
    (["--seeds", "0..99999999999"], "more than 100000 seeds"),
    (["--seeds", "0..99999", "--lrs", "1", "2"], "lr x seed make 200,000 combinations"),
    (["--epochs", str(10**15), "--snapshot-every", "1"], "a trajectory of 12,000,000,000,000,001 snapshots takes"),
]


@pytest.mark.parametrize(("flags", "message"), TOO_MUCH)
def test_what_no_machine_holds_is_refused_before_anything_is_written(flags, message, tmp_path, capsys):
    epochs = [] if "--epochs" in flags else ["--epochs", "1"]
    argv = ["train", *epochs, *flags, "--quiet", "--device", "cpu", "--out", str(tmp_path / "run")]
    try:
        status = main(argv)
    except SystemExit as error:  # argparse
        status = error.code
    assert status == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_no_machine_holds_leaves_no_store(tmp_path, capsys):
    argv = ["train", "--epochs", "1", "--hidden", "900000", "900000", "--quiet", "--device", "cpu"]
    assert main([*argv, "--store", str(tmp_path / "store")]) == 2
    assert "training needs" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["write_metrics", "finish"])
def test_a_full_disk_ends_a_sweep_in_one_line(broken, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "store/runs/0/metrics.csv")

    monkeypatch.setattr(RunFolder, broken, full)
    argv = [*SMALL, "--seeds", "0", "1", "--stack", "1", "--quiet", "--store", str(tmp_path / "store")]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err == (
        "analyze: error: No space left on device: store/runs/0/metrics.csv (make room there, or give another folder)\n"
    )


def test_a_config_file_without_end_is_refused(tmp_path, capsys):
    assert main(["train", "--config", "/dev/zero", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("analyze: error: /dev/zero is no config file: it is longer than")
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_overflows_diverges(tmp_path):
    flags = ["--lr-gamma", "3e38", "--lr-steps", "1", "2", "3", "4", "5", "6", "7", "8", "9", "--epochs", "12"]
    argv = [word for word in SMALL if word not in ("--epochs",)]
    assert main([*argv[:1], "--hidden", "8", *flags, "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "done.json").read_text())["diverged"]
