"""Recorded steps, by a stand-in for CUDA graphs that keeps to their rules (tests/tape.py): the numbers of the steps
themselves, nothing read on the host, and a line where a network cannot be recorded."""

import contextlib
import dataclasses
import gc
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tape import TapeRecorder
from torch import nn

from training import captured, optimiser, stack_size
from training import stack as stack_module
from training.captured import CapturedStep, CudaRecorder
from training.checkpoint import DataInfo, load_checkpoint
from training.config import TrainConfig
from training.data import Normalise, load_dataset
from training.evaluation import StackEvaluation, evaluate
from training.loop import train_many
from training.memory import EVALUATED, EVALUATION_BYTES, samples_at_once
from training.models import MODELS
from training.network import Network
from training.recordable import Watch
from training.rules import RULES
from training.rules.feedback import LayerSize
from training.run_folder import RunFolder
from training.stack import Stack

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_size=100)


@pytest.fixture
def recorders(monkeypatch):
    """Let stacks record on the CPU; the recorders that were made."""
    made = []

    def make(device):
        made.append(TapeRecorder(device))
        return made[-1]

    monkeypatch.setattr(stack_module, "recorder_for", make)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a step that is not recorded says so
        yield made


def config(**fields) -> TrainConfig:
    # Learning rates that float32 holds exactly, as the tensors on the device do, and another one in every epoch.
    rates = {"lr": 2.0**-9, "lr_gamma": 0.5, "lr_steps": (1, 2, 3, 4)}
    return TrainConfig(**{"hidden": (12, 8), "batch_size": 32, "expansion": 2, **rates, **fields})


def stack_of(data, networks, **fields):
    made = [Network(config(**fields, seed=s), data, DataInfo.of(data), RunFolder(Path())) for s in range(networks)]
    return Stack(made, data)


def trained(data, networks, epochs=5, **fields):
    """A stack after so many epochs of three mini-batches of 32 and one of 4, and what it was evaluated to."""
    stack, found = stack_of(data, networks, **fields), []
    for epoch in range(epochs):
        stack.start_epoch(epoch)
        for index in range(4):
            stack.train_step(epoch, index)
        found += [*stack.evaluate(), stack.sums.rows()]
    return stack, found


class Residual(nn.Module):
    """Convolutions with BatchNorm around a skip connection."""

    def __init__(self, classes):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.block, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.last((x + torch.relu(self.block(x))).mean((2, 3)))


CASES = [
    *((rule, {}) for rule in RULES),
    *((rule, {"optimiser": "sgd"}) for rule in RULES),
    *((rule, {"precision": "bf16"}) for rule in ("dfa", "wm")),
    # Not Adam: a bias below BatchNorm has a gradient of rounding, whose sign it would follow.
    *((rule, {"model": "residual", "optimiser": "sgd"}) for rule in ("dfa", "pal")),
    ("fa", {"optimiser": "sgd", "momentum": 0.0}),
]


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize(("rule", "fields"), CASES)
def test_a_recorded_step_is_the_step_itself(digits, monkeypatch, recorders, rule, fields, networks):
    """Bit by bit, with one recording for each size of mini-batch, whatever the schedule. Where a stack is recorded its
    feedback moves for all networks at once, which rounds otherwise."""
    monkeypatch.setitem(MODELS, "residual", lambda config, shape, classes: Residual(classes))
    recorded, found = trained(digits, networks, rule=rule, **fields)
    counts = [dict(recorder.counts) for recorder in recorders]
    with monkeypatch.context() as patch:
        patch.setattr(stack_module, "recorder_for", lambda device: None)
        plain, expected = trained(digits, networks, rule=rule, **fields)
    assert counts[0]["record"] == 2 + (networks > 1), "two sizes of mini-batch, and the evaluation of a stack"
    assert counts[0]["replay"] > 12
    moves = networks > 1 and recorded._moves_inside
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(recorded.tensors[name], tensor, rtol=1e-4 if moves else 0, atol=1e-5 if moves else 0)
    if not moves:
        assert found == expected


@pytest.mark.parametrize("rule", ["wm", "brsf", "pal"])
def test_rules_that_move_feedback_do_it_in_the_recording(digits, recorders, rule):
    """All networks of a stack at once: as many operators for six networks as for three."""
    operators = []
    for networks in (3, 6):
        assert stack_of(digits, networks, rule=rule)._moves_inside
        trained(digits, networks, epochs=2, rule=rule)
        operators.append([len(tape.calls) for tape in recorders[-1].tapes])
    assert operators[0] == operators[1]


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("rule", RULES)
def test_a_step_stays_on_its_device(digits, monkeypatch, rule, networks):
    """All that a step makes is where its data is, on a device of no memory: a tensor made on the host shows."""
    monkeypatch.setattr(stack_module, "recorder_for", TapeRecorder)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind=None: False)  # it does not know this device
    meta = dataclasses.replace(digits, train=digits.train.to("meta"), test=digits.test.to("meta"))
    infos = [DataInfo.of(digits)] * networks
    here, there = (
        Stack([Network(config(rule=rule, seed=s), data, i, RunFolder(Path())) for s, i in enumerate(infos)], data)
        for data in (digits, meta)
    )
    drawn = [tensor.to("meta") for tensor in here._drawn(32)] if here._moves_inside else []
    there._labels = here._labels
    there.optimiser.step = lambda gradients: None  # torch's fused ones know the device as little
    batch = there.order(0)[:, :32]
    for _ in range(2):  # what is kept of the first step is a part of the others
        with Watch(torch.device("meta"), there._step.keepers) as watch:
            there._body(batch if networks > 1 else batch[0], *drawn)
    assert watch.reason is None


@pytest.mark.parametrize("record", [False, True])
def test_steps_leave_nothing_behind(digits, recorders, monkeypatch, record):
    """Tensors do not grow in number or size from epoch to epoch."""
    if not record:
        monkeypatch.setattr(stack_module, "recorder_for", lambda device: None)

    def held():
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
        return len(tensors), sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    stack, sizes = stack_of(digits, 3, rule="wm", optimiser="sgd"), []
    for epoch in range(6):
        stack.start_epoch(epoch)
        for index in range(4):
            stack.train_step(epoch, index)
        stack.order(epoch + 1)
        if epoch > 3:
            sizes.append(held())
    assert sizes[0] == sizes[1]
    assert all(view.grad is None for views in stack.optimiser.views for view in views.values())


def net(forward):
    """The factory of a network of one layer that does ``forward(network, logits)`` last."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls, self.seen = nn.Linear(64, 10), 0, {}

        def forward(self, x):
            return forward(self, self.layer(x.flatten(1)))

    return lambda config, shape, classes: Net()


def reads(self, y):
    return y * 2 if y.sum() > 1e9 else y


def masks(self, y):
    return y + y[y > 1e9].sum()


def brings(self, y):
    return y * torch.tensor([1.0] * 10)


def counts(self, y):
    self.calls += 1
    return y


def keeps(self, y):
    self.seen["last"] = y
    return y


def rolls(self, y):
    return y * (1 + 0 * random.random())


def rolls_by_numpy(self, y):
    return y * (1 + 0 * np.random.rand())  # noqa: NPY002


def draws_apart(self, y):
    return y + 0 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (reads, "it looks at values on the host"),
        (masks, "it picks values by a mask"),
        (brings, "it brings numbers from the host"),
        (counts, "each call changes calls of Net"),
        (keeps, "each call changes last of Net"),
        (rolls, "it draws random numbers on the host"),
        (rolls_by_numpy, "it draws random numbers on the host"),
        (draws_apart, "it draws from a random stream of its own"),
    ],
)
def test_a_network_that_cannot_be_recorded_trains_as_it_is(digits, tmp_path, monkeypatch, recorders, forward, reason):
    """A run alone, which nobody tries under vmap first; one line says why, and the weights are those of a plain run."""
    monkeypatch.setitem(MODELS, "strange", net(forward))
    cfg = config(model="strange", epochs=3)
    state = np.random.get_state()  # noqa: NPY002
    with pytest.warns(UserWarning, match=f"the step of strange with bp is not recorded.*{reason}") as said:
        (run,) = train_many([(cfg, tmp_path / "tape")], digits, stack=1)
    monkeypatch.setattr(stack_module, "recorder_for", lambda device: None)
    (plain,) = train_many([(cfg, tmp_path / "plain")], digits, stack=1)
    np.random.set_state(state)  # noqa: NPY002
    assert len(said) == 1
    assert recorders[0].counts["record"] == 0
    weights, expected = (load_checkpoint(one.checkpoint).model for one in (run, plain))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_momentum_by_a_count_on_the_host_is_seen(digits, monkeypatch, recorders):
    def build(config, shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9, momentum=None), nn.Linear(9, classes))

    monkeypatch.setitem(MODELS, "counting", build)
    with pytest.warns(UserWarning, match="looks at values on the host"):
        trained(digits, 1, model="counting")


def test_what_the_first_replay_does_is_compared(digits, monkeypatch, recorders):
    """A count outside of the network is seen by nobody, but frozen into the recording."""
    calls = []

    def forward(self, y):
        calls.append(1)
        return y * len(calls)

    monkeypatch.setitem(MODELS, "secret", net(forward))
    with pytest.warns(UserWarning, match="replayed, it gives other numbers"):
        stack, _ = trained(digits, 1, model="secret")
    assert recorders[0].counts["replay"] == 1
    assert stack.step == 20
    assert len(calls) > 20


def test_a_recording_that_fails_is_done_without(digits, monkeypatch):
    """What a driver refuses, or memory: the step is taken all the same."""

    class Failing(TapeRecorder):
        def record(self, body):
            raise RuntimeError("CUDA error: out of graphs\nmore")

    monkeypatch.setattr(stack_module, "recorder_for", Failing)
    with pytest.warns(UserWarning, match=r"not recorded.*: CUDA error: out of graphs$"):
        stack, found = trained(digits, 3, rule="fa")
    monkeypatch.setattr(stack_module, "recorder_for", lambda device: None)
    plain, expected = trained(digits, 3, rule="fa")
    assert found == expected
    assert all(torch.equal(stack.tensors[name], plain.tensors[name]) for name in plain.tensors)


def test_dropout_is_recorded_and_draws_anew(digits, monkeypatch, recorders):
    """Its stream is set for each step, outside of the recording."""

    def build(config, shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, classes))

    monkeypatch.setitem(MODELS, "dropping", build)
    recorded, found = trained(digits, 1, model="dropping")
    assert recorders[0].counts["replay"] > 12
    monkeypatch.setattr(stack_module, "recorder_for", lambda device: None)
    plain, expected = trained(digits, 1, model="dropping")
    assert found == expected
    assert all(torch.equal(recorded.tensors[name], plain.tensors[name]) for name in plain.tensors)


def test_the_decay_of_the_first_epoch_alone_is_recorded_anew(digits, recorders):
    """The fused optimisers take a decay as a number; a learning rate that changes is in a tensor."""
    stack, _ = trained(digits, 1, epochs=8, rule="fa", first_epoch_weight_decay=0.5, weight_decay=1e-3)
    assert recorders[0].counts["record"] == 2
    for group in stack.optimiser.torch.param_groups:
        assert group["lr"].item() == 2.0**-9 / 16
        assert group["weight_decay"] in (1e-3, 0.0)
    held = {id(group["lr"]) for group in stack.optimiser.torch.param_groups}
    assert stack.optimiser.set_epoch(0), "the decay changes"
    assert not stack.optimiser.set_epoch(0)
    assert held == {id(group["lr"]) for group in stack.optimiser.torch.param_groups}
    assert optimiser._in_float32(1e300) == float("inf")


def test_noise_epochs_and_their_feedback_in_a_recorded_stack(digits, tmp_path, monkeypatch, recorders):
    configs = [config(rule="wm", noise_epochs=1, epochs=2, seed=s) for s in range(2)]
    runs = train_many([(c, tmp_path / f"tape-{c.seed}") for c in configs], digits, stack=2)
    monkeypatch.setattr(stack_module, "recorder_for", lambda device: None)
    plain = train_many([(c, tmp_path / f"plain-{c.seed}") for c in configs], digits, stack=2)
    for run, other in zip(runs, plain, strict=True):
        ours, theirs = (load_checkpoint(one.checkpoint).feedback for one in (run, other))
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_an_evaluation_in_batches_is_recorded_and_that_of_each_network(digits):
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False) for _ in range(3)]
    stacked = {name: torch.stack([dict(n.named_parameters())[name] for n in nets]) for name in ("1.weight", "1.bias")}
    normalise, recorder = Normalise(digits.mean, digits.std), TapeRecorder()
    evaluation = StackEvaluation(nets[0], stacked, normalise, digits.test, 150, recorder)  # 7 batches of 50 and 10
    for _ in range(5):
        found = evaluation()
    assert recorder.counts["record"] == 2
    for one, model in zip(found, nets, strict=True):
        assert one == pytest.approx(evaluate(model, normalise, digits.test))


def test_images_of_an_evaluation_fit_into_memory():
    alexnet = [LayerSize((64, 3, 3, 3), 3 * 32 * 32, True, 1, 64 * 32 * 32), LayerSize((10, 1024), 1024, False)]
    assert samples_at_once(alexnet) * 3 * 4 * 64 * 32 * 32 <= EVALUATION_BYTES
    assert samples_at_once(alexnet) > 1000
    assert samples_at_once([LayerSize((512, 3072), 3072, True)]) == EVALUATED


def test_a_timed_trial_decides_about_convolutions(digits, monkeypatch, recorders):
    """Where networks are recorded as where they are not, the trial takes real steps and leaves no trace."""
    monkeypatch.setitem(MODELS, "residual", lambda config, shape, classes: Residual(classes))
    network = Network(config(model="residual"), digits, DataInfo.of(digits), RunFolder(Path()))
    before = [tensor.clone() for tensor in network.tensors().values()]
    assert all(stack_size.seconds_per_network(network, digits, size) > 0 for size in (1, 2))
    assert recorders[-1].counts["replay"] >= stack_size.TRIAL_STEPS
    assert all(torch.equal(a, b) for a, b in zip(before, network.tensors().values(), strict=True))
    for together, expected in ((0.002, None), (0.005, "timed, a step takes 4 ms alone and 5 ms each in a stack of 8")):
        times = {1: 0.004, 8: together}
        monkeypatch.setattr(stack_size, "seconds_per_network", lambda network, data, size, t=times: t[size])
        assert stack_size.slower_together(network, digits, 8) == expected


def test_cuda_graphs_share_a_pool_and_a_stream(monkeypatch):
    """What can be seen of the calls without a GPU."""
    seen = []

    class Stream:
        def __init__(self, device=None):
            self.waits = []

        def wait_stream(self, other):
            self.waits.append(other)

    @contextlib.contextmanager
    def graph(graph, *, pool, stream):
        seen.append((graph, pool, stream))
        yield

    class Graph:
        replayed = 0

        def replay(self):
            self.replayed += 1

    main, active = Stream(), []
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext(active.append(s)))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    recorder = captured.recorder_for(torch.device("cuda:1"))
    assert isinstance(recorder, CudaRecorder)
    called = []
    recorder.run(lambda: called.append(1))
    recorder.record(lambda: called.append(2))()
    recorder.record(lambda: called.append(3))
    assert called == [1, 2, 3]
    assert [one.replayed for one, *_ in seen] == [1, 0]
    assert {(id(pool), id(stream)) for _, pool, stream in seen} == {(id(recorder.pool), id(recorder.stream))}
    assert active == [recorder.stream, main, main], "a recording goes back to the stream it was called on"
    assert (main.waits, recorder.stream.waits) == ([recorder.stream], [main])
    assert captured.recorder_for(CPU) is None


def test_the_stand_in_breaks_where_a_gpu_would():
    """Else the tests above would show nothing."""
    x = torch.arange(6.0)

    def refused(body):
        with pytest.raises(RuntimeError, match="not permitted"):
            TapeRecorder().record(body)

    for body in (lambda: x.sum().item(), lambda: x.nonzero(), lambda: x[x > 2],
                 lambda: x + torch.tensor([1.0])):  # fmt: skip
        refused(body)
    factor, out = [2.0], torch.zeros(6)

    def double():
        out.copy_(x * factor[0])
        x.add_(1)

    replay = TapeRecorder().record(double)
    assert out.sum() == 0
    assert x[0] == 0, "what is recorded is not done"
    factor[0] = 3.0
    replay()
    replay()
    assert out.tolist() == [2.0 * value for value in range(1, 7)], "numbers are frozen, tensors are not"


def test_a_step_without_a_recorder_is_just_called():
    calls = []
    step = CapturedStep(calls.append, None)
    for _ in range(5):
        step(torch.zeros(1))
    assert len(calls) == 5
