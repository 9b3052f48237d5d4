"""Feedback alignment (Lillicrap et al. 2016): the error goes down through fixed random weights."""

from typing import ClassVar

from torch import Tensor, nn

from training.rules.base import Rule, he_normal, replace_linear
from training.rules.feedback import FeedbackLinear


class FeedbackAlignment(Rule):
    """``delta B`` with B ~ N(0, 2 / fan_in): the distribution of W, independent of it.

    The first layer has a B too. Training never uses it; it completes the network's own backward path to the
    pixels, which the ``feedback`` mode of an attack follows.
    """

    name: ClassVar[str] = "fa"
    summary: ClassVar[str] = "feedback alignment: errors return through fixed random weights"

    def feedback(self, name: str, layer: nn.Linear) -> Tensor:
        """Draw B (out, in) of the layer called ``name``, on its device."""
        return he_normal(layer.weight.shape, self.stream("feedback", name)).to(layer.weight)

    def wrap(self, model: nn.Module) -> nn.Module:
        return replace_linear(model, lambda name, layer: FeedbackLinear(layer, self.feedback(name, layer)))
