"""How many networks train together: which may, how many the memory holds, and where it pays."""

import copy
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from alignscape import memory
from alignscape.errors import InputError
from training.captured import CapturedStep
from training.checkpoint import DataInfo
from training.config import TrainConfig
from training.data import Dataset, Normalise
from training.memory import FLOAT, monitor_vectors
from training.network import Network
from training.optimiser import SCHEDULE, schedule_key
from training.precision import products
from training.rules import find_rule
from training.rules.others import explained
from training.run_folder import RunFolder
from training.shared_rule import SharedSettingError, differing, shared_rule
from training.stack import Mover, Objective, Stack

Sizes = int | Literal["auto"]

# What networks of one stack may differ in: what only sets their starting point, what the optimiser takes by network,
# what they keep. Any other field, those to come included, keeps networks apart; so do the options of a rule, but for
# those that it declares to be read by `initialise` alone.
FREE_FIELDS = {
    *("seed", "angle", "alignment", "forward_scale", "backward_scale", "init", "init_distribution"),
    *(*SCHEDULE, "clip_norm", "best_by", "patience"),
    *("checkpoint_every", "snapshot_every", "snapshot_dtype", "snapshot_sketch"),
}

MEMORY_SHARE = 0.5  # of what is free
LARGEST = {"cuda": 256, "cpu": 64}  # beyond these a larger stack was not faster
TRIED, TRIAL_STEPS = 8, 10  # networks and steps of a timed trial

# Multiply-adds of a network's step below which a stack is faster than single networks on a CPU: the step of a small
# network is mostly the cost of calling it, which a stack shares. Measured by benchmarks/train.py --break-even.
CPU_BREAK_EVEN = 2e7


@dataclass(frozen=True)
class Choice:
    """A stack size and the reason for it."""

    size: int
    reason: str


def plan(
    configs: Sequence[TrainConfig],
    data: Dataset,
    info: DataInfo,
    stack: Sizes,
    report: Callable[[str], None] | None = None,
) -> Iterator[list[int]]:
    """Yield the indices of the configs of each stack.

    Which networks train together depends on the configs and the size alone, not on what is done already, so that
    whatever was killed goes on in the stack it was in.

    Raises:
        InputError: a size below 1; an architecture that cannot be built.
    """
    if stack != "auto" and stack < 1:
        raise InputError(f"--stack {stack}: a stack has at least one network")
    groups: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        groups.setdefault(stack_key(config), []).append(i)
    sizes = {}
    for key, members in groups.items():
        if len(groups) == len(members) == 1:
            sizes[key] = 1  # a run alone: nothing to choose, and its loop builds the network first anyhow
            continue
        network = Network(configs[members[0]], data, info, RunFolder(Path()))
        differences = differing([configs[i] for i in members])
        chosen = choose_size(network, data, len(members), stack, differences)
        sizes[key] = chosen.size
        if report is not None and len(members) > 1:
            report(f"{len(members)} networks, {chosen.size} at a time: {chosen.reason}")
    for key, members in groups.items():
        members.sort(key=lambda i: schedule_key(configs[i]))  # those of one schedule side by side: see StackOptimiser
        yield from (members[i : i + sizes[key]] for i in range(0, len(members), sizes[key]))


def stack_key(config: TrainConfig) -> str:
    """Return what networks of one stack have in common."""
    try:
        free = free_fields(config)
    except InputError:  # its rule is not to be had: it fails when its turn comes, and takes nobody with it
        free = set()
    return repr({f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in free})


def free_fields(config: TrainConfig) -> set[str]:
    """Return the settings that networks of one stack may differ in, with the rule of ``config``."""
    rule = find_rule(config.rule)
    return FREE_FIELDS - (set(rule.options) - set(rule.initial_options))


def choose_size(
    network: Network, data: Dataset, count: int, stack: Sizes, differences: Collection[str] | None = None
) -> Choice:
    """Return how many of ``count`` networks like ``network`` (whose state is not touched) should train together.

    ``differences`` are the settings that they differ in; None: any that they may differ in.
    """
    if differences is None:
        differences = free_fields(network.config)
    if network.apart is not None:
        return Choice(1, network.apart)
    if count > 1 and stack != 1 and (reason := unstackable(network, data, differences)) is not None:
        return Choice(1, reason)
    if stack != "auto":
        return Choice(min(stack, count), "as asked for")
    device = data.train.labels.device
    work = network.config.batch_size * sum(p.numel() for p in network.twin.parameters() if p.ndim == 2) * 3
    has_convolutions = any(p.ndim > 2 for p in network.twin.parameters())
    if device.type == "cpu" and (has_convolutions or work > CPU_BREAK_EVEN):
        return Choice(1, "networks of this size train faster one by one on a CPU")
    needed, free = bytes_per_network(network, data), free_memory(device)
    fitting = max(1, int(MEMORY_SHARE * free / needed))
    size = min(count, fitting, LARGEST.get(device.type, LARGEST["cpu"]))
    if has_convolutions and size > 1 and (slower := slower_together(network, data, min(size, TRIED))) is not None:
        return Choice(1, slower)
    # As even as can be: 70 networks in two stacks of 35, not in one of 64 and one of 6.
    size = -(-count // -(-count // size))
    return Choice(size, f"{needed / 1e6:.1f} MB each, {free / 1e9:.1f} GB free")


def slower_together(network: Network, data: Dataset, size: int) -> str | None:
    """Return by how much networks like this one train slower in a stack of ``size`` than alone, timed; None if they do
    not. Convolutions of a stack are grouped ones, of which libraries make less than of separate ones, or more."""
    alone, together = (seconds_per_network(network, data, networks) for networks in (1, size))
    if together < alone:
        return None
    return f"timed, a step takes {1e3 * alone:.3g} ms alone and {1e3 * together:.3g} ms each in a stack of {size}"


def seconds_per_network(network: Network, data: Dataset, size: int) -> float:
    """Return what a step of ``size`` networks like this one takes each. They are made for it, and nothing is kept."""
    stack = Stack([Network(network.config, data, network.info, RunFolder(Path())) for _ in range(size)], data)
    whole = max(1, len(data.train) // network.config.batch_size)  # mini-batches of one size

    def run(steps: int) -> None:
        for index in range(steps):
            stack.train_step(0, index % whole)
        stack.sums.rows()  # which waits for the device

    with products(network.config.precision):
        stack.start_epoch(0)
        run(CapturedStep.WARM_UP + 2)
        start = time.perf_counter()
        run(TRIAL_STEPS)
        seconds = time.perf_counter() - start
    stack.release()
    return seconds / TRIAL_STEPS / size


def unstackable(network: Network, data: Dataset, differences: Collection[str] = ()) -> str | None:
    """Return why ``torch.func.vmap`` cannot run networks like this one that differ in the settings ``differences`` (a
    forward pass whose course depends on values, say), None if it can. Two images go through copies of its tensors,
    twice, and back, after the rule's feedback has moved where that is a part of the step."""
    rule = shared_rule(network.rule, differences)
    objective, mover = Objective(rule, network.twin), Mover(rule, network.twin)
    copies = {name: torch.stack([t.detach(), t.detach()]) for name, t in network.tensors().items()}
    trained = {name: copies[name].requires_grad_() for name, p in network.twin.named_parameters() if p.requires_grad}
    tensors = {f"twin.{name}": tensor for name, tensor in copies.items()}
    labels = data.train.labels[:2].expand(2, -1)
    inputs = Normalise(data.mean, data.std).to(labels.device)(data.train.images[:2]).expand(2, -1, -1, -1, -1)
    was_training = network.twin.training
    network.twin.train()
    try:
        if rule.moves_by_tensors():
            with explained(rule, "draws or move"):
                draws = network.rule.draws(network.twin, network.step, labels.shape[-1])
                drawn = {label: torch.stack([draw(), draw()]) for label, draw in draws.items()}
                vmap(lambda own, *rest: functional_call(mover, own, rest))(tensors, drawn, inputs, labels)
        with explained(rule, "objective or gradients"):
            rule.gradients(
                trained, vmap(lambda own, x, y: functional_call(objective, own, (x, y)))(tensors, inputs, labels)
            )
    except SharedSettingError as error:
        return str(error)
    except RuntimeError as error:
        return f"torch.func.vmap cannot run this network: {str(error).splitlines()[0].rstrip('. ')}"
    finally:
        network.twin.train(was_training)
    return None


def bytes_per_network(network: Network, data: Dataset) -> int:
    """Return the memory that one more network in a stack takes: weights, gradients, the optimiser's moments, feedback,
    and activations, measured by one forward pass on a copy."""
    parameters = sum(p.nbytes for p in network.twin.parameters())
    buffers = sum(b.nbytes for b in network.twin.buffers())
    moments = 1 if network.config.optimiser == "sgd" else 2
    views = 0 if network.config.augment == "none" else 5 * FLOAT
    order = 2 * len(data.train) * (8 + views)  # of this epoch and the next
    weights = sum(p.nbytes for p in network.model.parameters() if p.requires_grad)
    sketch = (2 * network.config.snapshot_sketch + 3) * weights if network.config.snapshot_sketch else 0
    sketch += monitor_vectors(network.config) * weights
    noise = 0
    if network.rule.moves_by_tensors():
        # Drawn for all layers, put where a recorded step of either size of mini-batch finds it, and put side by side.
        noise = 4 * FLOAT * sum(map(network.rule.drawn_each_step, network.layers))
    # Twice the activations: the backward pass holds the gradients of some beside them.
    own = (2 + moments) * parameters + buffers + order + sketch + noise
    return own + 2 * activation_bytes(network, data)


def activation_bytes(network: Network, data: Dataset) -> int:
    """Return the bytes that autograd keeps of one forward pass on a mini-batch, weights and feedback left out."""
    twin = copy.deepcopy(network.twin).train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*twin.parameters(), *twin.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = slice(network.config.batch_size)
    inputs = Normalise(data.mean, data.std).to(data.train.labels.device)(data.train.images[batch])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step = network.rule.objective(twin, inputs, data.train.labels[batch])
    del step
    return sum(kept.values()) + inputs.nbytes


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on ``device``: of a process in a container, no more than it may have."""
    free = memory.free_memory(device)
    return 2**31 if free is None else free
