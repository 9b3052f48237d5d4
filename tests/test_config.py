"""A config defines a run: it is checked, comes back from JSON, and its key moves with every field."""

import dataclasses
import hashlib
import json

import pytest

from alignscape.errors import InputError
from training.config import TrainConfig


def test_round_trip_through_json():
    config = TrainConfig(rule="ifa", angle=30.0, hidden=(7, 5), lr_steps=(2, 4), train_size=100)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_fields_that_did_not_exist_yet_take_their_defaults():
    old = TrainConfig(rule="fa").to_dict()
    del old["subset_seed"]
    assert TrainConfig.from_dict(old) == TrainConfig(rule="fa")
    with pytest.raises(InputError, match="unknown fields: warp"):
        TrainConfig.from_dict({**old, "warp": 9})


OTHER = {
    "alignment": "exact", "feedback_density": 0.5, "forward_scale": 1.0, "backward_scale": 1.0, "mirror_rate": 0.5,
    "mirror_decay": 0.5, "rule_source": "ab12", "pal_noise": 0.1, "pal_rate": 0.1, "pal_gain": 1.0,
    "betas": (0.8, 0.9), "nesterov": True, "decay_all": True, "schedule": "cosine", "warmup_epochs": 1,
    "loss": "mse", "label_smoothing": 0.1,
    "augment": "crop",
    "validation": 0.2, "best_by": "loss", "patience": 3,
    "init": "xavier", "init_distribution": "uniform", "activation": "tanh", "clip_norm": 1.0,
    "mirror_noise": "uniform", "mirror_steps": 5, "noise_epochs": 2,
    "rule": "fa", "angle": 10.0, "expansion": 3, "dataset": "mnist", "train_size": 10, "subset_seed": 1, "model": "x",
    "hidden": (4,), "epochs": 1, "batch_size": 2, "optimiser": "sgd", "lr": 1.0, "momentum": 0.1, "weight_decay": 0.1,
    "first_epoch_weight_decay": 0.1, "lr_steps": (1,), "lr_gamma": 0.5, "seed": 1, "checkpoint_every": 1,
    "snapshot_every": 1, "snapshot_dtype": "float16", "precision": "bf16",
    "snapshot_sketch": 4, "gradient_alignment": 100,
    "monitor": "hessian", "monitor_every": 5, "monitor_share": 0.1, "monitor_samples": 10, "monitor_k": 2,
}  # fmt: skip


def test_every_field_moves_the_key_and_so_do_the_data():
    base = TrainConfig()
    assert OTHER.keys() == {f.name for f in dataclasses.fields(TrainConfig)}
    needs = {"snapshot_sketch": {"snapshot_every": 2}}
    keys = {TrainConfig(**{name: value, **needs.get(name, {})}).key("d") for name, value in OTHER.items()}
    assert len(keys | {base.key("d"), base.key("e")}) == len(OTHER) + 2
    assert base.key("d") == TrainConfig(hidden=[512, 512]).key("d")


def test_keys_outlive_new_fields():
    """Fields at their default are no part of the key, and the defaults are what keys were made with."""
    assert TrainConfig().key("d") == hashlib.sha256(b'{"config":{},"data":"d"}').hexdigest()
    chosen = b'{"config":{"hidden":[7],"rule":"fa"},"data":"d"}'
    assert TrainConfig(rule="fa", hidden=(7,)).key("d") == hashlib.sha256(chosen).hexdigest()
    assert TrainConfig().to_dict().items() >= DEFAULTS.items()
    assert TrainConfig(rule="ifa", angle=30).key("d") == TrainConfig(rule="ifa", angle=30.0).key("d")


DEFAULTS = {
    "rule": "bp", "rule_source": "",
    "angle": 0.0, "expansion": 10, "dataset": "digits", "train_size": None, "subset_seed": 0,
    "model": "mlp", "hidden": [512, 512], "epochs": 30, "batch_size": 128, "optimiser": "adam", "lr": 1e-4,
    "momentum": 0.9, "weight_decay": 0.0, "first_epoch_weight_decay": None, "lr_steps": [], "lr_gamma": 0.1, "seed": 0,
    "checkpoint_every": 0, "snapshot_every": 0, "snapshot_dtype": "float32", "precision": "fp32",
    "alignment": "gaussian", "feedback_density": 1.0, "forward_scale": 2**0.5, "backward_scale": 2**0.5,
    "mirror_rate": 0.02, "mirror_decay": 0.01, "snapshot_sketch": 0, "gradient_alignment": 0,
    "pal_noise": 0.01, "pal_rate": 0.01, "pal_gain": 2.0,
    "betas": [0.9, 0.999], "nesterov": False, "decay_all": False, "schedule": "steps", "warmup_epochs": 0,
    "loss": "cross-entropy", "label_smoothing": 0.0,
    "augment": "none",
    "validation": 0.0, "best_by": "accuracy", "patience": 0,
    "init": "he", "init_distribution": "normal", "activation": "relu", "clip_norm": None,
    "mirror_noise": "normal", "mirror_steps": 0, "noise_epochs": 0,
    "monitor": "none", "monitor_every": 0, "monitor_share": 0.05, "monitor_samples": 500, "monitor_k": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("angle", 181, r"angle is 181; it must lie in \[0, 180\] degrees"),
        ("alignment", "close", "alignment is 'close'; known: gaussian, exact"),
        ("feedback_density", 0, r"feedback_density is 0; it must lie in \(0, 1\]"),
        ("forward_scale", -1, "forward_scale is -1; it must be positive"),
        ("lr", 0, "lr is 0; it must be positive"),
        ("batch_size", 0, "batch_size is 0; it must be at least 1"),
        ("weight_decay", -1, "must not be negative"),
        ("optimiser", "lion", "known: adam, sgd"),
        ("betas", (0.9,), "it must have two"),
        ("betas", (0.9, 1), r"must lie in \[0, 1\)"),
        ("augment", "crop-flip", "digits has digits, take 'crop'"),
        ("warmup_epochs", 31, "the run has 30 epochs"),
        ("snapshot_dtype", "int8", "known: float32, float16"),
        ("snapshot_sketch", 4, "needs snapshot_every > 0"),
        ("hidden", (5, 0), "at least 1 unit"),
        ("train_size", 0, "at least 1 sample"),
        ("first_epoch_weight_decay", -1, "must not be negative"),
    ],
)
def test_values_out_of_range_are_named(field, value, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**{field: value})


def test_differences_name_the_fields():
    assert TrainConfig(lr=0.1).differences(TrainConfig(lr=0.2)) == ["lr: 0.2 -> 0.1"]


def test_a_run_that_means_another_one_now_has_another_key():
    """Sparse pfa: B had another scale once; pal had other rates below a pool; the mirror mode drew the noise that steps
    on noise drew again. No other key moves."""
    sparse = TrainConfig(rule="pfa", feedback_density=0.1)
    before = b'{"config":{"feedback_density":0.1,"rule":"pfa"},"data":"d"}'
    assert sparse.key("d", revised=False) == hashlib.sha256(before).hexdigest() != sparse.key("d")
    others = [
        TrainConfig(rule="pfa"),
        *(TrainConfig(rule=rule, feedback_density=0.1) for rule in ("fa", "dfa", "pfa-o")),
        *(TrainConfig(rule="pal"), TrainConfig(rule="fa", model="lenet")),
        *(TrainConfig(rule="wm"), TrainConfig(rule="wm", noise_epochs=1)),
    ]
    for moved in (TrainConfig(rule="pal", model="lenet"), TrainConfig(rule="wm", mirror_steps=5)):
        assert moved.key("d") != moved.key("d", revised=False)
    assert all(other.key("d") == other.key("d", revised=False) for other in others)
