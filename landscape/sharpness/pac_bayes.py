"""The largest random perturbation that the loss bears: the sigma of a PAC-Bayes bound."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from alignscape.errors import InputError
from landscape.sharpness.losses import LossAround, interval
from landscape.traces import Estimate

_TOLERANCE = 2e-3  # of the rise: far below what draws and samples leave open
_MOST = 40  # looks at the rise, before which the search has always ended
_FARTHEST = 1e6  # relative to the first guess


def pac_bayes_sigma(
    around: LossAround, *, rise: float = 0.1, magnitude: bool = False, draws: int = 10, seed: int = 0
) -> Estimate:
    """Return the sigma at which Gaussian noise on the weights raises the mean loss by ``rise`` (nats).

    ``E L(w + u) = L(w) + rise`` with u_i ~ N(0, sigma^2), or with ``magnitude`` u_i ~ N(0, (sigma |w_i|)^2), which a
    rescaling of layers leaves as it is. Jiang et al. (2020) and Dziugaite et al. (2020) take the sigma by the training
    error and add a constant to |w|, which is not invariant; here it is the loss, and nothing is added. The larger sigma
    the flatter: a PAC-Bayes bound grows with 1 / sigma^2.

    Args:
        around: the loss.
        rise: of the mean loss.
        magnitude: noise in units of each weight's own size.
        draws: pairs of noise of opposite signs, the same at every sigma, so that the rise is smooth in it.
        seed: of the noise.

    Returns:
        sigma, with an interval over samples and draws (delta method); infinite where no noise raises the loss so far.

    Raises:
        InputError: a rise that is not positive, or fewer than two draws.

    Example:
        >>> import torch
        >>> from landscape import LossAround, pac_bayes_sigma
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> around = LossAround(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)))
        >>> found = pac_bayes_sigma(around, rise=0.1, draws=50)
        >>> found.ci_low < (0.2 / (28 / 3)) ** 0.5 < found.ci_high  # rise = sigma^2 trace / 2
        True
    """
    if not rise > 0 or draws < 2:
        raise InputError("sigma needs a rise of the loss above 0 and at least 2 draws")
    search = _Noise(around, magnitude, draws, seed)
    sigma = _crossing(search, rise)
    if not math.isfinite(sigma):
        return Estimate(value=math.inf, ci_low=math.nan, ci_high=math.nan)
    slope = (search.rise(1.01 * sigma) - search.rise(0.99 * sigma)) / (0.02 * sigma)
    by_group, of_draws = search.parts(sigma)
    others = float(of_draws.var()) / draws / slope**2
    return interval(sigma, -by_group / slope, around.shares, others, freedom=draws - 1)


class _Noise:
    """The mean rise of the loss over pairs of draws of noise."""

    def __init__(self, around: LossAround, magnitude: bool, draws: int, seed: int) -> None:
        self.around, self.draws, self.seed = around, draws, seed
        centre = around.centre
        self.scale = centre.abs() if magnitude else torch.ones_like(centre)
        self.centre_loss = around.value(centre)
        self.first = 0.01 if magnitude else 0.01 * float(centre.double().square().mean()) ** 0.5 or 0.01

    def vectors(self) -> Iterator[Tensor]:
        """Yield the noise of unit sigma (P,), each time the same."""
        generator = torch.Generator(device=self.scale.device).manual_seed(self.seed)
        for _ in range(self.draws):
            yield self.scale * torch.randn(
                self.scale.shape, generator=generator, dtype=self.scale.dtype, device=self.scale.device
            )

    def rise(self, sigma: float) -> float:
        """Return the mean rise; infinite where the loss overflows."""
        total = 0.0
        for noise in self.vectors():
            total += sum(self.around.value(self.around.centre + sign * sigma * noise) for sign in (1, -1))
        found = total / (2 * self.draws) - self.centre_loss
        return found if math.isfinite(found) else math.inf

    def parts(self, sigma: float) -> tuple[Tensor, Tensor]:
        """Return the mean rise of each group (G,), and that of each pair of draws (D,)."""
        before = self.around.by_group(self.around.centre)
        groups, pairs = torch.zeros_like(before), []
        for noise in self.vectors():
            rises = (
                sum(self.around.by_group(self.around.centre + sign * sigma * noise) for sign in (1, -1)) / 2 - before
            )
            groups += rises / self.draws
            pairs.append(float(self.around.shares @ rises))
        return groups, torch.tensor(pairs, dtype=torch.float64)


def _crossing(noise: _Noise, rise: float) -> float:
    """Return the sigma at which the rise is reached: found between two that bracket it, along the straight line of
    logarithms, on which a quadratic loss lies."""
    low, high = (0.0, 0.0), (math.inf, math.inf)
    sigma = noise.first
    for _ in range(_MOST):
        found = noise.rise(sigma)
        if abs(found - rise) <= _TOLERANCE * rise:
            return sigma
        low, high = ((sigma, found), high) if found < rise else (low, (sigma, found))
        if low[0] > _FARTHEST * noise.first:
            return math.inf
        sigma = _next(low, high, rise, sigma, found)
    return sigma


def _next(low: tuple[float, float], high: tuple[float, float], rise: float, sigma: float, found: float) -> float:
    if low[1] > 0 and math.isfinite(high[1]):
        share = math.log(rise / low[1]) / math.log(high[1] / low[1])
        share = min(max(share, 0.05), 0.95)  # a bracket that shrinks from one side only closes slowly
        return low[0] * (high[0] / low[0]) ** share
    if math.isinf(high[0]):
        growth = (rise / found) ** 0.5 if found > 0 else 10.0
        return sigma * min(max(growth, 1.1), 10.0)
    if low[0] > 0:
        return (low[0] * high[0]) ** 0.5
    shrink = (rise / found) ** 0.5 if math.isfinite(found) else 0.1
    return sigma * min(max(shrink, 0.1), 0.9)
