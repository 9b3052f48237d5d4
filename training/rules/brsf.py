"""Batch-wise random-magnitude sign-concordant feedback (Liao et al. 2016; Moskovitz et al. 2018)."""

from typing import ClassVar

import torch
from torch import nn

from training.rules.base import wrapped_layers
from training.rules.feedback import SignFeedback
from training.rules.frsf import FixedRandomSignFeedback


class BatchRandomSignFeedback(FixedRandomSignFeedback):
    """``delta B`` with B = |M| sign(W) and M ~ N(0, 2 / fan_in), drawn anew for each mini-batch."""

    name: ClassVar[str] = "brsf"
    summary: ClassVar[str] = "sign-concordant feedback with random magnitudes, drawn anew for each mini-batch"
    moves_feedback: ClassVar[bool] = True

    @torch.no_grad()
    def before_step(self, twin: nn.Module, step: int) -> None:
        for name, layer in wrapped_layers(twin).items():
            if isinstance(layer, SignFeedback):
                drawn = self.draw(layer.feedback, "magnitude", name, step, device=layer.feedback.device)
                layer.feedback.copy_(drawn).abs_()
