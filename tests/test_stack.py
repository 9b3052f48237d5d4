"""Stacks: each network ends as if it had trained alone, whatever the others do and whatever kills them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tape import TapeRecorder
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from alignscape.errors import InputError
from training import clock, loop, stack_size
from training import stack as stack_module
from training.checkpoint import DataInfo, load_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train, train_many
from training.models import MODELS
from training.network import Network
from training.rules import RULES
from training.run_folder import RunFolder
from training.sketch import FrequentDirections
from training.stack import Stack
from training.stacked_layers import LARGE


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


@pytest.mark.parametrize(("rule", "optimiser"), [*((rule, "adam") for rule in RULES), ("bp", "sgd"), ("kp", "sgd")])
def test_a_network_of_a_stack_ends_as_it_would_alone(digits, tmp_path, rule, optimiser):
    """Seeds, angles, learning rates and decays differ; every tensor of the checkpoint and all metrics agree."""
    lr = 1e-3 if optimiser == "adam" else 0.02
    fields = {"rule": rule, "optimiser": optimiser, "snapshot_every": 10, "expansion": 2}
    configs = [
        config(**fields, seed=1, lr=lr, weight_decay=1e-3),
        config(**fields, seed=2, lr=lr / 2, first_epoch_weight_decay=1e-2),
        config(**fields, seed=3, lr=lr, forward_scale=1.0, backward_scale=1.2, angle=30 if rule == "ifa" else 0),
        config(**fields, seed=1, lr=lr, weight_decay=1e-3, lr_steps=(1,)),
    ]
    stacked = train_many(jobs_in(tmp_path / "stack", configs), digits, stack=4)
    for cfg, run in zip(configs, stacked, strict=True):
        alone = train(cfg, digits, tmp_path / f"alone-{run.path.name}")
        assert_close_runs(run, alone)


class ResidualNet(nn.Module):
    """Convolutions with BatchNorm, a skip connection, a strided convolution in groups, pooling, two Linear layers."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.block = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.down = nn.Conv2d(4, 8, 3, stride=2, groups=2)
        self.hidden = nn.Linear(8, 12)
        self.last = nn.Linear(12, classes)

    def forward(self, x):
        x = torch.relu(self.norm1(self.stem(x)))
        x = torch.relu(x + self.norm2(self.block(x)))
        x = torch.relu(self.down(x)).mean((2, 3))
        return self.last(torch.relu(self.hidden(x)))


@pytest.mark.parametrize("rule", RULES)
def test_convolutions_and_batch_norm_in_a_stack(digits, tmp_path, monkeypatch, rule):
    """Running statistics and their counts are each network's own."""
    monkeypatch.setitem(MODELS, "residual", lambda config, shape, classes: ResidualNet(shape[0], classes))
    fields = {"rule": rule, "model": "residual", "epochs": 1, "optimiser": "sgd", "expansion": 2}
    configs = [config(**fields, seed=seed, lr=lr) for seed, lr in enumerate((0.01, 0.02, 0.01))]
    stacked = train_many(jobs_in(tmp_path / "stack", configs), digits, stack=3)
    for cfg, run in zip(configs, stacked, strict=True):
        assert_close_runs(run, train(cfg, digits, tmp_path / f"alone-{run.path.name}"))
        model = load_checkpoint(run.checkpoint).model
        assert model["norm2.num_batches_tracked"] == 13
        assert not torch.equal(model["norm2.running_var"], torch.ones(4))


def assert_same_run(ours, theirs):
    """Bit-identical weights, feedback and metrics, the seconds aside."""
    a, b = (load_checkpoint(Path(run) / "ckpt.pt") for run in (ours, theirs))
    for left, right in ((a.model, b.model), (a.feedback, b.feedback)):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    rows = [list(csv.DictReader((Path(run) / "metrics.csv").open())) for run in (ours, theirs)]
    assert [{**r, "seconds": ""} for r in rows[0]] == [{**r, "seconds": ""} for r in rows[1]]


SWEEP = [
    config(rule="pfa", expansion=2, epochs=3, batch_size=80, seed=seed, lr=lr)
    for lr in (1e-3, 3e-3)
    for seed in range(2)
]


class Killed(BaseException):
    """Stands for a process that dies."""


def kill_at(monkeypatch, owner, name, calls):
    """Let the call number ``calls`` of ``owner.name`` be the last thing that happens."""
    original, count = getattr(owner, name), 0

    def dying(*args, **kwargs):
        nonlocal count
        count += 1
        if count == calls:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (Stack, "train_step", 1),
        (Stack, "train_step", 6),  # the first of the second epoch
        (Stack, "train_step", 8),
        (RunFolder, "stage_resume", 2),  # one network of four has staged its first point, the others have none
        (RunFolder, "stage_resume", 4),
        (RunFolder, "commit_resume", 2),
        (RunFolder, "stage_resume", 4 * 5 + 3),  # two networks of four have staged the point after step 6
        (RunFolder, "commit_resume", 4 * 5 + 3),  # all have, and two have put it in force
        (RunFolder, "finish", 3),  # two networks are complete
    ],
)
def test_a_stack_killed_anywhere_ends_bit_identical(digits, tmp_path, monkeypatch, owner, name, calls):
    train_many(jobs_in(tmp_path / "whole", SWEEP), digits, stack=4)
    with monkeypatch.context() as patch:
        patch.setattr(clock, "RESUME_SHARE", 1e9)  # a resume point after every step
        kill_at(patch, owner, name, calls)
        with pytest.raises(Killed):
            train_many(jobs_in(tmp_path / "cut", SWEEP), digits, stack=4)
    assert not RunFolder(tmp_path / "cut" / "3").is_done
    for run in train_many(jobs_in(tmp_path / "cut", SWEEP), digits, stack=4):
        assert_same_run(run.path, tmp_path / "whole" / run.path.name)
        assert not list(run.path.glob("resume*"))


def test_kill_9_of_the_command_with_a_stack(tmp_path):
    flags = [
        "--rule",
        "fa",
        "--hidden",
        "32",
        "--train-size",
        "400",
        "--epochs",
        "80",
        "--seeds",
        "0..3",
        "--stack",
        "4",
        "--quiet",
    ]

    def command(out):
        return [sys.executable, "-m", "reports.cli", "train", *flags, "--device", "cpu", "--out", str(tmp_path / out)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command("cut"), env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / "digits-fa-seed3" / "resume.pt").exists():
        assert process.poll() is None, "the stack ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for out in ("cut", "whole"):
        subprocess.run(command(out), env=environment, check=True, capture_output=True)
    for seed in range(4):
        assert_same_run(tmp_path / "cut" / f"digits-fa-seed{seed}", tmp_path / "whole" / f"digits-fa-seed{seed}")


def test_networks_at_different_steps_go_on_in_groups(digits, tmp_path, monkeypatch):
    """Two killed at step 5, one at step 12, one not begun: the same command completes all four."""
    jobs = jobs_in(tmp_path / "mixed", SWEEP)
    for chosen, steps in ((jobs[:2], 5), (jobs[2:3], 12)):
        with monkeypatch.context() as patch:
            patch.setattr(clock, "RESUME_SHARE", 1e9)
            kill_at(patch, Stack, "train_step", steps + 1)
            with pytest.raises(Killed):
                train_many(chosen, digits, stack=2)
    started = []
    run = loop.Trainer.run
    monkeypatch.setattr(
        loop.Trainer,
        "run",
        lambda self, s: (started.append((len(self.stack.networks), s and s[0]["step"])), run(self, s)),
    )
    runs = train_many(jobs, digits, stack=4)
    assert started == [(1, None), (2, 5), (1, 12)]
    for (cfg, _), finished in zip(jobs, runs, strict=True):
        assert_close_runs(finished, train(cfg, digits, tmp_path / "alone" / finished.path.name))


@pytest.mark.parametrize("share", [clock.RESUME_SHARE, 1e9])  # now and then a resume point, or one after every step
def test_a_network_that_diverges_leaves_and_the_others_go_on(digits, tmp_path, monkeypatch, share):
    monkeypatch.setattr(clock, "RESUME_SHARE", share)
    fields = {"optimiser": "sgd", "rule": "fa", "epochs": 3, "snapshot_every": 5}
    configs = [config(**fields, lr=lr, seed=seed) for seed, lr in enumerate((0.01, 1e6, 0.02, 1e7))]
    stacked = train_many(jobs_in(tmp_path / "stack", configs), digits, stack=4)
    alone = [train(cfg, digits, tmp_path / "alone" / str(i)) for i, cfg in enumerate(configs)]
    for i in (0, 2):
        assert_close_runs(stacked[i], alone[i])
        assert load_checkpoint(stacked[i].checkpoint).step == 39
    for i in (1, 3):
        done = [json.loads((run[i].path / "done.json").read_text()) for run in (stacked, alone)]
        assert done[0]["diverged"] is True
        assert done[0]["diverged_step"] == done[1]["diverged_step"] <= 13
        assert done[0]["step"] == done[1]["step"] == 13, "it leaves at the end of the epoch"


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_stack_killed_while_diverged_networks_leave_it(digits, tmp_path, monkeypatch, calls):
    fields = {"optimiser": "sgd", "rule": "fa", "epochs": 3}
    configs = [config(**fields, lr=lr, seed=seed) for seed, lr in enumerate((0.01, 1e6, 0.02, 1e7))]
    train_many(jobs_in(tmp_path / "whole", configs), digits, stack=4)
    with monkeypatch.context() as patch:
        kill_at(patch, RunFolder, "finish", calls)
        with pytest.raises(Killed):
            train_many(jobs_in(tmp_path / "cut", configs), digits, stack=4)
    for run in train_many(jobs_in(tmp_path / "cut", configs), digits, stack=4)[::2]:
        assert_same_run(run.path, tmp_path / "whole" / run.path.name)


@pytest.mark.parametrize("calls", [2, 4])
def test_a_stack_killed_while_all_of_it_has_diverged(digits, tmp_path, monkeypatch, calls):
    """Whoever is not finished takes no step again: in a smaller stack its last sums would be rounded otherwise."""
    configs = [config(optimiser="sgd", rule="fa", lr=lr, seed=seed) for seed, lr in enumerate((1e6, 1e7, 1e6, 1e7))]
    train_many(jobs_in(tmp_path / "whole", configs), digits, stack=4)
    with monkeypatch.context() as patch:
        kill_at(patch, RunFolder, "finish", calls)
        with pytest.raises(Killed):
            train_many(jobs_in(tmp_path / "cut", configs), digits, stack=4)
    steps = []
    monkeypatch.setattr(Stack, "train_step", lambda *_: steps.append(1))
    for run in train_many(jobs_in(tmp_path / "cut", configs), digits, stack=4):
        assert load_checkpoint(run.checkpoint).metrics["diverged"]
    assert steps == []


def test_what_one_network_holds_never_reaches_another(digits, tmp_path):
    """One network full of NaN; the bits of the others are those of the stack without it."""

    def weights_after(poisoned):
        networks = [
            Network(config(rule="dfa", seed=s), digits, DataInfo.of(digits), RunFolder(tmp_path)) for s in range(3)
        ]
        if poisoned:
            for parameter in networks[1].twin.parameters():
                parameter.data.fill_(torch.nan)
        stack = Stack(networks, digits)
        stack.start_epoch(0)
        for index in range(5):
            stack.train_step(0, index)
        return [torch.cat([p.detach().flatten() for p in network.model.parameters()]) for network in networks]

    clean, sick = weights_after(False), weights_after(True)
    assert sick[1].isnan().all()
    assert torch.equal(clean[0], sick[0])
    assert torch.equal(clean[2], sick[2])


def test_architectures_train_apart_and_folders_return_in_order(digits, tmp_path):
    configs = [config(seed=0), config(seed=0, hidden=(8,)), config(seed=1), config(seed=1, hidden=(8,), batch_size=64)]
    plans = []
    runs = train_many(jobs_in(tmp_path, configs), digits, stack=8, report_plan=plans.append)
    assert [load_checkpoint(run.checkpoint).config for run in runs] == configs
    assert plans == ["2 networks, 2 at a time: as asked for"]
    groups = list(stack_size.plan(configs, digits, DataInfo.of(digits), 8))
    assert groups == [[0, 2], [1], [3]]


def test_what_may_differ_inside_a_stack():
    same = stack_size.stack_key(config())
    for fields in (
        {"seed": 1},
        {"lr": 1.0},
        {"weight_decay": 1.0},
        {"angle": 9.0},
        {"lr_steps": (1,)},
        {"snapshot_every": 1},
    ):
        assert stack_size.stack_key(config(**fields)) == same
    for fields in (
        {"rule": "fa"},
        {"epochs": 9},
        {"hidden": (9,)},
        {"optimiser": "sgd"},
        {"precision": "bf16"},
        {"expansion": 3},
    ):
        assert stack_size.stack_key(config(**fields)) != same


def test_automatic_sizes_follow_memory_and_measured_gain(digits, monkeypatch):
    network = Network(config(), digits, DataInfo.of(digits), RunFolder(Path()))
    needed = stack_size.bytes_per_network(network, digits)
    for networks_that_fit, count, size in ((100, 10, 10), (4, 10, 4), (7, 10, 5), (0.5, 10, 1), (1000, 130, 44)):
        monkeypatch.setattr(
            stack_size, "free_memory", lambda _, n=networks_that_fit: int(n * needed / stack_size.MEMORY_SHARE) + 1
        )
        assert stack_size.choose_size(network, digits, count, "auto").size == size
    large = Network(config(hidden=(2048, 2048), batch_size=128), digits, DataInfo.of(digits), RunFolder(Path()))
    assert stack_size.choose_size(large, digits, 10, "auto").size == 1
    assert stack_size.choose_size(large, digits, 10, 4).size == 4


def test_memory_of_a_network_counts_what_it_holds(digits):
    cfg = config()
    network = Network(cfg, digits, DataInfo.of(digits), RunFolder(Path()))
    parameters = 4 * sum(p.numel() for p in network.twin.parameters())
    activations = stack_size.activation_bytes(network, digits)
    widths = 64 + 24 + 16 + 10  # the inputs of the three layers, and the logits' log-softmax; ReLU keeps its output
    assert 4 * cfg.batch_size * widths <= activations <= 2 * 4 * cfg.batch_size * (64 + widths)
    order = 2 * 8 * len(digits.train)
    assert stack_size.bytes_per_network(network, digits) == 4 * parameters + order + 2 * activations
    sketching = Network(config(snapshot_sketch=8, snapshot_every=1), digits, DataInfo.of(digits), RunFolder(Path()))
    more = stack_size.bytes_per_network(sketching, digits) - stack_size.bytes_per_network(network, digits)
    sketch = FrequentDirections(8, torch.zeros(parameters // 4))
    held = sum(t.nbytes for t in vars(sketch).values() if isinstance(t, torch.Tensor))
    assert more == held
    assert stack_size.free_memory(torch.device("cpu")) > 2**20


def test_networks_with_dropout_train_alone_and_resume_bit_identical(digits, tmp_path, monkeypatch):
    """What dropout drops is a function of (seed, step), which a stack's one stream could not be."""

    def build(config, shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, classes))

    monkeypatch.setitem(MODELS, "dropping", build)
    configs = [config(model="dropping", seed=seed) for seed in range(2)]
    plans = []
    train_many(jobs_in(tmp_path / "whole", configs), digits, stack=2, report_plan=plans.append)
    assert plans == ["2 networks, 1 at a time: dropout and the like draw from one stream for all networks of a stack"]
    torch.manual_seed(5)  # the state of the global stream is neither here nor there
    with monkeypatch.context() as patch:
        patch.setattr(clock, "RESUME_SHARE", 1e9)
        kill_at(patch, Stack, "train_step", 8)
        with pytest.raises(Killed):
            train_many(jobs_in(tmp_path / "cut", configs), digits, stack=2)
    for run in train_many(jobs_in(tmp_path / "cut", configs), digits, stack=2):
        assert_same_run(run.path, tmp_path / "whole" / run.path.name)


def test_a_folder_in_use_stops_the_stack_before_it_begins(digits, tmp_path):
    with RunFolder(tmp_path / "2").locked(), pytest.raises(InputError, match="another process is training"):
        train_many(jobs_in(tmp_path, SWEEP), digits, stack=4)
    assert not (tmp_path / "0" / "metrics.csv").exists()


def test_the_time_left_is_that_of_all_networks(digits, tmp_path):
    reports = []
    train(config(seed=5), digits, tmp_path / "0")  # done already
    jobs = [(config(seed=5 + i), tmp_path / str(i)) for i in range(5)]
    train_many(jobs, digits, stack=2, progress=reports.append)
    ends = [r for r in reports if r.step == r.total_steps]
    assert [r.networks for r in ends] == [1, 2, 1]
    for report, waiting in zip(ends, (3, 1, 0), strict=True):
        assert report.seconds_left == pytest.approx(waiting * report.seconds_each)
        assert report.seconds_each > 0


def test_bad_sizes_are_refused(digits, tmp_path):
    with pytest.raises(InputError, match="at least one network"):
        train_many(jobs_in(tmp_path, SWEEP), digits, stack=0)


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_in_float32(digits, tmp_path):
    """The products differ from float32's by bfloat16's rounding, and training goes on to the same place."""
    for rule in RULES:
        runs = {
            p: train(config(rule=rule, precision=p, epochs=1), digits, tmp_path / rule / p) for p in ("fp32", "bf16")
        }
        full, half = (load_checkpoint(run.checkpoint) for run in runs.values())
        difference = torch.cat([(full.model[n] - half.model[n]).flatten() for n in full.model])
        assert all(t.dtype == torch.float32 for t in half.model.values())
        assert 1e-6 < difference.abs().mean() < 2e-3, rule
        assert half.metrics["train_loss"] == pytest.approx(full.metrics["train_loss"], rel=0.02)


class Products(TorchDispatchMode):
    """Notes the types of the operands of every product."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(part in func.__name__ for part in ("mm", "convolution", "matmul", "linear", "einsum")):
            self.types |= {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("network", [{"hidden": (300, 260)}, {"hidden": (20,)}, {"model": "resnet20"}])
def test_every_product_of_a_bfloat16_step_is_in_bfloat16(digits, tmp_path, network, size):
    for rule in ("bp", "fa", "dfa", "pfa", "usf", "kp"):
        fields = {"rule": rule, "precision": "bf16", "batch_size": 4, "expansion": 2, **network}
        networks = [
            Network(config(**fields, seed=s), digits, DataInfo.of(digits), RunFolder(tmp_path)) for s in range(size)
        ]
        stack = Stack(networks, digits)
        stack.start_epoch(0)
        with Products() as products:
            stack.train_step(0, 0)
        assert products.types == {torch.bfloat16}, rule


@pytest.mark.parametrize("rule", ["bp", "fa", "dfa", "pfa", "usf"])
def test_large_layers_learn_in_the_layout_of_their_weights(digits, tmp_path, rule):
    """Above a size, the products of a stack are others; the gradients are those of each network alone."""
    info, batch = DataInfo.of(digits), torch.arange(16)
    configs = [config(rule=rule, hidden=(300, 260), seed=seed, expansion=2) for seed in range(2)]
    alone = [Stack([Network(cfg, digits, info, RunFolder(tmp_path))], digits) for cfg in configs]
    stack = Stack([Network(cfg, digits, info, RunFolder(tmp_path)) for cfg in configs], digits)

    def gradients(stack, batch):
        step = stack._evaluate(stack.normalise(digits.train.images[batch]), digits.train.labels[batch])
        return stack.rule.gradients(stack.parameters, step)

    together = gradients(stack, torch.stack([batch, batch + 50]))
    for e, (one, samples) in enumerate(zip(alone, (batch, batch + 50), strict=True)):
        for name, gradient in gradients(one, samples).items():
            torch.testing.assert_close(together[name][e], gradient, rtol=1e-4, atol=1e-6)
    assert stack.parameters["layers.1.weight"][0].numel() >= LARGE
    assert together["layers.1.weight"].is_contiguous()


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_ten_epochs_in_a_stack_reach_the_accuracy_of_single_runs(rule, tmp_path):
    """Rounding differs, so weights drift apart; the accuracy stays the same to sampling noise: two standard errors of
    the difference of two accuracies near 0.9 on 360 samples, shared by 8 networks."""
    data = load_dataset("digits")
    configs = [config(rule=rule, epochs=10, hidden=(64, 64), seed=seed, expansion=2) for seed in range(8)]
    stacked = train_many(jobs_in(tmp_path / "stack", configs), data, stack=8)
    alone = [train(cfg, data, tmp_path / "alone" / str(i)) for i, cfg in enumerate(configs)]
    accuracies = [
        torch.tensor([load_checkpoint(run.checkpoint).metrics["test_accuracy"] for run in runs])
        for runs in (stacked, alone)
    ]
    assert (accuracies[0] - accuracies[1]).abs().max() < 0.03
    assert abs(accuracies[0].mean() - accuracies[1].mean()) < 2 * (2 * 0.9 * 0.1 / 360 / 8) ** 0.5


CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
REPLAYED = [
    # What moves feedback draws from the device's own stream.
    *((rule, {}, 0.2 if RULES[rule].moves_feedback or RULES[rule].reads_batch else 1e-2) for rule in RULES),
    *((rule, {"optimiser": "sgd", "lr": 1e-2}, 1e-2) for rule in ("bp", "fa", "pfa")),
    *((rule, {"precision": "tf32"}, 2e-2) for rule in ("bp", "fa")),
    *((rule, {"precision": "bf16"}, 0.1) for rule in ("bp", "fa", "dfa", "pfa")),
    # Convolutions and batch normalisation: rounding grows faster.
    *((rule, {"model": "resnet20", "epochs": 2}, 0.1) for rule in ("bp", "fa", "dfa")),
]
# On a CPU by a stand-in for CUDA graphs; all rules are in tests/test_captured.py.
ON_TAPE = [("wm", {"optimiser": "sgd", "lr": 1e-2}, 1e-3)]


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize(
    ("device", "rule", "fields", "tolerance"),
    [*(pytest.param("cuda", *case, marks=CUDA) for case in REPLAYED), *(("cpu", *case) for case in ON_TAPE)],
)
def test_replayed_steps_are_the_steps_of_the_cpu(device, rule, fields, tolerance, networks, tmp_path, monkeypatch):
    """Recordings, their making anew when the decay changes, and the odd last batch give the CPU's metrics."""
    metrics, recorders = [], []
    fields = {"rule": rule, "epochs": 5, "expansion": 2, "first_epoch_weight_decay": 1e-2, **fields}

    def tape(device):
        recorders.append(TapeRecorder(device))
        return recorders[-1]

    for place in ("cpu", device):
        data = load_dataset("digits", train_size=400, device=place)
        configs = [config(**fields, seed=seed) for seed in range(networks)]
        runs = train_many(jobs_in(tmp_path / str(len(metrics)), configs), data, stack=networks)
        metrics.append([load_checkpoint(run.checkpoint).metrics["test_loss"] for run in runs])
        if device == "cpu":
            monkeypatch.setattr(stack_module, "recorder_for", tape)
    assert metrics[1] == pytest.approx(metrics[0], rel=tolerance)
    assert all(recorder.counts["replay"] for recorder in recorders)
