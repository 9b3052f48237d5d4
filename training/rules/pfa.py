"""Product feedback alignment (arXiv 2405.20594): the error goes down through two matrices, one of them plastic."""

import math
from typing import ClassVar

import torch
from torch import nn

from training.rules.base import Rule, first_linear, he_normal, replace_linear
from training.rules.feedback import ProductFeedbackLinear


class ProductFeedbackAlignment(Rule):
    """``(delta B) R`` with B (out, k out) fixed, uniform with E[B B^T] = I, and R (k out, in) plastic.

    R starts from N(0, 2 / fan_in), so that B R starts from the distribution of W, and learns from ``(delta B)^T x``
    with the optimiser, learning rate and decay of W. Once the large decay of the first epoch has made both forget
    their start, R ~ B^T W and the path B R ~ B B^T W: an angle of arccos(1 / sqrt(1 + 1/k)) to W. The first layer is
    left plain, since nothing is sent below it and its B and R would be the largest of all.
    """

    name: ClassVar[str] = "pfa"
    summary: ClassVar[str] = "product feedback alignment: a fixed and a plastic matrix in series"

    def wrap(self, model: nn.Module) -> nn.Module:
        first = first_linear(model)

        def product(name: str, layer: nn.Linear) -> nn.Module | None:
            if name == first:
                return None
            middle = self.config.expansion * layer.out_features
            bound = math.sqrt(3 / middle)  # variance 1 / (k out)
            uniform = torch.rand(layer.out_features, middle, generator=self.stream("feedback", name))
            plastic = he_normal((middle, layer.in_features), self.stream("plastic", name))
            fixed = (2 * uniform - 1) * bound
            return ProductFeedbackLinear(layer, fixed.to(layer.weight), plastic.to(layer.weight))

        return replace_linear(model, product)
