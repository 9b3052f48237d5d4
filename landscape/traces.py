"""The trace of a symmetric operator by deflated Hutchinson estimation, with an interval that can be relied on.

With orthonormal rows U (the eigenvectors already found) and random phases z = c + i s, |z_j| = 1,

    tr H = tr(U H U^T) + E[c^T H (I - U^T U) c + s^T H (I - U^T U) s].

The first part is exact and holds the large eigenvalues, which make the plain estimator noisy (Hutchinson 1990). Phases
take two real products and have half the variance of random signs, so they cost the same, and like signs they are exact
on a diagonal. But signs give a block of two only two values: a few probes agree by chance, 13 % of intervals from four
probes had no width, and were wrong.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Unpack

import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from alignscape.errors import InputError
from landscape.data import Data, Loss
from landscape.lanczos import Subspace, krylov_subspace
from landscape.operator import HessianOperator, OperatorOptions
from landscape.parameters import unflatten
from landscape.symmetric import Method, SymmetricOperator, drive, tell

_FIRST_LOOK = 12  # probes before the spread of the samples says anything
_TRUSTED, _STRICT = 24, 0.25  # with fewer probes it stops at this share of the tolerance only
_FEWEST = 6
_RADIUS = 5 * 13 * 17
# The 108 points of integers on the circle, a set that a quarter turn leaves as it is: a diagonal matrix stays exact.
_HEIGHTS = ((x, math.isqrt(_RADIUS**2 - x * x)) for x in range(-_RADIUS, _RADIUS + 1))
_CIRCLE = sorted({(x, sign * y) for x, y in _HEIGHTS if x * x + y * y == _RADIUS**2 for sign in (1, -1)})
_GROWTH = 1.5  # between looks: stopping at every probe would stop by chance


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: the estimate.
        ci_low: lower end of the interval.
        ci_high: upper end.

    Example:
        >>> from landscape import Estimate
        >>> share = Estimate(value=0.5, ci_low=0.4, ci_high=0.6)
        >>> share.ci_low <= share.value <= share.ci_high
        True
    """

    value: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class Trace(Estimate):
    """The trace, its interval over probes, and how it came about; made by :func:`trace` or :func:`hutchinson_trace`.

    Attributes:
        value: the trace.
        ci_low: lower end of its 95 % interval.
        ci_high: upper end.
        samples: (n,) float64, one unbiased estimate of the trace for each pair of probes.
        deflated: the part that is exact, ``tr(U H U^T)``.
        converged: the interval's half-width is within the relative tolerance.
        n_products: products spent here (deflation included, finding U not).
        layers: the same for the diagonal block of every parameter tensor, from the same probes.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(3, 1).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> found = landscape.trace(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)))
        >>> {name: round(part.value, 4) for name, part in found.layers.items()}
        {'weight': 9.3333, 'bias': 2.0}
        >>> found.converged, found.n_probes
        (True, 12)
    """

    samples: Tensor
    deflated: float
    converged: bool
    n_products: int
    layers: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def n_probes(self) -> int:
        """The number of random probes, a product each; two are the parts of one random phase."""
        return 2 * len(self.samples)

    def frame(self) -> pd.DataFrame:
        """Return one row: quantity, index, value, ci_low, ci_high, residual (missing)."""
        return _frame([("trace", self)])

    def layer_frame(self) -> pd.DataFrame:
        """Return one row per parameter tensor, quantity ``trace:NAME``."""
        return _frame([(f"trace:{name}", estimate) for name, estimate in self.layers.items()])


def trace(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    tol: float = 0.02,
    max_probes: int = 200,
    deflate: int = 20,
    layers: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **operator: Unpack[OperatorOptions],
) -> Trace:
    """Estimate the trace of the Hessian of the mean loss of ``model`` over ``data``, in all and per layer.

    A Krylov space of ``deflate`` products is treated exactly. See :func:`hutchinson_trace` for
    the rest, and :class:`HessianOperator` for the data and for ``params, hessian, reduction, batch_size,
    memory_budget, transform, group``.

    Raises:
        InputError: as both.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> found = landscape.trace(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)))
        >>> round(found.value, 4)  # 2/3 (1 + 4 + 9)
        9.3333
        >>> found.ci_high - found.ci_low < 0.04 * found.value
        True
    """
    hessian = HessianOperator(model, loss, data, **operator)
    span = krylov_subspace(hessian, deflate, seed=seed + 1) if deflate > 0 else None
    return hutchinson_trace(
        hessian,
        deflate=span,
        tol=tol,
        max_probes=max_probes,
        layout=hessian.parameters if layers else None,
        seed=seed,
        progress=progress,
    )


def hutchinson_trace(
    operator: SymmetricOperator,
    *,
    deflate: Tensor | Subspace | None = None,
    tol: float = 0.02,
    max_probes: int = 200,
    layout: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Estimate the trace of ``operator``, which may be negative.

    Args:
        operator: the matrix (P, P), which is only ever multiplied.
        deflate: the subspace to treat exactly: a Krylov space, such as the ``basis`` of eigenpairs, which costs no
            product (but for ``layout``), or any rows (K, P), such as eigenvectors. It must not come from the same
            random numbers as the probes: use another seed.
        tol: stop when half the width of the 95 % interval is at most ``tol * |trace|``. Looked at after 12 probes
            and each time their number has grown by half, so that it does not stop by chance; before 24 probes, it
            stops at a quarter of ``tol``.
        max_probes: stop here in any case. Probes come in pairs, and six at least, so that they have a spread.
        layout: the parameters in flat order (``HessianOperator.parameters``) to give every layer's trace too.
        seed: of the probes.
        progress: called with (probes done, ``max_probes``).

    Returns:
        the mean over pairs of probes with its Student t interval. Its coverage is right where many directions have a
        part in the trace, as after deflation; of a matrix that one eigenvalue or one block dominates it falls to about
        .9 at 12 probes and less (``docs/calibration.md``).

    Raises:
        InputError: fewer than two probes, which have no spread, or a tolerance that is not positive.

    References: Hutchinson 1990; Meyer, Musco, Musco, Woodruff, "Hutch++", SOSA 2021 (the deflation).

    Example:
        >>> import torch
        >>> from landscape import HessianOperator, hutchinson_trace
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
        >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> found = hutchinson_trace(hessian, max_probes=50)
        >>> found.ci_low < 15 < found.ci_high  # (1 + 4 + 1 + 9) 2 / 2
        True
    """
    if max_probes < 2 or not tol > 0:
        raise InputError("the trace needs at least 2 probes and a positive tolerance")
    options = {"tol": tol, "max_probes": max_probes, "layout": layout or {}, "seed": seed, "progress": progress}
    return drive(trace_method(operator, deflate, **options), operator)  # type: ignore[arg-type]


def trace_method(
    operator: SymmetricOperator,
    deflate: Tensor | Subspace | None,
    *,
    tol: float,
    max_probes: int,
    layout: Mapping[str, Tensor],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Method[Trace]:
    """The method of :func:`hutchinson_trace`."""
    before = operator.n_products
    max_probes = max(_FEWEST, max_probes - max_probes % 2)
    span, exact, exact_layers = yield from _deflated_part(operator, deflate, layout)
    total: list[Tensor] = []
    by_layer: list[Tensor] = []
    n_probes, look = 0, min(_FIRST_LOOK, max_probes)
    for parts in _probes(operator, seed, _looks(max_probes)):
        images = yield parts - (parts @ span.T) @ span
        samples, layer_samples = _pair_samples(parts, images, layout)
        total.append(samples + exact)
        by_layer.append(layer_samples + exact_layers)
        n_probes += 2 * len(samples)
        if progress is not None:
            progress(n_probes, max_probes)
        if n_probes < look:
            tell(progress, f"{operator.n_products - before} products", n_probes / max_probes)
            continue
        look = min(_next(look), max_probes)
        estimate = student_interval(torch.cat(total))
        if estimate.value:
            error = (estimate.ci_high - estimate.value) / abs(estimate.value)
            share = max(n_probes / max_probes, min(1.0, (tol / error) ** 2) if error else 1.0)
            tell(progress, f"{operator.n_products - before} products, interval +-{error:.1%} of +-{tol:.1%}", share)
        # A spread that few pairs have shown is small by chance where it lets us stop: be stricter then.
        wanted = tol * (1 if n_probes >= _TRUSTED else _STRICT)
        converged = estimate.ci_high - estimate.value <= wanted * abs(estimate.value)
        if converged or n_probes >= max_probes:
            break
    converged = estimate.ci_high - estimate.value <= tol * abs(estimate.value)
    layers = torch.cat(by_layer)
    return Trace(
        value=estimate.value,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        samples=torch.cat(total),
        deflated=exact,
        converged=converged,
        n_products=operator.n_products - before,
        layers={name: student_interval(layers[:, i]) for i, name in enumerate(layout)},
    )


def student_interval(samples: Tensor) -> Estimate:
    """Return the mean of ``samples`` (n,), n >= 2, with its 95 % t interval."""
    values = samples.double()
    mean, error = float(values.mean()), float(values.std()) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Estimate(value=mean, ci_low=mean - half, ci_high=mean + half)


def _looks(max_probes: int) -> Iterator[int]:
    """Yield the numbers of probes to add before each look at the interval."""
    done, look = 0, _FIRST_LOOK
    while done < max_probes:
        yield min(look, max_probes) - done
        done, look = look, _next(look)


def _next(look: int) -> int:
    return 2 * int(look * _GROWTH / 2)


def _probes(operator: SymmetricOperator, seed: int, looks: Iterator[int]) -> Iterator[Tensor]:
    """Yield the parts of random phases (2 n, P), in pieces that fit in memory."""
    generator = torch.Generator(device=operator.device).manual_seed(seed)
    at_once = 2 * max(1, 2**21 // operator.dim)
    for count in looks:
        for first in range(0, count, at_once):
            pairs = min(at_once, count - first) // 2
            yield torch.cat([_random_phases(operator, generator) for _ in range(pairs)])


def _pair_samples(parts: Tensor, images: Tensor, layout: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return ``z^* H (I - U^T U) z`` (n,) of each pair of parts, and its parts by layer (n, layers)."""
    pairs, scale = len(parts) // 2, _RADIUS**2
    whole, layers = _inner(parts, images, layout)
    return whole.view(pairs, 2).sum(dim=1) / scale, layers.view(pairs, 2, -1).sum(dim=1) / scale


def _random_phases(operator: SymmetricOperator, generator: torch.Generator) -> Tensor:
    """Return the two parts of one vector of random phases, (2, P): integers, c^2 + s^2 = 1105^2 without rounding."""
    chosen = torch.randint(0, len(_CIRCLE), (operator.dim,), generator=generator, device=operator.device)
    return torch.tensor(_CIRCLE, dtype=operator.dtype, device=operator.device)[chosen].T.contiguous()


def random_signs(operator: SymmetricOperator, generator: torch.Generator) -> Tensor:
    """Return one Rademacher vector (P,)."""
    signs = torch.randint(0, 2, (operator.dim,), generator=generator, device=operator.device, dtype=torch.int8)
    return signs.to(operator.dtype) * 2 - 1


def _deflated_part(
    operator: SymmetricOperator, deflate: Tensor | Subspace | None, layout: Mapping[str, Tensor]
) -> Method[tuple[Tensor, float, Tensor]]:
    """Return orthonormal rows U, ``tr(U H U^T)`` and its parts by layer."""
    if isinstance(deflate, Subspace):
        if not layout:
            return deflate.rows, deflate.trace, torch.zeros(0, dtype=torch.float64)
        deflate = deflate.rows
    span = _orthonormal_rows(deflate, operator)
    if len(span) == 0:
        return span, 0.0, torch.zeros(len(layout), dtype=torch.float64)
    images = yield span
    total, layers = _inner(span, images, layout)
    return span, float(total.sum()), layers.sum(dim=0)


def _inner(left: Tensor, right: Tensor, layout: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the inner products of the rows (n,), and their parts by layer (n, layers), in float64."""
    products = left * right
    parts = (
        [part.flatten(1).sum(dim=1, dtype=torch.float64) for part in unflatten(products, layout).values()]
        if layout
        else []
    )
    layers = torch.stack(parts, dim=1) if parts else torch.zeros(len(left), 0, dtype=torch.float64)
    return products.sum(dim=1, dtype=torch.float64).cpu(), layers.cpu()


def _orthonormal_rows(rows: Tensor | None, operator: SymmetricOperator) -> Tensor:
    if rows is None or len(rows) == 0:
        return torch.zeros(0, operator.dim, dtype=operator.dtype, device=operator.device)
    directions, _ = torch.linalg.qr(rows.to(dtype=operator.dtype, device=operator.device).T)
    return directions.T.contiguous()


def _frame(estimates: list[tuple[str, Estimate]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"quantity": name, "index": 0, "value": e.value, "ci_low": e.ci_low, "ci_high": e.ci_high}
            for name, e in estimates
        ],
        columns=["quantity", "index", "value", "ci_low", "ci_high"],
    ).assign(residual=float("nan"))
