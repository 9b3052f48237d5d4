"""How well a rule's update follows the true gradient of the loss, layer by layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignscape.seeding import generator
from training.angles import angle_between
from training.losses import TrainingLoss
from training.rules import Rule
from training.rules.wrapping import weight_layers

ALL = "all"  # the name of all trainable parameters together


@dataclass(frozen=True, kw_only=True)
class GradientAlignment:
    """Agreement of a rule's update with the true gradient, for one layer's weights (or all parameters).

    An update and its gradient come from the same mini-batch, as in training: the per-batch measures are means over
    mini-batches, with a 95 % interval for the mean over all mini-batches of that size (Student's t, NaN for one).
    Made by :func:`gradient_alignment`.

    Attributes:
        cosine: mean over mini-batches of cos(update, gradient).
        cosine_low: lower end of its interval.
        cosine_high: upper end.
        angle: degrees; mean over mini-batches of the angle.
        angle_low: lower end of its interval.
        angle_high: upper end.
        sample_cosine: of the two sums over all samples: what a step on all of them would see.
        n_samples: samples used.
        n_batches: mini-batches with a gradient that is not 0.
        batch_size: samples a mini-batch.

    Example:
        >>> from training import Normalise, TrainConfig, build_model, gradient_alignment, load_split, make_rule
        >>> rule = make_rule(TrainConfig(rule="fa", hidden=(32, 32)))
        >>> model = build_model(rule.config, (1, 8, 8), 10)
        >>> rule.initialise(model)
        >>> test = load_split("digits", "test")
        >>> data = Normalise((0.3051,), (0.3757,))(test.images), test.labels
        >>> found = gradient_alignment(model, rule.wrap(model, (1, 8, 8)), rule, data, batch_size=64)
        >>> found["layers.1"].cosine_low <= found["layers.1"].cosine <= found["layers.1"].cosine_high
        True
        >>> found["layers.1"].n_samples, found["layers.1"].n_batches
        (320, 5)
    """

    cosine: float
    cosine_low: float
    cosine_high: float
    angle: float
    angle_low: float
    angle_high: float
    sample_cosine: float
    n_samples: int
    n_batches: int
    batch_size: int


def gradient_alignment(
    model: nn.Module,
    twin: nn.Module,
    rule: Rule,
    data: tuple[Tensor, Tensor],
    *,
    batch_size: int,
    seed: int = 0,
) -> dict[str, GradientAlignment]:
    """Compare the update of ``rule`` with the gradient of the mean loss of the run, in evaluation mode.

    The gradient is taken through the plain ``model``, never through ``twin``, so that it is the true one whatever the
    rule does. Modes are restored; no ``.grad`` is touched. A mini-batch whose gradient is 0 has no direction and is
    left out; an update of 0 against a gradient that is not counts as 90 degrees.

    Args:
        model: the plain network.
        twin: its training twin, with the same parameter values.
        rule: that made the twin.
        data: normalised inputs (N, C, H, W) and labels (N,), on the model's device.
        batch_size: samples a mini-batch; the last, smaller one is left out. At most N are taken.
        seed: of the order in which samples are put into mini-batches.

    Returns:
        One entry for each layer with a weight matrix (its weights without the bias), in order of registration, and
        :data:`ALL` for all trainable parameters.

    Example:
        >>> from training import Normalise, TrainConfig, build_model, gradient_alignment, load_split, make_rule
        >>> rule = make_rule(TrainConfig(rule="fa", hidden=(32, 32)))
        >>> model = build_model(rule.config, (1, 8, 8), 10)
        >>> rule.initialise(model)
        >>> test = load_split("digits", "test")
        >>> data = Normalise((0.3051,), (0.3757,))(test.images), test.labels
        >>> found = gradient_alignment(model, rule.wrap(model, (1, 8, 8)), rule, data, batch_size=64)
        >>> {layer: one.cosine > 0.999 for layer, one in found.items()}  # the last layer's update is its gradient
        {'layers.0': False, 'layers.1': False, 'layers.2': True, 'all': False}
    """
    inputs, labels = data
    loss = TrainingLoss.of(rule.config)
    size = min(batch_size, len(labels))
    order = torch.randperm(len(labels), generator=generator(seed, "gradient alignment")).to(labels.device)
    plain = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = {name: p for name, p in twin.named_parameters() if name in plain}
    groups = {name: [f"{name}.weight" if name else "weight"] for name in weight_layers(model)} | {ALL: list(plain)}
    pairs = {name: _Pairs() for name in groups}
    modes = model.training, twin.training
    model.eval()
    twin.eval()
    try:
        for batch in order[: len(labels) // size * size].split(size):
            truth = _gradient(model, plain, loss, inputs[batch], labels[batch])
            update = rule.gradients(trained, rule.objective(twin, inputs[batch], labels[batch]))
            for group, names in groups.items():
                pairs[group].add(*(_flat(tensors, plain, names) for tensors in (update, truth)))
    finally:
        model.train(modes[0])
        twin.train(modes[1])
    return {name: found.summary(size) for name, found in pairs.items()}


def rule_update(model: nn.Module, twin: nn.Module, rule: Rule, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the direction (P,) that ``rule`` gives the trainable parameters of ``model``, in their order, on these
    samples in evaluation mode, before the optimiser: for ``bp`` the gradient. The arguments are those of
    :func:`gradient_alignment`."""
    plain = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = {name: p for name, p in twin.named_parameters() if name in plain}
    was_training = twin.training
    twin.eval()
    try:
        return _flat(rule.gradients(trained, rule.objective(twin, inputs, labels)), plain, list(plain))
    finally:
        twin.train(was_training)


def _gradient(
    model: nn.Module, parameters: Mapping[str, Tensor], loss: TrainingLoss, inputs: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    value = loss.mean(model(inputs), labels)
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}


def _flat(tensors: Mapping[str, Tensor | None], like: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Concatenate the tensors of ``names``; one that is missing is 0."""
    return torch.cat([torch.zeros_like(like[n]).view(-1) if (t := tensors.get(n)) is None else t.reshape(-1)
                      for n in names]).detach()  # fmt: skip


class _Pairs:
    """Pairs of an update and a gradient, one for each mini-batch, of one layer."""

    def __init__(self) -> None:
        self.angles: list[float] = []
        self.batches = 0
        self.sums: tuple[Tensor, Tensor] | None = None

    def add(self, update: Tensor, truth: Tensor) -> None:
        self.batches += 1
        if bool(truth.any()):
            self.angles.append(angle_between(update, truth))
        self.sums = (update, truth) if self.sums is None else (self.sums[0] + update, self.sums[1] + truth)

    def summary(self, size: int) -> GradientAlignment:
        angles = torch.tensor(self.angles, dtype=torch.float64)
        cosine, angle = mean_interval(torch.deg2rad(angles).cos()), mean_interval(angles)
        known = self.sums is not None and bool(self.sums[1].any())
        return GradientAlignment(
            cosine=cosine[0],
            cosine_low=max(cosine[1], -1.0),
            cosine_high=min(cosine[2], 1.0),
            angle=angle[0],
            angle_low=max(angle[1], 0.0),
            angle_high=min(angle[2], 180.0),
            sample_cosine=math.cos(math.radians(angle_between(*self.sums))) if known and self.sums else math.nan,
            n_samples=self.batches * size,
            n_batches=len(self.angles),
            batch_size=size,
        )


def mean_interval(values: Tensor) -> tuple[float, float, float]:
    """Return the mean of ``values`` (N,) and Student's 95 % interval for it; NaN where there are too few."""
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = values.mean().item()
    if len(values) < 2:
        return mean, math.nan, math.nan
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1)) * values.std().item() / math.sqrt(len(values))
    return mean, mean - half, mean + half


def as_metrics(found: Mapping[str, GradientAlignment]) -> dict[str, float]:
    """Return the columns ``gradient_cosine_LAYER`` of ``metrics.csv``."""
    return {f"gradient_cosine_{layer}": one.cosine for layer, one in found.items()}
