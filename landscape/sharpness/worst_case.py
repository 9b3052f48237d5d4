"""Worst-case sharpness: how far the loss rises within a ball around the weights.

    max  L(w + d) - L(w)   over   |d / t|_p <= radius

with t = 1 and p = 2 (Foret et al. 2021), t = |w| and p = 2 (Kwon et al. 2021), t = |w| + 1 and p = infinity (Keskar et
al. 2017). In e = d / t it is a ball about 0, in which the loss has the gradient t g.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from alignscape.errors import InputError
from landscape.sharpness.losses import LossAround, interval
from landscape.traces import Estimate

Climb = Callable[[Tensor], tuple[float, Tensor]]  # weights (P,) -> mean loss, gradient (P,)
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
    ball, whose corner does not move with the gradient, there is no such part), and what is left of the rise on samples
    that did not choose the point (see :func:`worst_case_rise`).

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
    moved = around.centre + ball.scale * ball.steepest(seen)
    after, there = around.gradient(moved)
    parts = around.by_group(moved) - around.by_group(around.centre)
    length = float(seen.double().norm())
    if ball.norm == "l2" and length > 0:
        slope = ball.scale * there
        unit = seen / length
        turn = ball.scale * (slope - unit * (unit @ slope)) * (ball.radius / length)
        parts = parts + around.slopes(around.centre, turn)

    def step(climb: Climb) -> Tensor:
        return ball.scale * ball.steepest(ball.scale * climb(around.centre)[1])

    elsewhere = _cross_fitted(around, step)
    return _reaching(interval(after - before, parts, around.shares), elsewhere, around.shares)


def worst_case_rise(around: LossAround, ball: Ball, *, steps: int = 20) -> Estimate:
    """Return the largest rise that ``steps`` steps of ascent find in the ball: the worst case is at least that.

    Projected steepest ascent from the first-order point (a random one where the gradient is zero). A step that does not
    raise the loss is halved, one that does grows by half, and the best point is kept.

    The interval is one for the worst case over the population that the samples are drawn from. The samples' own is too
    large for it on average, since they have chosen the point that they are judged at, and near a minimum, where their
    gradients all but cancel, by far. The rise on samples that did not choose the point is too small on average, since
    no point is worse than the worst: each half of the groups is therefore judged at the point that the other half has
    found. The interval reaches from the lower end of the latter to the upper end of the former (Mak, Morton and Wood
    1999, of optima over samples in general).

    Args:
        around: the loss.
        ball: where the weights may go.
        steps: of ascent, each a forward and a backward pass over the data; where there are groups, two each.

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
    own, elsewhere = worst_parts(around, ball, steps=steps)
    return _reaching(interval(float(around.shares @ own), own, around.shares), elsewhere, around.shares)


def worst_parts(around: LossAround, ball: Ball, *, steps: int) -> tuple[Tensor, Tensor]:
    """Return the rise of each group (G,) at the worst point found, and at that of the other half of the groups: see
    :func:`worst_case_rise`.

    Raises:
        InputError: ``steps < 1``.
    """
    if steps < 1:
        raise InputError(f"the ascent has {steps} steps; it needs 1 or more")

    def ascend(climb: Climb) -> Tensor:
        return ball.scale * _ascent(climb, around.centre, ball, steps)

    rises = around.by_group(around.centre + ascend(around.gradient)) - around.by_group(around.centre)
    return rises, _cross_fitted(around, ascend)


def _ascent(climb: Climb, centre: Tensor, ball: Ball, steps: int) -> Tensor:
    """Return the e of the ball at which the loss is largest of those that the ascent has seen."""
    before, gradient = climb(centre)
    if not gradient.any():  # a stationary point, from which steepest ascent goes nowhere
        generator = torch.Generator(device=gradient.device).manual_seed(0)
        gradient = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype, device=gradient.device)
    point, best = torch.zeros_like(centre), before
    step = 1.0
    for _ in range(steps):
        trial = ball.project(point + step * ball.steepest(ball.scale * gradient))
        value, slope = climb(centre + ball.scale * trial)
        if value > best:
            point, best, gradient = trial, value, slope
            step = min(step * _GROWTH, 1e3)
        elif (step := step * _SHRINK) < _SMALLEST:
            break
    return point


def _cross_fitted(around: LossAround, search: Callable[[Climb], Tensor]) -> Tensor:
    """Return the rise of each group (G,) at the change of the weights that ``search`` finds by the other half of the
    groups that count; NaN where there is only one."""
    found, counting = torch.full_like(around.shares, math.nan), around.shares > 0
    if counting.sum() < 2:
        return found
    before = around.by_group(around.centre)
    first = counting.cumsum(0) <= counting.sum() // 2
    for judged in (first, ~first):
        change = search(functools.partial(around.gradient_of, ~judged))
        found[judged] = (around.by_group(around.centre + change) - before)[judged]
    return found


def _reaching(own: Estimate, elsewhere: Tensor, shares: Tensor) -> Estimate:
    """Return the estimate with an interval that reaches as far as that of the rise elsewhere (G,)."""
    other = interval(float(shares @ elsewhere), elsewhere, shares)
    return replace(own, ci_low=min(own.ci_low, other.ci_low), ci_high=max(own.ci_high, other.ci_high))


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
    losses, shares = around.by_group(around.centre), around.shares
    loss = float(shares @ losses)

    def percent(rises: Tensor) -> Tensor:
        """Return what each group adds: of the ratio of two means, to first order."""
        return (100 * rises - 100 * float(shares @ rises) / (1 + loss) * (losses - loss)) / (1 + loss)

    own, elsewhere = (percent(rises) for rises in worst_parts(around, ball, steps=steps))
    return _reaching(interval(float(shares @ own), own, shares), elsewhere, shares)
