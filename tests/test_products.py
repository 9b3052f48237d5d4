"""Sweeps of any setting: which runs they make, what is refused, what is told, and what the runs are called."""

import dataclasses
import re
import tomllib

import pytest

from alignscape.errors import InputError
from alignscape.settings import settings_of
from reports.cli import main
from reports.figures.series import series_of
from reports.page.collect import find_tables
from reports.tables import read_table
from reports.trainer import configs_of, root_for, sweep_of, told, train_configs
from training.config import TrainConfig
from training.names import LONGEST, run_names, without_seed
from training.rules import option_owners
from training.run_folder import RunFolder

SMALL = ["train", "--train-size", "60", "--epochs", "1", "--device", "cpu", "--quiet"]


def dumped(capsys, *flags: str) -> dict:
    assert main(["train", *flags, "--dump-config"]) == 0
    return tomllib.loads(capsys.readouterr().out)


def test_what_has_no_effect_is_left_out_and_equal_runs_are_one():
    sweep = sweep_of({"rule": ["bp", "ifa", "fa"], "angle": [0, 30], "backward_scale": 2.0})
    plain, scaled = TrainConfig(rule="bp"), {"backward_scale": 2.0}
    assert sweep.made == [
        plain, TrainConfig(rule="ifa", angle=0, **scaled), TrainConfig(rule="ifa", angle=30, **scaled),
        TrainConfig(rule="fa", **scaled),
    ]  # fmt: skip
    assert sweep.made[0].key("d") == configs_of({"rule": "bp"})[0].key("d")
    assert told(sweep) == "4 runs of 6 combinations: --angle left out where without effect"
    assert told(sweep_of({"rule": ["bp", "fa"]})) == ""


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"optimiser": ["adam", "sgd"], "momentum": [0.5, 0.9]}, [("adam", 0.9), ("sgd", 0.5), ("sgd", 0.9)]),
        ({"snapshot_every": [0, 5], "snapshot_sketch": [8]}, [(0, 0), (5, 8)]),  # together 0 and 8 would be refused
        ({"train_size": ["none", 50], "subset_seed": [1, 2]}, [(None, 0), (50, 1), (50, 2)]),
        ({"hidden": [[], [8], (8, 8)], "model": ["mlp", "lenet"]},
         [((), "mlp"), ((512, 512), "lenet"), ((8,), "mlp"), ((8, 8), "mlp")]),
        # Given once, alignment is in the keys of old even where angles make it none; given twice, it was not to be had.
        ({"rule": "ifa", "angle": [0, 30], "alignment": "exact"}, [(0.0, "exact"), (30.0, "exact")]),
        ({"rule": "ifa", "angle": [0, 30], "alignment": ["gaussian", "exact"]},
         [(0.0, "gaussian"), (30.0, "gaussian"), (30.0, "exact")]),
    ],
)  # fmt: skip
def test_products(values, wanted):
    names = [name for name in values if name != "rule"]
    names.sort(key=list(values).index)
    found = [tuple(getattr(config, name) for name in names) for config in configs_of(values)]
    assert sorted(found, key=str) == sorted(wanted, key=str)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": ["bp", "fa"], "angle": [0, 30]}, "--angle belongs to --rule ifa; bp, fa do not use it"),
        ({"rule": ["bp", "ifa"], "alignment": "exact"}, "--alignment has an effect with an --angle between 0 and 180"),
        ({"optimiser": ["adam"], "momentum": [0.5, 0.9]}, "--momentum has an effect with --optimiser sgd only"),
        ({"model": ["lenet", "alexnet"], "hidden": [[8]]}, "--hidden has an effect with --network mlp only"),
        ({"rule": ["bp", "nosuch"]}, "unknown rule 'nosuch'"),
        ({"batch_size": [32, 0]}, "batch_size is 0; it must be at least 1"),
        ({"hidden": [[8], [0]]}, "hidden is 0; it must be at least 1 unit"),
        ({"hidden": [[8], 8]}, "hidden is 8; it must be a sequence"),
        ({"lr_steps": [[1], []], "lr_gamma": 0.5, "rule": []}, "rule is empty"),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        configs_of(values)


def test_every_setting_takes_several_values_by_flags_and_by_a_file(capsys, tmp_path):
    flags = ["--rule", "bp", "fa", "--batch-size", "32", "--batch-size", "64", "--hidden", "32", "--hidden", "64", "64"]
    flags += ["--optimiser", "sgd", "adam", "--train-size", "50", "none", "--seeds", "0..1", "--seed", "5"]
    found = dumped(capsys, *flags)
    assert found["rule"] == ["bp", "fa"]
    assert found["batch_size"] == [32, 64]
    assert found["hidden"] == [[32], [64, 64]]
    assert found["train_size"] == [50, "none"]
    assert found["seed"] == [0, 1, 5]
    file = tmp_path / "sweep.toml"
    text = "rule = ['bp', 'fa']\nbatch_size = [32, 64]\nhidden = [[32], [64, 64]]\noptimiser = ['sgd', 'adam']\n"
    file.write_text(f"{text}train_size = [50, 'none']\nseed = ['0..1', 5]\n")
    assert dumped(capsys, "--config", str(file)) == found
    assert dumped(capsys, "--config", str(file), "--batch-size", "16")["batch_size"] == 16


def test_each_declared_setting_can_be_swept():
    """Those that come in later versions too: nothing lists them. Numbers stand for all, as they have values to try."""
    tried = 0
    for name, one in settings_of(TrainConfig).items():
        assert one.swept
        if one.flags and one.kind in (int, float) and one.only is None and not option_owners(name):
            candidates = [one.kind(value) for value in (1, 2, 0.5)]
            given = [[value] if one.several else value for value in dict.fromkeys(candidates)]
            given = [value for value in given if not one.problem(one.typed(value))]
            found = [getattr(config, name) for config in configs_of({name: given})]
            assert found == [one.typed(value) for value in given]
            tried += len(given) > 1
    assert tried > 8


def test_data_sets_and_sizes_are_swept_in_folders_that_say_so(tmp_path):
    values = {"train_size": [40, 60], "dataset": ["digits", "digits32"], "hidden": [[4]], "epochs": 1}
    shown = []
    runs = train_configs(configs_of(values), tmp_path, device="cpu", progress=shown.append)
    assert [run.path.name for run in runs] == [
        f"{data}-bp-train{size}-seed0" for data in ("digits", "digits32") for size in (40, 60)
    ]
    for run, size in zip(runs, (40, 60, 40, 60), strict=True):
        assert RunFolder(run.path).read_config()["config"]["train_size"] == size
    assert [(one.finished, one.jobs) for one in shown if one.ends_epoch] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert root_for("digits", tmp_path) is None


def test_a_sweep_that_was_broken_off_goes_on(tmp_path, capsys):
    """Some of the runs are there, of another command: they are left alone, and the names are those of this one."""
    store = ["--store", str(tmp_path / "store")]
    assert main([*SMALL, "--rule", "bp", "--hidden", "4", *store]) == 0
    capsys.readouterr()
    sweep = ["--rule", "bp", "ifa", "--angle", "0", "30", "--hidden", "4", "--hidden", "4", "4", *store]
    assert main([*SMALL, *sweep]) == 0
    out, err = capsys.readouterr()
    assert err == "5 trained, 1 there already\n"
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names == [
        f"digits-{rule}-hidden{hidden}-seed0" for rule in ("bp", "ifa0", "ifa30") for hidden in ("4", "4x4")
    ]
    assert main(["runs", "ls", *store]) == 0
    assert sorted(line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]) == sorted(names)
    assert main([*SMALL, *sweep]) == 0
    assert capsys.readouterr().err == "0 trained, 6 there already\n"


def test_many_runs_are_one_line_for_their_seeds(tmp_path, capsys):
    store = tmp_path / "store"
    flags = [*SMALL, "--hidden", "4", "--seeds", "0..10", "--lr", "0.01", "0.001", "--store", str(store)]
    assert main([*flags, "--stack", "22"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 + 1
    last = {}
    for folder in (store / "runs").iterdir():
        run = RunFolder(folder)
        last.setdefault(run.read_config()["config"]["lr"], []).append(run.read_metrics()[-1]["test_accuracy"])
    for line in lines[1:3]:
        name, n, *numbers = line.split()
        (found,) = [values for lr, values in last.items() if name == f"digits-bp-lr{lr:g}"]
        mean = sum(found) / 11
        sd = (sum((value - mean) ** 2 for value in found) / 10) ** 0.5
        assert n == "11"
        assert [float(number) for number in numbers[2:4]] == pytest.approx([mean, sd], rel=1e-3)


def test_names_tell_what_differs_and_nothing_else():
    base = TrainConfig(dataset="cifar10", rule="ifa", angle=30)
    sizes = [dataclasses.replace(base, batch_size=size) for size in (32, 64)]
    assert run_names(sizes) == ["cifar10-ifa30-bs32-seed0", "cifar10-ifa30-bs64-seed0"]
    assert run_names(sizes[:1]) == ["cifar10-ifa30-seed0"]
    sgd = [TrainConfig(optimiser="sgd", momentum=momentum) for momentum in (0.5, 0.9)]
    assert run_names([TrainConfig(), *sgd]) == [
        "digits-bp-adam-seed0", "digits-bp-sgd-momentum0.5-seed0", "digits-bp-sgd-momentum0.9-seed0"
    ]  # fmt: skip
    wide = [TrainConfig(rule="pfa", expansion=k) for k in (5, 10)]
    assert run_names([TrainConfig(), *wide]) == [
        "digits-bp-seed0",
        *(f"digits-pfa-expansion{k}-seed0" for k in (5, 10)),
    ]
    assert run_names([TrainConfig(hidden=()), TrainConfig(hidden=(4, 2))]) == [
        "digits-bp-hidden-none-seed0", "digits-bp-hidden4x2-seed0"
    ]  # fmt: skip
    assert without_seed(sizes[0], run_names(sizes)[0]) == "cifar10-ifa30-bs32"


def test_no_two_runs_have_one_name():
    close = [TrainConfig(lr=lr) for lr in (0.12345678, 0.12345679)]
    assert run_names(close) == ["digits-bp-lr0.12345678-seed0", "digits-bp-lr0.12345679-seed0"]
    idle = [TrainConfig(momentum=momentum) for momentum in (0.5, 0.9)]  # of old stores: Adam has none
    alike = [TrainConfig(rule=rule) for rule in ("a.b:C", "a.b-C")]
    angles = [TrainConfig(rule="ifa", angle=angle) for angle in (30.0000001, 30.0000002)]
    for configs in (idle, alike, angles):
        names = run_names(configs)
        assert len(set(names)) == 2
        assert all(re.fullmatch(r".*-[0-9a-f]{6}", name) for name in names)
    assert len(set(run_names([TrainConfig()] * 2))) == 1
    assert run_names([TrainConfig()] * 2, ["1" * 16, "2" * 16]) == ["digits-bp-seed0-111111", "digits-bp-seed0-222222"]
    long = [TrainConfig(hidden=(100 + width,) * 60) for width in (0, 1)]
    assert len(set(run_names(long))) == 2
    assert max(map(len, run_names(long))) <= LONGEST + 7


def test_analyses_of_a_store_name_its_runs_in_tables_legends_and_text(tmp_path, capsys):
    store = tmp_path / "store"
    assert main([*SMALL, "--hidden", "4", "--batch-size", "16", "32", "--store", str(store)]) == 0
    runs = sorted((store / "runs").iterdir())
    sizes = {run: RunFolder(run).read_config()["config"]["batch_size"] for run in runs}
    names = {str(run): f"digits-bp-bs{size}-seed0" for run, size in sizes.items()}
    capsys.readouterr()
    flags = ["--samples", "20", "--steps", "2", "--probes", "1", "--device", "cpu", "--quiet", "--out", str(tmp_path)]
    assert main(["spectrum", *map(str, runs), *flags]) == 0
    said = capsys.readouterr().out
    table = read_table(tmp_path / "spectrum.csv")
    assert dict(zip(table["checkpoint"], table["run"], strict=True)) == names
    assert all(re.search(f"{re.escape(path)} +{name}", said) for path, name in names.items())
    assert {one.label for one in series_of(table)} == {f"BP, {name}" for name in names.values()}
    metrics = [table for table in find_tables(store) if table.kind == "metrics"]
    assert {table.frame["run"].iloc[0] for table in metrics} == set(names.values())
