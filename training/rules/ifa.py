"""Initial feedback alignment: as FA, but the forward weights start at an angle of our choice to the feedback."""

import math
from typing import ClassVar

from torch import nn

from training.rules.base import linear_layers
from training.rules.fa import FeedbackAlignment


class InitialFeedbackAlignment(FeedbackAlignment):
    """W starts at ``cos(t) B + sin(t) R`` with B, R ~ N(0, 2 / fan_in) and t = ``angle`` ("One-Time Soft Alignment",
    arXiv 2505.20892). The standard deviation of W is kept; the angle of a row is t in expectation, with a spread of
    about sin(t) / sqrt(fan_in) rad. R is what BP and FA start from with the same seed, so 90 degrees is FA exactly.
    """

    name: ClassVar[str] = "ifa"
    summary: ClassVar[str] = "initial feedback alignment: FA whose weights start at --angle degrees to the feedback"

    def initialise(self, model: nn.Module) -> None:
        super().initialise(model)
        angle = math.radians(self.config.angle)
        # Exactly 0 and 1 at the ends: cos(pi / 2) in floats would leave 6e-17 B in W.
        cosine = 0.0 if self.config.angle == 90 else math.cos(angle)
        for name, layer in linear_layers(model).items():
            layer.weight.data.mul_(math.sin(angle)).add_(self.feedback(name, layer), alpha=cosine)
