"""Worst-case sharpness: how far the loss rises within a ball around the weights.

    max  L(w + d) - L(w)   over   |d / t|_p <= radius

with t = 1 and p = 2 (Foret et al. 2021), t = |w| and p = 2 (Kwon et al. 2021), t = |w| + 1 and p = infinity (Keskar et
al. 2017). In e = d / t it is a ball about 0, in which the loss has the gradient t g.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignscape.errors import InputError
from landscape.sharpness.losses import LossAround, interval
from landscape.traces import Estimate

Scale = Literal["one", "magnitude", "magnitude + 1"]
_GROWTH, _SHRINK, _SMALLEST = 1.5, 0.5, 1e-4  # of the step, relative to the radius


@dataclass(frozen=True)
class Ball:
    """The perturbations d with ``|d / scale|_norm <= radius``.

    Attributes:
        radius: rho, or epsilon.
        scale: (P,), what each weight's part is measured in.
        norm: 2 or infinity.

    Example:
        >>> import torch
        >>> from landscape import Ball
        >>> weights = torch.tensor([3.0, -4.0])
        >>> Ball.around(weights, 1.0, "magnitude + 1", "linf").scale
        tensor([4., 5.])
    """

    radius: float
    scale: Tensor
    norm: Literal["l2", "linf"] = "l2"

    @classmethod
    def around(cls, weights: Tensor, radius: float, scale: Scale, norm: Literal["l2", "linf"] = "l2") -> "Ball":
        """Return the ball around ``weights`` (P,)."""
        sizes = {"one": torch.ones_like(weights), "magnitude": weights.abs(), "magnitude + 1": weights.abs() + 1}
        return cls(radius, sizes[scale], norm)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the e (P,) of the ball's boundary along which a loss with this gradient (P,) by e rises fastest; zero
        where the gradient is."""
        if self.norm == "linf":
            return self.radius * gradient.sign()
        return gradient * (self.radius / length if (length := float(gradient.double().norm())) > 0 else 0.0)

    def project(self, point: Tensor) -> Tensor:
        """Return the point of the ball next to the e given."""
        if self.norm == "linf":
            return point.clamp(-self.radius, self.radius)
        return point * min(1.0, self.radius / max(float(point.double().norm()), torch.finfo(torch.float64).tiny))


def first_order_rise(around: LossAround, ball: Ball) -> Estimate:
    """Return the rise at the point where the loss's linear part is largest in the ball: one step of SAM or ASAM.

    The interval over samples holds what the gradient's own error does to that point (delta method; of an L-infinity
    ball, whose corner does not move with the gradient, there is no such part).

    Args:
        around: the loss.
        ball: where the weights may go.

    Example:
        >>> import torch
        >>> from landscape import Ball, LossAround, first_order_rise
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 1.0)
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
        >>> around = LossAround(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> found = first_order_rise(around, Ball.around(around.centre, 0.1, "one"))
        >>> round(found.value, 3)  # from (1 + 9) / 2 along (1, 9)
        0.95
    """
    before, gradient = around.gradient(around.centre)
    seen = ball.scale * gradient
    point = ball.steepest(seen)
    moved = around.centre + ball.scale * point
    after, there = around.gradient(moved)
    parts = around.by_group(moved) - around.by_group(around.centre)
    length = float(seen.double().norm())
    if ball.norm == "l2" and length > 0:
        slope = ball.scale * there
        unit = seen / length
        turn = ball.scale * (slope - unit * (unit @ slope)) * (ball.radius / length)
        parts = parts + around.slopes(around.centre, turn)
    return interval(after - before, parts, around.shares)


def worst_case_rise(around: LossAround, ball: Ball, *, steps: int = 20) -> Estimate:
    """Return the largest rise that ``steps`` steps of ascent find in the ball: the worst case is at least that.

    Projected steepest ascent from the first-order point (a random one where the gradient is zero). A step that does not
    raise the loss is halved, one that does grows by half, and the best point is kept. The interval over samples is that
    of the rise at that point, which to first order is all: the worst case does not change as its point moves (Danskin's
    theorem).

    Args:
        around: the loss.
        ball: where the weights may go.
        steps: of ascent, each a forward and a backward pass over the data.

    Raises:
        InputError: ``steps < 1``.

    Example:
        >>> import torch
        >>> from landscape import Ball, LossAround, worst_case_rise
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 1.0)
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
        >>> around = LossAround(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> ball = Ball.around(around.centre, 0.1, "magnitude")
        >>> round(worst_case_rise(around, ball, steps=50).value, 3)
        0.95
    """
    return interval(*worst_point(around, ball, steps=steps))


def worst_point(around: LossAround, ball: Ball, *, steps: int) -> tuple[float, Tensor, Tensor]:
    """Return the rise, its parts by group (G,), and the shares of the groups (G,): see :func:`worst_case_rise`.

    Raises:
        InputError: ``steps < 1``.
    """
    if steps < 1:
        raise InputError(f"the ascent has {steps} steps; it needs 1 or more")
    before, gradient = around.gradient(around.centre)
    if not gradient.any():  # a stationary point, from which steepest ascent goes nowhere
        generator = torch.Generator(device=gradient.device).manual_seed(0)
        gradient = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype, device=gradient.device)
    point, best = torch.zeros_like(around.centre), before
    step = 1.0
    for _ in range(steps):
        trial = ball.project(point + step * ball.steepest(ball.scale * gradient))
        value, slope = around.gradient(around.centre + ball.scale * trial)
        if value > best:
            point, best, gradient = trial, value, slope
            step = min(step * _GROWTH, 1e3)
        elif (step := step * _SHRINK) < _SMALLEST:
            break
    moved = around.centre + ball.scale * point
    parts = around.by_group(moved) - around.by_group(around.centre)
    return best - before, parts, around.shares


def keskar_sharpness(around: LossAround, *, radius: float = 1e-3, steps: int = 20) -> Estimate:
    """Return Keskar's epsilon-sharpness in percent, ``100 (max L(w + d) - L(w)) / (1 + L(w))`` over the box
    ``|d_i| <= radius (|w_i| + 1)`` (Keskar et al. 2017, metric 2.1, full space); as :func:`worst_case_rise` finds it.

    Args:
        around: the loss.
        radius: epsilon, half the side of the box relative to ``|w| + 1``.
        steps: of ascent.

    Raises:
        InputError: ``steps < 1``.

    Example:
        >>> import torch
        >>> from landscape import LossAround, keskar_sharpness
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 1.0)
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
        >>> around = LossAround(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> round(keskar_sharpness(around, radius=0.05).value, 4)  # both weights to 1.1: 5 becomes 6.05
        17.5
    """
    ball = Ball.around(around.centre, radius, "magnitude + 1", "linf")
    rise, parts, shares = worst_point(around, ball, steps=steps)
    losses = around.by_group(around.centre)
    loss = float(shares @ losses)
    value = 100 * rise / (1 + loss)
    return interval(value, (100 * parts - value * losses) / (1 + loss), shares)
