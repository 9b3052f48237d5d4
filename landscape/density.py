"""The spectral density of a symmetric operator by stochastic Lanczos quadrature (SLQ), with bands.

For a probe drawn uniformly from the sphere, the weight below x is Beta(j/2, (P - j)/2) distributed, where j counts the
eigenvalues below x (Chen, Trogdon, Ubaru 2021): its spread is known before the second probe. The bands use this. For
a smooth function f in place of the step, a Beta (for the cumulative) or a Gamma (for the density) with the same mean
and variance stands in; the variance ``2 sum_i f(lambda_i)^2 / P^2`` of a probe is itself read off the quadrature.

That is the error of sampling. The quadrature errs too where the Gaussian is narrower than its nodes are apart: all
probes show the same ripples, and no number of them takes these away. The band is wider by what one step fewer changes
(nodes of m - 1 steps lie between those of m), and the Gaussian as wide as the steps resolve unless told otherwise.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import linalg, special, stats
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.memory import require_memory
from landscape.data import Data, Loss
from landscape.operator import HessianOperator, OperatorOptions
from landscape.quadrature import quadrature
from landscape.symmetric import Method, SymmetricOperator, drive, tell
from landscape.traces import Estimate

Array = NDArray[np.float64]

WIDTH = 0.01
"""Standard deviation of the smoothing Gaussian, as a share of the spectrum's range, from 100 steps on."""
ZERO = 1e-6
"""Nodes nearer to zero than this share of the largest magnitude are counted as zero eigenvalues."""

SMALLEST_ERROR = 1e-7  # of a density, relative to its range: float32 products have no more digits


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve over a grid with its pointwise 95 % interval, for probes and quadrature; of :class:`SpectralDensity`.

    Attributes:
        grid: eigenvalues, (G,).
        value: the curve there, (G,): a density in 1 / eigenvalue, or a share between 0 and 1.
        low: lower limit, (G,).
        high: upper limit, (G,).

    Example:
        >>> import numpy as np
        >>> from landscape import SpectralDensity
        >>> one = {"probe": np.array([0, 0]), "nodes": np.array([0.0, 1.0]), "weights": np.array([0.9, 0.1])}
        >>> band = SpectralDensity(**one, dim=1000, n_products=2).cumulative(np.array([0.5]))
        >>> band.value.round(3), bool((band.low < 0.9).all()), bool((band.high > 0.9).all())
        (array([0.9]), True, True)
    """

    grid: Array
    value: Array
    low: Array
    high: Array


@dataclass(frozen=True, kw_only=True)
class SpectralDensity:
    """The raw quadrature and what can be read off it; made by :func:`spectral_density` or :func:`slq_density`.

    Attributes:
        probe: the probe each node belongs to, from 0, (M,) int.
        nodes: Ritz values, (M,), in units of the eigenvalues.
        weights: their shares of the spectrum, (M,), 1 in all for a probe.
        dim: P, the number of eigenvalues that the density describes.
        n_products: products spent.
        steps: products asked of each probe: one with fewer nodes is exact. None where it is not known; the quadrature
            is taken for exact then.

    Example:
        >>> import numpy as np
        >>> from landscape import SpectralDensity
        >>> one = {"probe": np.array([0, 0]), "nodes": np.array([0.0, 1.0]), "weights": np.array([0.9, 0.1])}
        >>> found = SpectralDensity(**one, dim=1000, n_products=2)
        >>> found.n_probes, found.share_below(0.5).value
        (1, 0.9)
        >>> band = found.density()
        >>> round(float(np.trapezoid(band.value, band.grid)), 3)
        1.0
    """

    probe: NDArray[np.int64]
    nodes: Array
    weights: Array
    dim: int
    n_products: int
    steps: int | None = None

    @property
    def n_probes(self) -> int:
        """The number of random probes."""
        return int(self.probe.max()) + 1

    @property
    def width(self) -> float:
        """The default Gaussian's standard deviation in units of the eigenvalues: :data:`WIDTH` of the range.

        With fewer than 100 steps it is the range over their number, less than which they do not resolve.
        """
        span = float(self.nodes.max() - self.nodes.min())
        share = max(WIDTH, 1 / self.steps) if self.steps and len(self._with_one_step_less[0]) else WIDTH
        return share * (span or float(np.abs(self.nodes).max()) or 1.0)

    def grid(self, points: int = 1000, *, width: float | None = None) -> Array:
        """Return ``points`` equally spaced eigenvalues that cover all nodes and five Gaussian widths around."""
        margin = 5 * (width or self.width)
        return np.linspace(self.nodes.min() - margin, self.nodes.max() + margin, points)

    def density(self, grid: Array | None = None, *, width: float | None = None) -> Band:
        """Return the density smoothed by a Gaussian of standard deviation ``width``; it integrates to 1.

        The band inverts a Gamma distribution whose scale is that of one eigenvalue under the Gaussian: n probes at
        an isolated eigenvalue are n squares of normal numbers. It is right from the first probe on. It is wider by
        the error of the quadrature, which shows where ``width`` is less than the steps resolve.
        """
        sigma = width or self.width
        grid = self.grid(width=sigma) if grid is None else np.asarray(grid, dtype=float)
        value, square = self._means(grid, stats.norm(scale=sigma).pdf)
        seen = (value > 0) & (square > 0)
        low, high = np.zeros_like(value), np.zeros_like(value)
        per_unit = self.n_probes * self.dim / 2 * value[seen] / square[seen]
        for limit, share in ((low, 0.975), (high, 0.025)):
            limit[seen] = _gamma_shape(value[seen] * per_unit, share) / per_unit
        # Weight far below one eigenvalue's share is best explained by more than was seen; the curve stays inside.
        error = self._quadrature_error(grid, stats.norm(scale=sigma).pdf)
        low, high = np.minimum(low, value) - error, np.maximum(high, value) + error
        return Band(grid=grid, value=value, low=low.clip(min=0), high=high)

    def shares(self, edges: Array) -> Band:
        """Return the share of eigenvalues between each two of N + 1 ``edges``, not smoothed, with its Beta band; the
        grid is the N left edges. A bin without a node is empty: nothing is drawn where no node lies."""
        edges = np.asarray(edges, dtype=float)
        place = np.digitize(self.nodes, edges) - 1
        inside = (place >= 0) & (place < len(edges) - 1)
        value = np.zeros(len(edges) - 1)
        np.add.at(value, place[inside], self.weights[inside] / self.n_probes)
        low, high = self._beta_band(value, value)
        return Band(grid=edges[:-1], value=value, low=low, high=high)

    def cumulative(self, grid: Array | None = None, *, width: float | None = None) -> Band:
        """Return the share of eigenvalues below each grid point, smoothed by the same Gaussian, with its Beta band."""
        sigma = width or self.width
        grid = self.grid(width=sigma) if grid is None else np.asarray(grid, dtype=float)
        value, square = self._means(grid, stats.norm(scale=sigma).cdf)
        low, high = self._beta_band(value, square)
        error = self._quadrature_error(grid, stats.norm(scale=sigma).cdf)
        return Band(grid=grid, value=value, low=(low - error).clip(min=0), high=(high + error).clip(max=1))

    def mass_at_zero(self, tolerance: float = ZERO) -> Estimate:
        """Return the share of zero eigenvalues: the weight of the nodes within ``tolerance`` of the largest magnitude.

        Every probe must have such a node, or the share is 0: a mass at zero shows in each of them, while in a bulk
        around zero one probe's node may come that near by accident, with the weight of its neighbourhood.
        Zeros inside a bulk may show no node of their own. The upper limit therefore starts from the largest mass at
        zero that any spectrum with the same quadrature can have, the Christoffel number of 0 (Golub and Meurant 2010).
        """
        near = np.abs(self.nodes) <= tolerance * np.abs(self.nodes).max()
        in_every_probe = len(np.unique(self.probe[near])) == self.n_probes
        share = float(self.weights[near].sum()) / self.n_probes if in_every_probe else 0.0
        return self._share(share, lowest=share, highest=max(share, self._most_at(0.0)))

    def share_below(self, x: float) -> Estimate:
        """Return the share of eigenvalues below ``x``, not smoothed.

        The interval allows for the quadrature too: the share is wrong by at most the Christoffel number of x (the
        Chebyshev-Markov-Stieltjes inequalities), so it is wide where m steps do not resolve the spectrum.
        """
        share = float(self.weights[self.nodes < x].sum()) / self.n_probes
        unsure = self._most_at(x)
        return self._share(share, lowest=max(share - unsure, 0.0), highest=min(share + unsure, 1.0))

    def _share(self, value: float, *, lowest: float, highest: float) -> Estimate:
        ends = np.array([lowest, highest])
        low, high = self._beta_band(ends, ends)
        return Estimate(value=value, ci_low=float(low[0]), ci_high=float(high[1]))

    def _most_at(self, x: float) -> float:
        """Return the mean over probes of the Christoffel number of ``x``: the most weight that can lie there."""
        groups = [self.probe == probe for probe in range(self.n_probes)]
        return float(np.mean([_christoffel(self.nodes[g] - x, self.weights[g]) for g in groups]))

    def frame(self) -> pd.DataFrame:
        """Return the quadrature: probe, node, weight, n_parameters, and steps where they are known."""
        columns = {"probe": self.probe, "node": self.nodes, "weight": self.weights}
        frame = pd.DataFrame(columns).assign(n_parameters=self.dim)
        return frame if self.steps is None else frame.assign(steps=self.steps)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "SpectralDensity":
        """Return what :meth:`frame` wrote, to draw it with its bands."""
        probe, _ = pd.factorize(frame["probe"])
        return cls(
            probe=probe.astype(np.int64),
            nodes=frame["node"].to_numpy(float),
            weights=frame["weight"].to_numpy(float),
            dim=int(frame["n_parameters"].iloc[0]),
            n_products=len(frame),
            steps=int(frame["steps"].iloc[0]) if "steps" in frame and frame["steps"].notna().all() else None,
        )

    @functools.cached_property
    def _with_one_step_less(self) -> tuple[Array, Array]:
        """Nodes, and weights times the share of a probe, of the probes that are not exact, with one step less each.

        Followed by the present nodes of these probes with negative weights, so that a sum is the difference of both.
        """
        nodes, weights = [np.empty(0)], [np.empty(0)]
        for probe in range(self.n_probes):
            mine = self.probe == probe
            if self.steps is None or mine.sum() < min(self.steps, self.dim) or mine.sum() in (1, self.dim):
                continue
            fewer, shares = _one_step_less(self.nodes[mine], self.weights[mine])
            nodes += [fewer, self.nodes[mine]]
            weights += [shares, -self.weights[mine]]
        return np.concatenate(nodes), np.concatenate(weights) / self.n_probes

    def _quadrature_error(self, grid: Array, function: Callable[[Array], Array]) -> Array:
        """Return what one step less changes of the mean of f(x - lambda), at every x of ``grid``."""
        nodes, weights = self._with_one_step_less
        return np.abs(function(grid[:, None] - nodes) @ weights)

    def _means(self, grid: Array, function: Callable[[Array], Array]) -> tuple[Array, Array]:
        """Return the spectrum's means of f(x - lambda) and of its square at every x of ``grid``."""
        values = function(grid[:, None] - self.nodes)
        share = self.weights / self.n_probes
        return values @ share, values**2 @ share

    def _beta_band(self, mean: Array, square: Array) -> tuple[Array, Array]:
        """Return the 95 % limits of a share that is estimated by weights of spherical probes."""
        variance = 2 * (square - mean**2) / ((self.dim + 2) * self.n_probes)
        inside = (mean > 0) & (mean < 1) & (variance > 0)
        total = np.where(inside, mean * (1 - mean) / np.where(inside, variance, 1.0) - 1, 1.0)
        low, high = mean.copy(), mean.copy()
        for limit, share in ((low, 0.975), (high, 0.025)):
            limit[inside] = _beta_mean(mean[inside], total[inside], share)
        return np.minimum(low, mean), np.maximum(high, mean)


def spectral_density(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    steps: int = 100,
    probes: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **operator: Unpack[OperatorOptions],
) -> SpectralDensity:
    """Estimate the spectral density of the Hessian of the mean loss of ``model`` over ``data``.

    See :func:`slq_density`, and :class:`HessianOperator` for the data and for ``params, hessian, reduction,
    batch_size, memory_budget, transform, group``.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> found = landscape.spectral_density(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)), probes=4)
        >>> [round(float(node), 4) for node in found.nodes[:3]]
        [0.6667, 2.6667, 6.0]
        >>> curve = found.density()
        >>> bool((curve.low <= curve.value).all() and (curve.value <= curve.high).all())
        True
    """
    hessian = HessianOperator(model, loss, data, **operator)
    return slq_density(hessian, steps=steps, probes=probes, seed=seed, progress=progress)


def slq_density(
    operator: SymmetricOperator,
    *,
    steps: int = 100,
    probes: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SpectralDensity:
    """Estimate the spectral density of ``operator`` from ``probes`` Gaussian directions of ``steps`` products each.

    :func:`slq_budget` gives the numbers that guarantee an accuracy. Memory: ``steps * P`` numbers, a probe at a time.

    Args:
        operator: the matrix (P, P), which is only ever multiplied.
        steps: products a probe: nodes that it gives, P at most.
        probes: random directions.
        seed: of the probes.
        progress: called with (products done, products in all).

    Raises:
        InputError: no step or no probe.

    References: Ubaru, Chen, Saad 2017; Chen, Trogdon, Ubaru, "Analysis of stochastic Lanczos quadrature", ICML 2021.

    Example:
        >>> import torch
        >>> from landscape import HessianOperator, slq_density
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)))
        >>> found = slq_density(hessian, probes=4)
        >>> found.n_products  # three products find all of a matrix (3, 3)
        12
        >>> share = found.share_below(3.0)  # the eigenvalues are 2/3, 8/3 and 6
        >>> share.ci_low < 2 / 3 < share.ci_high
        True
    """
    if steps < 1 or probes < 1:
        raise InputError("the spectral density needs at least 1 step and 1 probe")
    counted = _Counted(operator, progress, probes * min(steps, operator.dim))
    return drive(density_method(operator, steps=steps, probes=probes, seed=seed), counted)


def density_method(
    operator: SymmetricOperator, *, steps: int, probes: int, seed: int, most: int = 2**24
) -> Method[SpectralDensity]:
    """The method of :func:`slq_density`; ``most`` numbers for probes that go on at once."""
    before = operator.n_products
    generator = torch.Generator(device=operator.device).manual_seed(seed)
    steps = min(steps, operator.dim)
    work, advice = f"a density of {steps:,} steps and {probes:,} probes", "ask for fewer (--steps, --probes)"
    require_memory({"basis": steps * operator.dim * operator.dtype.itemsize}, work, advice, device=operator.device)
    require_memory({"nodes": 2 * 8 * steps * probes}, work, advice)
    at_once = min(probes, max(1, most // (operator.dim * steps)))
    found: list[tuple[Tensor, Tensor]] = []
    for first in range(0, probes, at_once):
        rows = [_unit_gaussian(operator, generator) for _ in range(min(at_once, probes - first))]
        found += yield from quadrature(torch.stack(rows), steps)
    return SpectralDensity(
        probe=np.repeat(np.arange(probes), [len(nodes) for nodes, _ in found]),
        nodes=torch.cat([nodes for nodes, _ in found]).numpy(),
        weights=torch.cat([weights for _, weights in found]).numpy(),
        dim=operator.dim,
        n_products=operator.n_products - before,
        steps=steps,
    )


def slq_budget(dim: int, *, error: float = 0.05, failure: float = 0.05) -> tuple[int, int]:
    """Return (steps, probes) for a Wasserstein-1 error of at most ``error`` times the range.

    12 / t steps and ``4 ln(2 P / eta) / ((P + 2) t^2)`` probes, with probability 1 - ``failure`` (Chen, Trogdon,
    Ubaru 2021). The larger the matrix, the fewer the probes: for a million parameters one is enough.

    Args:
        dim: P, the number of eigenvalues.
        error: Wasserstein-1 distance of the density from the true one, as a share of the spectrum's range.
        failure: probability that it is larger.

    Raises:
        InputError: ``error`` or ``failure`` is not between 0 and 1, or ``error`` is below 1e-7.

    Example:
        >>> from landscape import slq_budget
        >>> slq_budget(10_000), slq_budget(1_000_000)
        ((240, 3), (240, 1))
    """
    if not (0 < error < 1 and 0 < failure < 1):
        raise InputError("the error and the failure probability must lie between 0 and 1")
    if error < SMALLEST_ERROR:
        raise InputError(f"an error of {error:g} is beyond float32; ask for {SMALLEST_ERROR:g} or more")
    probes = 4 * math.log(2 * dim / failure) / ((dim + 2) * error**2)
    return min(math.ceil(12 / error), dim), max(math.ceil(probes), 1)


class _Counted:
    """The operator, reporting every product."""

    def __init__(self, operator: SymmetricOperator, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._operator, self._progress, self._total, self._done = operator, progress, total, 0
        self.dim, self.dtype, self.device = operator.dim, operator.dtype, operator.device
        self.n_products = 0

    def product(self, vectors: Tensor) -> Tensor:
        images = self._operator.product(vectors)
        self._done += len(vectors)
        if self._progress is not None:
            self._progress(self._done, self._total)
            tell(self._progress, f"{self._done} products of {self._total}", self._done / self._total)
        return images


def _unit_gaussian(operator: SymmetricOperator, generator: torch.Generator) -> Tensor:
    row = torch.randn(operator.dim, generator=generator, dtype=operator.dtype, device=operator.device)
    return row / row.norm()


def _one_step_less(nodes: Array, weights: Array) -> tuple[Array, Array]:
    """Return nodes and weights of the quadrature with one Lanczos step less (Golub and Welsch 1969).

    Its tridiagonal matrix comes back from nodes and weights by Householder reflections, which are stable.
    """
    size = len(nodes)
    arrow = np.zeros((size + 1, size + 1))
    arrow[1:, 1:] = np.diag(nodes)
    arrow[0, 1:] = arrow[1:, 0] = np.sqrt(weights)
    jacobi = linalg.hessenberg(arrow)[1:size, 1:size]
    found, vectors = linalg.eigh_tridiagonal(jacobi.diagonal().copy(), jacobi.diagonal(1).copy())
    return np.asarray(found, dtype=np.float64), vectors[0] ** 2


def _christoffel(nodes: Array, weights: Array) -> float:
    """Return the Christoffel number of 0, ``1 / sum_i l_i(0)^2 / w_i`` with the Lagrange polynomials l_i."""
    nodes, weights = nodes[weights > 0], weights[weights > 0]
    tiny = np.finfo(float).tiny
    gaps = np.abs(nodes[:, None] - nodes) + np.eye(len(nodes))
    to_zero = np.log(np.abs(nodes) + tiny)
    lagrange = to_zero.sum() - to_zero - np.log(gaps + tiny).sum(axis=1)
    return float(np.exp(-special.logsumexp(2 * lagrange - np.log(weights))))


def _beta_mean(observed: Array, total: Array, share: float) -> Array:
    """Return the mean of the Beta distribution with a + b = ``total`` whose value at ``observed`` is ``share``."""

    def below(mean: Array) -> Array:
        return np.asarray(special.betainc(mean * total, (1 - mean) * total, observed), dtype=np.float64)

    return _decreasing_root(below, share, np.zeros_like(observed), np.ones_like(observed))


def _gamma_shape(observed: Array, share: float) -> Array:
    """Return the shape of the unit-scale Gamma distribution whose value at ``observed`` is ``share``."""
    top = observed + 10 * np.sqrt(observed) + 10
    return _decreasing_root(lambda shape: special.gammainc(shape, observed), share, np.zeros_like(observed), top)


def _decreasing_root(function: Callable[[Array], Array], target: float, low: Array, high: Array) -> Array:
    """Return where each element of a decreasing ``function`` crosses ``target``, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        above = function(middle) > target
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2, dtype=np.float64)
