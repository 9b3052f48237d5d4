"""Initial feedback alignment: as FA, but the forward weights start at an angle of our choice to the feedback."""

import math
from typing import ClassVar

from torch import Tensor, nn

from alignscape.errors import InputError
from training.rules.fa import FeedbackAlignment
from training.rules.initial import fan_in
from training.rules.wrapping import weight_layers


class InitialFeedbackAlignment(FeedbackAlignment):
    """W starts at ``cos(t) B + sin(t) R`` with B, R ~ N(0, 2 / fan_in) and t = ``angle`` ("One-Time Soft Alignment",
    arXiv 2505.20892). The standard deviation of W is kept; the angle of a row is t in expectation, with a spread of
    about sin(t) / sqrt(fan_in) rad. R is what BP and FA start from with the same seed, so 90 degrees is FA exactly.

    With ``alignment="exact"`` the part of R along B is taken out row by row and the rest stretched to the length of B's
    row: each row (a convolution's filter is one) starts at t to rounding.
    """

    name: ClassVar[str] = "ifa"
    summary: ClassVar[str] = "initial feedback alignment: FA whose weights start at --angle degrees to the feedback"
    options: ClassVar[tuple[str, ...]] = ("backward_scale", "angle", "alignment")
    initial_options: ClassVar[tuple[str, ...]] = options

    def initialise(self, model: nn.Module) -> None:
        super().initialise(model)
        angle = math.radians(self.config.angle)
        # Exactly 0 and 1 at the ends: cos(pi / 2) in floats would leave 6e-17 B in W.
        cosine = 0.0 if self.config.angle == 90 else math.cos(angle)
        scale = self.config.forward_scale / self.config.backward_scale
        for name, layer in weight_layers(model).items():
            weight, feedback = layer.weight.data, self.feedback(name, layer)
            if self.config.alignment == "exact":
                weight.copy_(_across(weight, feedback * scale, name))
            weight.mul_(math.sin(angle)).add_(feedback, alpha=cosine * scale)


def _across(weight: Tensor, feedback: Tensor, name: str) -> Tensor:
    """Return the part of each row of ``weight`` that is orthogonal to ``feedback``'s, stretched to its length.

    Raises:
        InputError: rows of one weight have no direction orthogonal to another.
    """
    if fan_in(weight.shape) < 2:
        raise InputError(f"--alignment exact: the rows of layer {name} have one weight, and so no angle to choose")
    w, b = weight.double().flatten(1), feedback.double().flatten(1)
    b_unit = b / b.norm(dim=1, keepdim=True)
    for _ in range(2):  # the second time takes out what rounding left of the first
        w = w - (w * b_unit).sum(1, keepdim=True) * b_unit
    across = w * (b.norm(dim=1, keepdim=True) / w.norm(dim=1, keepdim=True))
    return across.view_as(weight).to(weight)
