"""Steps on the device held against the same steps on the CPU, for every rule, after one step and after twenty.

What is compared is how far each tensor of a network has moved since the start, weights and feedback alike: the error
is ||moved here - moved on the CPU|| / ||moved on the CPU||. On the CPU every network trains alone and as it runs, so
that a stack on the device is held against single networks.

Rules that draw feedback at each step (``moves_feedback``, ``reads_batch``) draw other numbers on another kind of
device. There the CPU takes each step with the feedback that the device used in it.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.parts import Report, Setup
from training.captured import CapturedStep
from training.checkpoint import DataInfo
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.network import Network
from training.precision import products
from training.rules import RULES
from training.run_folder import RunFolder
from training.stack import Stack

STEPS = (1, 20)
SEEDS = (0, 1, 2)
# Numbers of bfloat16 have 8 bits: a sum that is taken in another order is rounded to another one, .4 % away. In
# bfloat16 the steps are of SGD, since Adam, which divides a gradient by its own size, makes whole steps of such a
# difference where a gradient is nearly 0; its own arithmetic is float32 in either precision.
TOLERANCE = {"fp32": 1e-5, "bf16": 0.1}
OPTIMISER: dict[str, dict[str, Any]] = {"fp32": {"lr": 1e-2}, "bf16": {"optimiser": "sgd", "lr": 1e-3}}

State = dict[str, Tensor]  # of one network, on the CPU
Walk = list[list[State]]  # [after so many steps][network]


@dataclasses.dataclass(frozen=True)
class Way:
    """How networks train: so many together, by a recorded graph or as the code runs."""

    networks: int
    recorded: bool

    def __str__(self) -> str:
        together = "alone" if self.networks == 1 else f"stack of {self.networks}"
        return f"{together}, {'recorded' if self.recorded else 'as it runs'}"


WAYS = (Way(1, True), Way(3, True), Way(1, False), Way(3, False))


def config_of(rule: str, precision: str) -> TrainConfig:
    """Return a small network of ``rule``."""
    optimiser = OPTIMISER[precision]
    return TrainConfig(
        rule=rule, hidden=(32, 32), batch_size=50, epochs=1, expansion=2, precision=precision, **optimiser
    )


def equality(setup: Setup, report: Report, rules: Sequence[str] = tuple(RULES)) -> None:
    """Check every rule in every way and precision, what is used most first."""
    data = {device: load_dataset("digits", device=device) for device in {"cpu", setup.device}}
    alone = functools.cache(lambda config: walk([config], data["cpu"], recorded=False))
    for precision, way in ((precision, way) for precision in TOLERANCE for way in WAYS):
        if way.recorded and setup.device == "cpu":
            report.check(f"{way}, {precision}", None, "graphs are recorded on CUDA only")
            continue
        worst: dict[int, tuple[float, str]] = {}
        for rule in rules:
            for steps, error in errors(config_of(rule, precision), way, data[setup.device], data["cpu"], alone).items():
                passed = error <= TOLERANCE[precision]
                report.check(f"{rule}, {way}, {precision}, {count(steps)}", passed, f"{error:.1e}")
                worst[steps] = max(worst.get(steps, (0.0, rule)), (error, rule))
        cells = {f"after {count(steps)}": f"{error:.1e} ({rule})" for steps, (error, rule) in worst.items()}
        report.row("equality", way=str(way), precision=precision, **cells, tolerance=f"{TOLERANCE[precision]:.0e}")
    report.line(f"{len(rules)} rules; largest errors in the table")
    report.memory("equality")


def count(steps: int) -> str:
    """Return ``"20 steps"``."""
    return f"{steps} step{'s' * (steps > 1)}"


def errors(
    config: TrainConfig, way: Way, data: Dataset, cpu: Dataset, alone: Callable[[TrainConfig], Walk]
) -> dict[int, float]:
    """Return the largest error of any tensor of any network, by the number of steps."""
    configs = [dataclasses.replace(config, seed=seed) for seed in SEEDS[: way.networks]]
    found = walk(configs, data, recorded=way.recorded)
    largest: dict[int, float] = dict.fromkeys(STEPS, 0.0)
    for e, own in enumerate(configs):
        given = [states[e] for states in found]
        expected = walk([own], cpu, recorded=False, given=given) if draws(own) else alone(own)
        for steps in STEPS:
            largest[steps] = max(largest[steps], distance(expected[0][0], expected[steps][0], found[steps][e]))
    return largest


def draws(config: TrainConfig) -> bool:
    """Whether the rule moves feedback by numbers that it draws."""
    rule = RULES[config.rule]
    return rule.moves_feedback or rule.reads_batch


def distance(start: State, expected: State, found: State) -> float:
    """Return the largest error of any tensor; infinite where one moved that should not have."""
    largest = 0.0
    for name, there in expected.items():
        moved, missed = (there - start[name]).norm().item(), (found[name] - there).norm().item()
        largest = max(largest, missed / moved if moved else float("inf") if missed else 0.0)
    return largest


def walk(
    configs: Sequence[TrainConfig], data: Dataset, *, recorded: bool, given: Sequence[State] | None = None
) -> Walk:
    """Return the states of the networks at the start and after each of the steps, where ``data`` is.

    ``given`` are states of a single network whose feedback is put in force at each step, instead of what it would draw.
    """
    info = DataInfo.of(data)
    networks = [Network(config, data, info, RunFolder(Path())) for config in configs]
    with products(configs[0].precision), recording(recorded) as replays:
        stack = Stack(networks, data)
        stack.begin()
        stack.start_epoch(0)
        if given is not None:
            for rule in (stack.rule, networks[0].rule):
                vars(rule).update(moves_feedback=False, reads_batch=False)
        path = [[state(network) for network in networks]]
        for index in range(max(STEPS)):
            if given is not None:
                put_feedback(networks[0], given[index + 1])
            stack.train_step(0, index)
            path.append([state(network) for network in networks])
    if recorded and not replays:
        raise AssertionError(f"no step of {configs[0].rule} was replayed from a recording")
    return path


def state(network: Network) -> State:
    """Return the tensors of a network."""
    return {name: tensor.detach().to("cpu", torch.float64, copy=True) for name, tensor in network.tensors().items()}


@torch.no_grad()
def put_feedback(network: Network, given: State) -> None:
    """Put feedback and other buffers in force: all that the optimiser does not move."""
    for name, buffer in network.twin.named_buffers():
        buffer.copy_(given[name])


@contextlib.contextmanager
def recording(wanted: bool) -> Iterator[list[int]]:
    """Let steps be recorded or not; yield a list that gets an item at each replay of a recorded graph."""
    replays: list[int] = []
    replay, warm_up = torch.cuda.CUDAGraph.replay, CapturedStep.WARM_UP

    def counted(graph: Any) -> None:
        replays.append(1)
        replay(graph)

    torch.cuda.CUDAGraph.replay = counted  # type: ignore[method-assign]
    if not wanted:
        CapturedStep.WARM_UP = 10**9  # calls that run as they are, before one is recorded
    try:
        yield replays
    finally:
        torch.cuda.CUDAGraph.replay = replay  # type: ignore[method-assign]
        CapturedStep.WARM_UP = warm_up
