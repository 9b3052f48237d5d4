"""Product feedback alignment (arXiv 2405.20594): the error goes down through two matrices, one of them plastic."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from training.rules.base import Rule
from training.rules.feedback import Layer, LayerSize, ProductFeedback, WrappedLayer
from training.rules.initial import bernoulli, starting


class ProductFeedbackAlignment(Rule):
    """``(delta B) R`` with B (out, k out) fixed, uniform with E[B B^T] = I, and R (k out, in) plastic.

    R starts from N(0, 2 / fan_in), the variance of W, so that B R starts from it too, and learns from ``(delta B)^T x``
    with the optimiser, learning rate and decay of W. Once the large decay of the first epoch has made both forget
    their start, R ~ B^T W and the path B R ~ B B^T W: an angle of arccos(1 / sqrt(1 + 1/k)) to W. The first layer is
    left plain, since nothing is sent below it and its B and R would be the largest of all.

    Of a convolution B is 1 x 1, (out, k out / groups, 1, 1), and R is (k out, in / groups, kh, kw). Masks of
    ``feedback_density`` d act on B and R at every use; what is left of B is stretched by 1 / sqrt(d), so that
    E[B B^T] = I at any density.
    """

    name: ClassVar[str] = "pfa"
    summary: ClassVar[str] = "product feedback alignment: a fixed and a plastic matrix in series"
    options: ClassVar[tuple[str, ...]] = ("backward_scale", "expansion", "feedback_density")

    def expansion(self) -> int:
        """k, the width of the middle in outputs."""
        return self.config.expansion

    def stretch(self) -> float:
        """Return what the feedback weights of B that exist are multiplied by, for those that do not."""
        return self.config.feedback_density**-0.5

    def feedback_size(self, layer: LayerSize, classes: int) -> tuple[int, int]:
        if layer.first:
            return 0, 0
        out, *row = layer.weight
        middle = self.expansion() * out
        plastic = middle * math.prod(row)
        masks = plastic if self.config.feedback_density < 1 else 0
        return out * (middle // layer.groups) + masks, plastic

    def layer(self, layer: Layer) -> WrappedLayer | None:
        if layer.use.first:
            return None
        weight = layer.plain.weight
        groups = getattr(layer.plain, "groups", 1)
        middle = self.expansion() * len(weight)
        fixed = self.fixed(layer.name, len(weight), middle // groups, groups)
        fixed = fixed.reshape(*fixed.shape, *[1] * (weight.ndim - 2)).to(weight)
        random, shape = self.stream("plastic", layer.name), (middle, *weight.shape[1:])
        plastic = starting(self.config, shape, self.config.backward_scale, random, of=weight.shape)
        plastic, mask = plastic.to(weight), None
        if (density := self.config.feedback_density) < 1:
            fixed *= bernoulli(fixed.shape, density, self.stream("mask", layer.name)).to(weight) * self.stretch()
            mask = bernoulli(plastic.shape, density, self.stream("plastic mask", layer.name)).to(weight)
        return ProductFeedback(layer, fixed, plastic, mask)

    def fixed(self, name: str, out: int, middle: int, groups: int) -> Tensor:
        """Draw B (out, middle of a group): uniform, variance 1 / middle, so that E[B B^T] = I within a group."""
        uniform = torch.rand(out, middle, generator=self.stream("feedback", name))
        return (2 * uniform - 1) * math.sqrt(3 / middle)
