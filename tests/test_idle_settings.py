"""What is called without effect has none: trained weights do not depend on it, and on what is not called so they do."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from alignscape.settings import settings_of
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.loop import train
from training.rules import RULES, idle_options

# Two values of each option of a rule that differ in what they make of the networks below.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "angle": (0.0, 60.0), "alignment": ("gaussian", "exact"), "expansion": (2, 3), "feedback_density": (1.0, 0.5),
    "backward_scale": (1.0, 2.0), "mirror_rate": (0.02, 0.2), "mirror_decay": (0.01, 0.5),
    "mirror_noise": ("normal", "uniform"), "mirror_steps": (0, 3),
    "pal_noise": (0.01, 0.1), "pal_rate": (0.01, 0.1), "pal_gain": (1.0, 2.0),
}  # fmt: skip
# ifa would heed a density, of W too, which then is no sparse feedback: refused until someone needs it.
REFUSED_ALL_THE_SAME = {("ifa", "feedback_density")}


@functools.cache
def digits(size: int | None, seed: int) -> Dataset:
    return load_dataset("digits", train_size=size, subset_seed=seed)


def trained(tmp_path, **fields) -> dict[str, Tensor]:
    """The weights after two epochs of four steps each."""
    common = {"hidden": (7, 6), "epochs": 2, "batch_size": 16, "train_size": 64, "optimiser": "sgd", "lr": 0.1}
    config = TrainConfig(**{**common, **fields})
    run = train(config, digits(config.train_size, config.subset_seed), tmp_path / f"{len(list(tmp_path.iterdir()))}")
    return load_checkpoint(run.checkpoint).model


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_option_of_a_rule_is_tried():
    assert OPTIONS.keys() == {option for rule in RULES.values() for option in rule.options}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_reads_its_options_and_no_others(rule, tmp_path):
    for option, values in OPTIONS.items():
        angle = {"angle": 60.0} if option == "alignment" else {}  # at 0 it has none: see below
        one, other = (trained(tmp_path, rule=rule, **{**angle, option: value}) for value in values)
        if (rule, option) not in REFUSED_ALL_THE_SAME:
            assert same(one, other) == (option not in RULES[rule].options), option


@pytest.mark.parametrize(
    ("name", "values", "idle", "heeded"),
    [
        ("momentum", (0.1, 0.9), {"optimiser": "adam"}, {"optimiser": "sgd"}),
        ("lr_gamma", (0.1, 0.5), {}, {"lr_steps": (1,)}),
        ("subset_seed", (0, 1), {"train_size": None}, {"train_size": 64}),
        ("betas", ((0.9, 0.999), (0.5, 0.5)), {"optimiser": "sgd"}, {"optimiser": "adam"}),
        ("nesterov", (False, True), {"optimiser": "sgd", "momentum": 0.0}, {"optimiser": "sgd"}),
        ("nesterov", (False, True), {"optimiser": "adam"}, {"optimiser": "sgd"}),
        ("decay_all", (False, True), {}, {"first_epoch_weight_decay": 0.5}),
        ("lr_steps", ((), (1,)), {"schedule": "cosine"}, {}),
        ("label_smoothing", (0.0, 0.2), {"loss": "mse"}, {}),
        ("subset_seed", (0, 1), {"train_size": None}, {"train_size": None, "validation": 0.5}),
        ("patience", (0, 1), {}, {"validation": 0.5, "lr": 1e-9, "epochs": 3}),
        ("activation", ("relu", "tanh"), {"hidden": ()}, {}),
        ("alignment", ("gaussian", "exact"), {"rule": "ifa", "angle": 0}, {"rule": "ifa", "angle": 1}),
        ("alignment", ("gaussian", "exact"), {"rule": "ifa", "angle": 180}, {"rule": "ifa", "angle": 179}),
    ],
)
def test_a_setting_has_an_effect_where_it_says_so(name, values, idle, heeded, tmp_path):
    only = settings_of(TrainConfig)[name].only
    for fields in (idle, heeded):
        one, other = (trained(tmp_path, **{**fields, name: value}) for value in values)
        assert same(one, other) == (fields is idle)
        assert only.holds(TrainConfig(**{"train_size": 64, **fields})) == (fields is heeded)


def test_hidden_is_of_the_mlp_alone(tmp_path):
    idle = {"dataset": "digits32", "model": "lenet"}
    data = load_dataset("digits32", train_size=32)
    runs = [
        train(TrainConfig(hidden=hidden, epochs=1, train_size=32, **idle), data, tmp_path / str(i))
        for i, hidden in enumerate([(512, 512), (4,)])
    ]
    assert same(*(load_checkpoint(run.checkpoint).model for run in runs))


def test_snapshot_settings_write_nothing_without_snapshots(tmp_path):
    trained(tmp_path, snapshot_dtype="float16")
    assert not list(tmp_path.rglob("*trajectory*"))
    trained(tmp_path, snapshot_dtype="float16", snapshot_every=1)
    assert list(tmp_path.rglob("*trajectory*"))


def test_options_that_were_given_count_at_their_default_too():
    config = TrainConfig(rule="fa")
    assert idle_options(config) == []
    assert idle_options(config, ["angle", "backward_scale", "lr"]) == ["angle"]
