"""Training runs: what they write, that they learn, and that a killed one ends as if it had not been."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tape import TapeRecorder
from torch.nn import functional as F

from alignscape.errors import InputError
from alignscape.seeding import generator
from training import clock, network, stack
from training.checkpoint import DataInfo, load_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train
from training.models import build_model
from training.network import Network
from training.rules import RULES, make_rule
from training.run_folder import RunFolder
from training.stack import Stack


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_size=400)


def config(**fields) -> TrainConfig:
    return TrainConfig(**{"hidden": (24, 16), "epochs": 3, "batch_size": 32, "lr": 1e-3, "seed": 1, **fields})


def load_trajectory(run) -> tuple[np.ndarray, list[int]]:
    return np.load(run / "trajectory.npy"), json.loads((run / "trajectory.json").read_text())["steps"]


def assert_same_run(ours, theirs):
    """Bit-identical weights, feedback, trajectory, and all metrics but the seconds."""
    a, b = load_checkpoint(ours / "ckpt.pt"), load_checkpoint(theirs / "ckpt.pt")
    for left, right in ((a.model, b.model), (a.feedback, b.feedback)):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    if a.config.snapshot_every:
        assert np.array_equal(load_trajectory(ours)[0], load_trajectory(theirs)[0])
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (ours, theirs)]
    assert [{**r, "seconds": ""} for r in rows[0]] == [{**r, "seconds": ""} for r in rows[1]]


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_bp_equals_a_loop_written_by_hand(digits, tmp_path, optimiser):
    """The same mini-batches through torch's own optimiser give the same weights."""
    cfg = config(optimiser=optimiser, lr=0.01, epochs=2, weight_decay=1e-2, lr_steps=(1,))
    trained = load_checkpoint(train(cfg, digits, tmp_path / "run").checkpoint).model

    model = build_model(cfg, digits.input_shape, 10)
    make_rule(cfg).initialise(model)
    decayed = [{"params": [p], "weight_decay": 1e-2 if p.ndim == 2 else 0} for p in model.parameters()]
    adam = torch.optim.Adam(decayed, lr=0.01)
    chosen = adam if optimiser == "adam" else torch.optim.SGD(decayed, lr=0.01, momentum=0.9)
    pixels = (digits.train.images.float() / 255 - digits.mean[0]) / digits.std[0]
    for epoch in range(2):
        for group in chosen.param_groups:
            group["lr"] = 0.01 * 0.1**epoch
        for batch in torch.randperm(400, generator=generator(cfg.seed, "order", epoch)).split(32):
            chosen.zero_grad()
            F.cross_entropy(model(pixels[batch]), digits.train.labels[batch]).backward()
            chosen.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns_the_digits(rule, tmp_path):
    data = load_dataset("digits")
    run = train(config(rule=rule, epochs=15, hidden=(64, 64), angle=45 if rule == "ifa" else 0), data, tmp_path / "run")
    metrics = load_checkpoint(run.checkpoint).metrics
    assert metrics["test_accuracy"] > 0.8, "chance is 0.1, a linear model reaches 0.95"


def test_run_folder_holds_what_the_interface_promises(digits, tmp_path):
    cfg = config(rule="fa", checkpoint_every=2, snapshot_every=10)
    run = train(cfg, digits, tmp_path / "run")
    names = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file() and p.name != ".lock"}
    kept = {f"checkpoints/epoch-000{epoch}.pt" for epoch in (0, 2, 3)}  # every second, and the last
    assert names == kept | {"config.json", "ckpt.pt", "done.json", "metrics.csv", "trajectory.npy", "trajectory.json"}

    rows = list(csv.DictReader((run.path / "metrics.csv").open()))
    assert list(rows[0])[:7] == [
        *("epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
    ]
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["step"] for row in rows] == ["0", "13", "26", "39"]
    assert all(60 < float(row["angle_layers.2"]) < 120 for row in rows)
    assert rows[0]["train_loss"] == ""

    data, steps = load_trajectory(run.path)
    assert steps == [0, 10, 20, 30, 39]
    final = load_checkpoint(run.checkpoint)
    assert np.array_equal(data[-1], torch.cat([t.flatten() for t in final.model.values()]).numpy())
    first = load_checkpoint(run.epoch_checkpoint(0))
    assert np.array_equal(data[0], torch.cat([t.flatten() for t in first.model.values()]).numpy())
    assert (first.epoch, first.step, final.epoch, final.step) == (0, 0, 3, 39)
    layout = json.loads((run.path / "trajectory.json").read_text())["parameters"]
    assert layout[0] == ["layers.0.weight", [24, 64]]


def test_metrics_are_those_of_the_final_weights(digits, tmp_path):
    run = train(config(rule="dfa"), digits, tmp_path / "run")
    final = load_checkpoint(run.checkpoint)
    model = final.plain_model().double()
    pixels = (digits.test.images.double() / 255 - digits.mean[0]) / digits.std[0]
    logits = model(pixels)
    assert final.metrics["test_accuracy"] == pytest.approx(
        (logits.argmax(1) == digits.test.labels).double().mean().item()
    )
    assert final.metrics["test_loss"] == pytest.approx(F.cross_entropy(logits, digits.test.labels).item(), rel=1e-5)


class Killed(Exception):
    """Stands for a process that dies."""


@pytest.mark.parametrize("rule", ["bp", "pfa"])
@pytest.mark.parametrize("die_at", [1, 13, 20])
def test_resume_after_death_at_any_step_is_bit_identical(digits, tmp_path, monkeypatch, rule, die_at):
    """Dies inside the first epoch, at its end, inside the second; resume points after every step."""
    cfg = config(rule=rule, snapshot_every=3, weight_decay=1e-3, first_epoch_weight_decay=1e-2, checkpoint_every=1)
    train(cfg, digits, tmp_path / "whole")

    monkeypatch.setattr(clock, "RESUME_SHARE", 1e9)
    step = Stack.train_step

    def dying_step(self, epoch, index):
        if self.step == die_at:
            raise Killed
        step(self, epoch, index)

    monkeypatch.setattr(Stack, "train_step", dying_step)
    with pytest.raises(Killed):
        train(cfg, digits, tmp_path / "cut")
    assert (tmp_path / "cut" / "resume.pt").exists() == (die_at > 0)
    assert not (tmp_path / "cut" / "done.json").exists()
    monkeypatch.setattr(Stack, "train_step", step)
    train(cfg, digits, tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert not (tmp_path / "cut" / "resume.pt").exists()


def test_resume_after_kill_9_of_the_command(tmp_path):
    """The real thing: SIGKILL in the middle of a run, then the same command."""
    flags = ["--rule", "fa", "--hidden", "64", "--epochs", "40", "--snapshot-every", "50", "--quiet"]

    def command(out):
        return [sys.executable, "-m", "reports.cli", "train", *flags, "--device", "cpu", "--out", str(out)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(tmp_path / "cut"), env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / "resume.pt").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut" / "done.json").exists()

    for out in ("cut", "whole"):
        subprocess.run(command(tmp_path / out), env=environment, check=True, capture_output=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_complete_run_is_left_alone(digits, tmp_path):
    run = train(config(epochs=1), digits, tmp_path / "run")
    before = run.checkpoint.stat().st_mtime_ns
    train(config(epochs=1), digits, tmp_path / "run")
    assert run.checkpoint.stat().st_mtime_ns == before


def test_another_config_does_not_overwrite_a_run(digits, tmp_path):
    train(config(epochs=1), digits, tmp_path / "run")
    with pytest.raises(InputError, match=r"holds another run \(lr: 0.001 -> 0.1\)"):
        train(config(epochs=1, lr=0.1), digits, tmp_path / "run")
    with pytest.raises(InputError, match="other bytes of digits"):
        train(config(epochs=1), load_dataset("digits", train_size=399), tmp_path / "run")


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(digits, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"not empty and not a run \(thesis.tex\)"):
        train(config(), digits, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_unknown_names_write_nothing(digits, tmp_path):
    for wrong in (config(rule="hebb"), config(model="perceiver")):
        with pytest.raises(InputError, match="known:"):
            train(wrong, digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_processes_cannot_train_in_one_folder(digits, tmp_path):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(InputError, match="another process"):
        train(config(), digits, tmp_path / "run")


def test_divergence_is_a_recorded_result(digits, tmp_path):
    cfg = config(optimiser="sgd", lr=1e6, epochs=5, snapshot_every=5)
    run = train(cfg, digits, tmp_path / "run")
    done = json.loads((run.path / "done.json").read_text())
    final = load_checkpoint(run.checkpoint)
    assert done["diverged"] is True
    assert final.metrics["diverged"] is True
    assert 1 <= done["diverged_step"] <= done["step"] == 13, "it stops at the end of the first epoch"
    assert load_trajectory(run.path)[1] == [0, 5, 10]
    with pytest.raises(InputError, match="NaN or infinity"):
        final.plain_model()


def test_divergence_in_the_last_update_is_recorded(digits, tmp_path):
    """Every loss before an update is finite; the one update is not."""
    run = train(config(lr=1e38, epochs=1, batch_size=400), digits, tmp_path / "run")
    done = json.loads((run.path / "done.json").read_text())
    assert (done["diverged"], done["diverged_step"], done["step"]) == (True, 1, 1)
    assert load_checkpoint(run.checkpoint).metrics["diverged"] is True


@pytest.mark.parametrize("share", [0.05, 1e9])
def test_a_diverged_run_killed_at_its_end_keeps_its_trajectory(digits, tmp_path, monkeypatch, share):
    cfg = config(optimiser="sgd", lr=1e6, epochs=5, snapshot_every=1)
    whole = load_trajectory(train(cfg, digits, tmp_path / "whole").path)
    monkeypatch.setattr(clock, "RESUME_SHARE", share)
    with monkeypatch.context() as patch:
        patch.setattr(network, "save_checkpoint", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(cfg, digits, tmp_path / "cut")
    cut = load_trajectory(train(cfg, digits, tmp_path / "cut").path)
    np.testing.assert_array_equal(cut[0], whole[0])
    assert cut[1] == whole[1]


def test_the_decay_of_the_first_epoch_acts_in_it_only_and_on_matrices_only(digits):
    cfg = config(rule="pfa", weight_decay=1e-4, first_epoch_weight_decay=0.03, lr_steps=(1, 2))
    network = Network(cfg, digits, DataInfo.of(digits), RunFolder(Path()))
    optimiser = Stack([network], digits).optimiser
    matrices, vectors = optimiser.torch.param_groups
    expected = {0: (1e-3, 0.03), 1: (1e-4, 1e-4), 2: (1e-5, 1e-4)}
    for epoch, (lr, decay) in expected.items():
        optimiser.set_epoch(epoch)
        assert (matrices["lr"], matrices["weight_decay"]) == pytest.approx((lr, decay))
        assert (vectors["lr"], vectors["weight_decay"]) == pytest.approx((lr, 0))
    plastic = [layer.feedback_plastic.data_ptr() for layer in network.twin.layers[1:]]
    assert set(plastic) <= {p.data_ptr() for p in matrices["params"]}, "plastic feedback decays with the weights"


def test_no_epochs_gives_the_initialisation(digits, tmp_path):
    run = train(config(epochs=0, checkpoint_every=1), digits, tmp_path / "run")
    final, first = load_checkpoint(run.checkpoint), load_checkpoint(run.epoch_checkpoint(0))
    assert all(torch.equal(final.model[name], first.model[name]) for name in final.model)
    assert math.isnan(final.metrics["train_loss"])


CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=CUDA), "cpu"])
def test_recorded_runs_agree_with_the_cpu_and_resume(tmp_path, monkeypatch, device):
    """A run that is killed between two replays goes on from its resume point, and records its steps anew."""
    expected = load_checkpoint(train(config(), load_dataset("digits"), tmp_path / "cpu").checkpoint).metrics
    if device == "cpu":
        monkeypatch.setattr(stack, "recorder_for", TapeRecorder)  # a stand-in for CUDA graphs
    data = load_dataset("digits", device=device)

    class Killed(BaseException):
        pass

    def dying(self, epoch, index):
        if (epoch, index) == (1, 20):
            raise Killed
        step(self, epoch, index)

    step = Stack.train_step
    with monkeypatch.context() as patch:
        patch.setattr(clock, "RESUME_SHARE", 1e9)  # a resume point after every step
        patch.setattr(Stack, "train_step", dying)
        with pytest.raises(Killed):
            train(config(), data, tmp_path / device / "cut")
    for name in ("cut", "whole"):
        found = load_checkpoint(train(config(), data, tmp_path / device / name).checkpoint).metrics
        assert found["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-3)
    if device == "cpu":
        assert_same_run(tmp_path / device / "cut", tmp_path / device / "whole")
