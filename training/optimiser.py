"""Fused torch optimisers over networks stacked along a leading axis, each with its own learning rate and decay."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.captured import are_recorded
from training.config import TrainConfig

SCHEDULE = (
    *("lr", "lr_steps", "lr_gamma", "schedule", "warmup_epochs", "momentum", "nesterov", "betas"),
    *("weight_decay", "first_epoch_weight_decay", "decay_all"),
)
"""Settings that each network of a stack may have for itself."""


def schedule_key(config: TrainConfig) -> str:
    """Return what tells schedules apart: networks with equal keys share a call of the optimiser."""
    return repr([getattr(config, name) for name in SCHEDULE])


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of the step number ``step``, counted from 0; below 0, on noise, that of the start."""
    passed = [epoch for epoch in config.lr_steps if step // steps_per_epoch >= epoch]
    try:
        rate = config.lr * config.lr_gamma ** (len(passed) if config.schedule == "steps" else 0)
    except OverflowError:  # then the run diverges, which is a result
        return math.inf
    return rate * _course(config, step, steps_per_epoch) if moves_by_steps(config) and step >= 0 else rate


def moves_by_steps(config: TrainConfig) -> bool:
    """Whether the learning rate changes within epochs."""
    return config.schedule == "cosine" or config.warmup_epochs > 0


def _course(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the share of the learning rate that a warm-up, as ``LinearLR`` has it, or a cosine (Loshchilov and Hutter
    2017, eq. 5, without restarts) leaves in ``step``."""
    warm, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / (total - warm))) / 2 if config.schedule == "cosine" else 1.0


def weight_decay(config: TrainConfig, epoch: int) -> float:
    """Return the L2 penalty on weight matrices in ``epoch``, counted from 0."""
    if epoch == 0 and config.first_epoch_weight_decay is not None:
        return config.first_epoch_weight_decay
    return config.weight_decay


class StackOptimiser:
    """``torch.optim.Adam``, ``AdamW`` or ``SGD``, fused, over the parameters of E networks.

    Adam and SGD act on each number apart, so networks that stand side by side and share a schedule are one tensor to
    the optimiser: one pass over the memory of a block of networks instead of a call for each. ``parameters`` are
    (E, ...), or those of one network without that axis. Those named in ``decayed`` are decayed; fixed feedback is a
    buffer and so never is (:func:`training.rules.wrapping.decayed`); with ``decay_all`` the others are too. Where
    its steps are ``recorded`` (None: as usual on the device) the learning rates and counts of steps are tensors there,
    so that a recorded step finds what they have become; the fused kernels take a decay as a number only.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        parameters: Mapping[str, Tensor],
        decayed: Collection[str],
        *,
        recorded: bool | None = None,
    ) -> None:
        device = next(iter(parameters.values())).device
        self.recorded = are_recorded(device) if recorded is None else recorded
        self.stacked = len(configs) > 1
        self.parameters = parameters
        self.decayed = decayed
        self.blocks: list[tuple[TrainConfig, slice]] = []
        for _, members in itertools.groupby(range(len(configs)), key=lambda e: schedule_key(configs[e])):
            rows = list(members)
            self.blocks.append((configs[rows[0]], slice(rows[0], rows[-1] + 1)))
        self.views = [{name: self._rows(p.detach(), rows) for name, p in parameters.items()} for _, rows in self.blocks]
        self.torch = self._build()

    def _rows(self, tensor: Tensor, rows: slice) -> Tensor:
        return tensor[rows] if self.stacked else tensor

    def _build(self) -> torch.optim.Optimizer:
        groups = []
        for (config, _), views in zip(self.blocks, self.views, strict=True):
            shared: dict[str, Any] = {"lr": config.lr}
            if self.recorded:
                shared["lr"] = torch.tensor(config.lr, device=next(iter(views.values())).device)
            if config.optimiser == "sgd":
                shared |= {"momentum": config.momentum, "nesterov": config.nesterov and config.momentum > 0}
            else:
                shared["betas"] = config.betas
            groups.append({**shared, "params": [v for n, v in views.items() if n in self.decayed]})
            groups.append({**shared, "params": [v for n, v in views.items() if n not in self.decayed]})
        config = self.blocks[0][0]
        if config.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
        # One pass over the weights instead of about ten. Capturable: the count of steps stays on the device.
        kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
        adam = kind(groups, lr=config.lr, fused=True, capturable=self.recorded)
        # It would warn of the steps before a recording, which run as they are.
        adam._warned_capturable_if_run_uncaptured = True
        return adam

    def set_epoch(self, epoch: int) -> bool:
        """Set learning rates and decays of ``epoch`` (from 0); return whether a recorded step does not see it."""
        before = [group["weight_decay"] for group in self.torch.param_groups]
        for (config, _), groups in zip(self.blocks, self._groups(), strict=True):
            decay = weight_decay(config, epoch)
            self._set_rate(groups, learning_rate(config, epoch, 1))
            for group, share in zip(groups, (decay, decay if config.decay_all else 0.0), strict=True):
                group["weight_decay"] = share
        return before != [group["weight_decay"] for group in self.torch.param_groups]

    def set_step(self, step: int, steps_per_epoch: int) -> None:
        """Set the learning rates of ``step`` where they change within an epoch."""
        for (config, _), groups in zip(self.blocks, self._groups(), strict=True):
            if moves_by_steps(config):
                self._set_rate(groups, learning_rate(config, step, steps_per_epoch))

    def _groups(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the torch groups of each block: those that are decayed, and the others."""
        groups = self.torch.param_groups
        yield from zip(groups[::2], groups[1::2], strict=True)

    def _set_rate(self, groups: tuple[dict[str, Any], ...], rate: float) -> None:
        for group in groups:
            group["lr"] = group["lr"].fill_(_in_float32(rate)) if self.recorded else rate

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Move every parameter by its gradient of the same shape; None leaves it where it is, decay included."""
        for (_, rows), views in zip(self.blocks, self.views, strict=True):
            for name, view in views.items():
                gradient = gradients[name]
                view.grad = None if gradient is None else self._rows(laid_out_as(gradient, self.parameters[name]), rows)
        self.torch.step()
        for views in self.views:
            for view in views.values():
                view.grad = None  # gradients end with the step: where one is recorded, their memory is the next one's

    def moving(self) -> Iterator[Tensor]:
        """Yield what a step changes besides the parameters."""
        for state in self.torch.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def state(self, network: int) -> dict[str, dict[str, Tensor]]:
        """Return moments and step counts of one network by parameter, on the CPU: the same whatever stack it is in."""
        rows, views = next(
            (r, v) for (_, r), v in zip(self.blocks, self.views, strict=True) if r.start <= network < r.stop
        )
        kept: dict[str, dict[str, Tensor]] = {}
        for name, view in views.items():
            moments = self.torch.state.get(view, {})
            kept[name] = {
                key: (value[network - rows.start] if self._is_moment(value) else value).detach().to("cpu", copy=True)
                for key, value in moments.items()
                if value is not None
            }
        return kept

    def _is_moment(self, value: Tensor) -> bool:
        """Whether ``value`` has a row for each network, as moments have and counts of steps have not."""
        return self.stacked and value.ndim > 0

    def restore(self, states: Sequence[dict[str, dict[str, Tensor]]]) -> None:
        """Undo :meth:`state`, with one state for each network; all must have taken the same number of steps."""
        for (_, rows), views in zip(self.blocks, self.views, strict=True):
            members = states[rows]
            for name, view in views.items():
                if members[0][name]:
                    self.torch.state[view] = {
                        key: self._join([member[name][key] for member in members]).to(view.device)
                        for key in members[0][name]
                    }

    def _join(self, values: list[Tensor]) -> Tensor:
        if not self.stacked or values[0].ndim == 0:
            return values[0].clone()
        return torch.stack(values)


def _in_float32(number: float) -> float:
    return math.inf if number > torch.finfo(torch.float32).max else number


def laid_out_as(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return ``gradient`` in the memory layout of ``parameter``: fused optimisers run through both memories in step,
    whatever the strides say, and a batched product may return its result transposed."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
