"""Batch-wise random-magnitude sign-concordant feedback (Liao et al. 2016; Moskovitz et al. 2018)."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.rules.base import wrapped_layers
from training.rules.feedback import LayerSize, SignFeedback
from training.rules.frsf import FixedRandomSignFeedback


class BatchRandomSignFeedback(FixedRandomSignFeedback):
    """``delta B`` with B = |M| sign(W) and M ~ N(0, 2 / fan_in), drawn anew for each mini-batch."""

    name: ClassVar[str] = "brsf"
    summary: ClassVar[str] = "sign-concordant feedback with random magnitudes, drawn anew for each mini-batch"
    moves_feedback: ClassVar[bool] = True

    def drawn_each_step(self, layer: LayerSize) -> int:
        return 0 if layer.first else math.prod(layer.weight)

    def draws(self, twin: nn.Module, step: int, samples: int) -> dict[str, Callable[[], Tensor]]:
        return {
            name: partial(self.draw, layer.feedback, "magnitude", name, step, device=layer.feedback.device)
            for name, layer in wrapped_layers(twin).items()
            if isinstance(layer, SignFeedback)
        }

    @torch.no_grad()
    def move(
        self, twin: nn.Module, drawn: Mapping[str, Tensor], inputs: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        for name, layer in wrapped_layers(twin).items():
            if isinstance(layer, SignFeedback):
                layer.feedback.copy_(drawn[name]).abs_()
