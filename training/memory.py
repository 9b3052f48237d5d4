"""What a run needs at least, from its config alone: memory that is not there is refused before anything is made."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from alignscape.memory import require_disk, require_memory
from training.config import TrainConfig
from training.rules import Rule, make_rule
from training.rules.feedback import LayerSize
from training.rules.others import is_ours
from training.rules.wrapping import uses, weight_layers

STEP = 100  # bytes of a step number and its place in a list and a dictionary
FLOAT = 4  # bytes: weights, feedback and all that goes with them are float32
EVALUATED, EVALUATION_BYTES = 20_000, 2**31  # images at once, and the memory that they may take
ADVICE = "give fewer --hidden units, a smaller --expansion, --snapshot-sketch or --monitor-k, or fewer networks at "
ADVICE += "once (--stack)"


def mlp_layers(config: TrainConfig, features: int, classes: int) -> list[LayerSize]:
    """Return the layers of the MLP of ``config``, which need not be made for that."""
    widths = (features, *config.hidden, classes)
    return [LayerSize((out, n), n, first=not i, outputs=out) for i, (n, out) in enumerate(itertools.pairwise(widths))]


def layers_of(model: nn.Module, input_shape: tuple[int, ...]) -> list[LayerSize]:
    """Return the weight layers of a model that images flow through."""
    layers = weight_layers(model)
    return [
        LayerSize(
            tuple(layers[name].weight.shape),
            use.input_shape.numel(),
            use.first,
            getattr(layers[name], "groups", 1),
            use.output_shape.numel(),
        )
        for name, use in uses(model, input_shape).items()
    ]


def training_bytes(config: TrainConfig, rule: Rule, layers: Sequence[LayerSize], classes: int) -> dict[str, int]:
    """Return the bytes that training one network surely takes, by what they hold: activations and the data come on
    top. Of the feedback of somebody else's rule nothing is known."""
    weights = sum(math.prod(layer.weight) for layer in layers)
    fixed = plastic = noise = 0
    if is_ours(type(rule)):
        sizes = [rule.feedback_size(layer, classes) for layer in layers]
        fixed, plastic = (sum(size[kind] for size in sizes) for kind in (0, 1))
        noise = max(map(rule.drawn_each_step, layers), default=0)
    moments = 2 if config.optimiser != "sgd" else int(config.momentum > 0)
    numbers = {
        "weights": weights,
        "feedback": fixed + plastic,
        "gradients": weights + plastic,
        "optimiser": moments * (weights + plastic),
        "sketch": _sketch_rows(config) * weights,
        "monitor": monitor_vectors(config) * weights,
        "noise": max(noise - weights - plastic, 0),  # it may be gone when the gradients come
    }
    return {name: FLOAT * number for name, number in numbers.items()}


def monitor_vectors(config: TrainConfig) -> int:
    """Return how many vectors of all weights a monitor keeps from one measurement to the next."""
    return 0 if config.monitor == "none" else config.monitor_k + int(config.optimiser != "sgd")


def _sketch_rows(config: TrainConfig) -> int:
    """Return how many rows of all weights a sketch fills: its buffer (one row a step, while it is not full), the start
    and, in float64, the sum."""
    if not config.snapshot_sketch:
        return 0
    rows = 2 * config.snapshot_sketch
    if config.train_size is not None:
        rows = min(rows, config.epochs * math.ceil(config.train_size / config.batch_size) + 1)
    return rows + 3


def require_room(
    configs: Sequence[TrainConfig],
    rule: Rule,
    layers: Sequence[LayerSize],
    classes: int,
    device: torch.device | None = None,
) -> None:
    """Refuse networks that cannot train together for want of memory, of one architecture and one rule.

    Raises:
        InputError: they need more than there is.
    """
    each = [training_bytes(config, rule, layers, classes) for config in configs]
    needed = {name: sum(one[name] for one in each) for name in each[0]}
    what = f"training {len(configs)} networks at once" if len(configs) > 1 else "training"
    require_memory(needed, what, ADVICE, device=device)
    if device is not None and device.type != "cpu":  # where a network is made before it is moved
        made = {name: each[0][name] for name in ("weights", "feedback")}
        require_memory(made, "making a network", ADVICE)


def require_room_for_each(configs: Sequence[TrainConfig], device: torch.device) -> None:
    """Refuse configs of MLPs that cannot train for want of memory, by what is known without their data.

    Raises:
        InputError: one needs more than there is; its rule refuses it.
    """
    distinct = {_sized(config): config for config in configs if config.model == "mlp"}
    for config in distinct.values():
        require_room([config], make_rule(config), mlp_layers(config, 1, 1), 1, device)


def _sized(config: TrainConfig) -> tuple[object, ...]:
    """Return what :func:`training_bytes` depends on, of MLPs."""
    rule = config.rule, config.expansion, config.feedback_density
    steps = config.epochs, config.batch_size, config.train_size
    return *rule, config.hidden, config.optimiser, config.momentum > 0, config.snapshot_sketch, *steps


def samples_at_once(layers: Sequence[LayerSize]) -> int:
    """Return how many images, over all networks of a stack, are evaluated in one pass: as many as make stacks fast, if
    what a layer takes, gives and leaves after its activation is not more than ``EVALUATION_BYTES``."""
    widest = max((max(layer.inputs, layer.outputs or layer.weight[0]) for layer in layers), default=1)
    return max(1, min(EVALUATED, EVALUATION_BYTES // (3 * FLOAT * widest)))


def require_room_to_search(config: TrainConfig, weights: int, device: torch.device) -> None:
    """Refuse a monitor whose search for eigenvectors no memory holds: its basis is made anew at each measurement.

    Raises:
        InputError: it needs more than there is.
    """
    if config.monitor != "none":
        rows = min(max(2 * config.monitor_k + 30, 40), weights)
        what = f"a search for {config.monitor_k:,} eigenvectors"
        require_memory({"basis": FLOAT * rows * weights}, what, "give a smaller --monitor-k", device=device)


def snapshot_count(total_steps: int, every: int) -> int:
    """Return how many rows a trajectory has: ``len(snapshot_steps(total_steps, every))``."""
    return total_steps // every + 1 + bool(total_steps % every)


def require_room_for_snapshots(
    configs: Sequence[TrainConfig], folders: Sequence[Path], weights: int, steps_per_epoch: int
) -> None:
    """Refuse trajectories of networks with so many ``weights`` that the disk, or the memory for the lists of their
    steps, does not hold.

    Raises:
        InputError: the lists do not fit.
        OSError: the disk is too full.
    """
    rows = size = 0
    for config, folder in zip(configs, folders, strict=True):
        if config.snapshot_every and not (folder / "trajectory.npy").exists():  # a resumed run has its room
            own = snapshot_count(config.epochs * steps_per_epoch, config.snapshot_every)
            rows, size = rows + own, size + own * weights * (4 if config.snapshot_dtype == "float32" else 2)
    if rows:
        what, advice = f"a trajectory of {rows:,} snapshots", "give a larger --snapshot-every or fewer --epochs"
        require_disk(size, folders[0], what, advice)
        require_memory({"steps": STEP * rows}, what, advice)
