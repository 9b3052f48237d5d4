"""Uniform sign-concordant feedback (Liao et al. 2016; Moskovitz et al. 2018): the error goes down through signs."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from training.rules.base import Rule
from training.rules.feedback import Layer, LayerSize, SignFeedback, WrappedLayer
from training.rules.initial import bernoulli, fan


class UniformSignFeedback(Rule):
    """``delta B`` with B = s sign(W) and s = sqrt(2 / fan_in), the standard deviation that W starts with: B has the
    scale of W then, and so has the signal. The signs follow W; the size never does. Of a sparse B
    (``feedback_density``) the weights that exist are those of the full one.

    The first layer is left plain, since nothing is sent below it.
    """

    name: ClassVar[str] = "usf"
    summary: ClassVar[str] = "uniform sign-concordant feedback: the signs of the weights, one magnitude"
    options: ClassVar[tuple[str, ...]] = ("backward_scale", "feedback_density")

    def magnitude(self, layer: Layer) -> Tensor:
        """Return |B| of a layer, before its run starts: one number, or one for each weight."""
        deviation = self.config.backward_scale / fan(self.config, layer.plain.weight.shape) ** 0.5
        return torch.tensor(deviation, dtype=torch.float64)

    def feedback_size(self, layer: LayerSize, classes: int) -> tuple[int, int]:
        masks = math.prod(layer.weight) if self.config.feedback_density < 1 else 0
        return 0 if layer.first else 1 + masks, 0

    def layer(self, layer: Layer) -> WrappedLayer | None:
        if layer.use.first:
            return None
        weight, mask = layer.plain.weight, None
        if (density := self.config.feedback_density) < 1:
            mask = bernoulli(weight.shape, density, self.stream("mask", layer.name)).to(weight)
        return SignFeedback(layer, self.magnitude(layer).to(weight), mask)
