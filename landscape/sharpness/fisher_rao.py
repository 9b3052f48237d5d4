"""The Fisher-Rao norm of the weights."""

import torch

from landscape.sharpness.losses import LossAround, interval
from landscape.traces import Estimate


def fisher_rao(around: LossAround) -> Estimate:
    """Return ``sqrt(mean over samples of <gradient of the sample's loss, w>^2)`` (Liang et al. 2019, definition 1).

    The labels are those of the data, as there. Of a network of L layers without biases it is
    ``L sqrt(mean <dl/df, f>^2)`` (theorem 3.1). Whatever rescaling leaves the function as it is multiplies a gradient
    by what it divides the weight by, so that every product of the two stays.

    Example:
        >>> import torch
        >>> from landscape import LossAround, fisher_rao
        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 2.0)
        >>> around = LossAround(model, torch.nn.MSELoss(), (torch.ones(3, 1), torch.zeros(3, 1)))
        >>> round(fisher_rao(around).value, 6)  # of w^2 it is 2 w * w
        8.0
    """
    squares = around.slopes(around.centre, around.centre, power=2)
    value = float(around.shares @ squares) ** 0.5
    parts = squares / (2 * value) if value > 0 else torch.zeros_like(squares)
    return interval(value, parts, around.shares)
