"""Fixed random-magnitude sign-concordant feedback (Liao et al. 2016; Moskovitz et al. 2018)."""

from typing import ClassVar

from torch import Tensor

from training.rules.feedback import Layer
from training.rules.usf import UniformSignFeedback


class FixedRandomSignFeedback(UniformSignFeedback):
    """``delta B`` with B = |M| sign(W) and M ~ N(0, 2 / fan_in), drawn once: B starts with the distribution of W."""

    name: ClassVar[str] = "frsf"
    summary: ClassVar[str] = "sign-concordant feedback with random magnitudes, drawn once"

    def magnitude(self, layer: Layer) -> Tensor:
        return self.draw(layer.plain.weight, "magnitude", layer.name).abs()
