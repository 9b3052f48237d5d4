"""Gradients scaled down to a norm, each network's by itself."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from training.config import TrainConfig

EPSILON = 1e-6  # of torch.nn.utils.clip_grad_norm_, so that both make the same steps


class Clipping:
    """Scales the update of each of E networks by min(1, limit / (norm + 1e-6)), as ``clip_grad_norm_`` does
    (Pascanu et al. 2013).

    Args:
        configs: of the E networks; ``clip_norm`` is the limit, None for no limit.
        own: names of the parameters of the plain network, whose updates the norm is of. Feedback that learns is scaled
            with them, but does not count: so ``kp`` moves it as it moves the weights, and one limit means the same to
            every rule.
        device: of the updates.
    """

    def __init__(self, configs: Sequence[TrainConfig], own: Collection[str], device: torch.device) -> None:
        limits = [math.inf if config.clip_norm is None else config.clip_norm for config in configs]
        self.limits = torch.tensor(limits, device=device) if min(limits) < math.inf else None
        self.own = own

    def __call__(self, updates: Mapping[str, Tensor | None]) -> Mapping[str, Tensor | None]:
        """Return ``updates``, (E, ...) each or without E for one network, clipped; None stays None."""
        counted = [update for name, update in updates.items() if update is not None and name in self.own]
        if self.limits is None or not counted:
            return updates
        rows = [torch.linalg.vector_norm(update.reshape(len(self.limits), -1), dim=1) for update in counted]
        factors = (self.limits / (torch.linalg.vector_norm(torch.stack(rows), dim=0) + EPSILON)).clamp(max=1)
        return {name: None if update is None else self._scaled(update, factors) for name, update in updates.items()}

    def _scaled(self, update: Tensor, factors: Tensor) -> Tensor:
        if len(factors) == 1:
            return update * factors[0]
        return update * factors.view(-1, *[1] * (update.ndim - 1))
