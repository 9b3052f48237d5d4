"""Stacks: each network ends as if it had trained alone, whatever the others do and whatever kills them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from training import loop, stack_size
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.errors import InputError
from training.loop import train, train_many
from training.rules import RULES
from training.runs import RunFolder


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_size=400)


def config(**fields) -> TrainConfig:
    return TrainConfig(**{"hidden": (24, 16), "epochs": 2, "batch_size": 32, "lr": 1e-3, **fields})


def jobs_in(folder, configs):
    return [(cfg, folder / str(i)) for i, cfg in enumerate(configs)]


def assert_close_runs(ours, theirs, rtol=1e-3, atol=1e-4):
    a, b = (load_checkpoint(run.checkpoint) for run in (ours, theirs))
    for left, right in ((a.model, b.model), (a.feedback, b.feedback)):
        assert left.keys() == right.keys()
        for name in left:
            torch.testing.assert_close(left[name], right[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    rows = [list(csv.DictReader((run.path / "metrics.csv").open())) for run in (ours, theirs)]
    assert len(rows[0]) == len(rows[1])
    for mine, other in zip(*rows, strict=True):
        assert mine.keys() == other.keys()
        for name in mine.keys() - {"seconds"}:
            assert float(mine[name] or "nan") == pytest.approx(float(other[name] or "nan"), rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("rule", RULES)
def test_a_network_of_a_stack_ends_as_it_would_alone(digits, tmp_path, rule, optimiser):
    """Seeds, angles, learning rates and decays differ; every tensor of the checkpoint and all metrics agree."""
    lr = 1e-3 if optimiser == "adam" else 0.02
    fields = {"rule": rule, "optimiser": optimiser, "snapshot_every": 10, "expansion": 2}
    configs = [
        config(**fields, seed=1, lr=lr, weight_decay=1e-3),
        config(**fields, seed=2, lr=lr / 2, first_epoch_weight_decay=1e-2),
        config(**fields, seed=3, lr=lr, weight_decay=1e-3, angle=30 if rule == "ifa" else 0),
        config(**fields, seed=1, lr=lr, weight_decay=1e-3, lr_steps=(1,)),
    ]
    stacked = train_many(jobs_in(tmp_path / "stack", configs), digits, stack=4)
    for cfg, run in zip(configs, stacked, strict=True):
        alone = train(cfg, digits, tmp_path / f"alone-{run.path.name}")
        assert_close_runs(run, alone)
