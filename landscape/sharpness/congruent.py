"""Matrices ``S^T H S`` of a curvature H: of the rescaled network, or of the sum that relative flatness is."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch
from scipy import stats
from torch import Tensor

from landscape.lanczos import krylov_subspace
from landscape.operator import HessianOperator
from landscape.parameters import unflatten
from landscape.sharpness.losses import interval
from landscape.symmetric import SymmetricOperator
from landscape.traces import Estimate, hutchinson_trace, random_signs

Map = Callable[[Tensor], Tensor]
_DEFLATED = 20  # products for the Krylov space that a trace treats exactly; half of the probes at most
_PROBES = 20  # for the traces of all groups


class Grouped(SymmetricOperator, Protocol):
    """A mean of matrices over batches, each of which can be multiplied alone."""

    def products_by_batch(self, vectors: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Yield (weight, the batch's matrix times each row of ``vectors``) batch by batch."""


class Congruent:
    """``S^T H S``, which is only ever multiplied.

    Args:
        operator: H (P, P).
        into: S, rows (K, Q) -> (K, P).
        back: its transpose, rows (K, P) -> (K, Q).
        dim: Q.
    """

    def __init__(self, operator: HessianOperator, into: Map, back: Map, dim: int) -> None:
        self.operator, self._into, self._back, self.dim = operator, into, back, dim
        self.dtype, self.device = operator.dtype, operator.device

    @classmethod
    def scaled(cls, operator: HessianOperator, scale: Tensor) -> "Congruent":
        """Return ``D H D`` of a diagonal D, given as (P,)."""

        def multiply(rows: Tensor) -> Tensor:
            return rows * scale.to(rows)

        return cls(operator, multiply, multiply, operator.dim)

    @property
    def n_products(self) -> int:
        """Vectors multiplied so far."""
        return self.operator.n_products

    @n_products.setter
    def n_products(self, count: int) -> None:
        self.operator.n_products = count

    def product(self, vectors: Tensor) -> Tensor:
        """Return the matrix times each row of ``vectors`` (K, Q), as rows (K, Q)."""
        rows = vectors.reshape(-1, self.dim).to(self.dtype)
        return self._back(self.operator.product(self._into(rows))).reshape(vectors.shape)

    def products_by_batch(self, vectors: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Yield (weight, products with the matrix of that batch (K, Q)) batch by batch."""
        for weight, part in self.operator.products_by_batch(self._into(vectors.to(self.dtype))):
            yield weight, self._back(part)


def traced(
    matrix: SymmetricOperator,
    by_group: Grouped | None,
    *,
    layout: Mapping[str, Tensor] | None = None,
    tol: float = 0.02,
    max_probes: int = 200,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return the trace of ``matrix`` under the name ``""``, and that of the diagonal block of each part of ``layout``.

    Args:
        matrix: of all samples.
        by_group: the same matrix with a batch for each group of samples, for intervals over samples that hold the
            error of the probes too; None: of that error alone.
        layout: parts of the vectors, in order.
        tol, max_probes: as for :func:`landscape.hutchinson_trace`.
        seed: of the probes.
    """
    layout = dict(layout or {})
    space = krylov_subspace(matrix, min(_DEFLATED, max_probes // 2, matrix.dim), seed=seed + 1)
    found = hutchinson_trace(matrix, deflate=space, tol=tol, max_probes=max_probes, layout=layout, seed=seed)
    estimates = {"": Estimate(value=found.value, ci_low=found.ci_low, ci_high=found.ci_high), **found.layers}
    if by_group is None:
        return estimates
    weights, parts = _group_traces(by_group, space.rows[:5], layout, seed + 2)
    freedom = len(found.samples) - 1
    quantile = float(stats.t.ppf(0.975, freedom))
    return {
        name: interval(
            one.value, parts[:, place], weights, ((one.ci_high - one.value) / quantile) ** 2, freedom=freedom
        )
        for place, (name, one) in enumerate(estimates.items())
    }


def along(value: float, vector: Tensor, by_group: Grouped | None) -> Estimate:
    """Return the curvature ``value`` along an eigenvector (Q,), with its interval over samples: that of the curvature
    of each group along it, as an eigenvalue does not change to first order as its vector turns."""
    if by_group is None:
        return Estimate(value=value, ci_low=math.nan, ci_high=math.nan)
    found = [
        (size, float(vector.double() @ image[0].double())) for size, image in by_group.products_by_batch(vector[None])
    ]
    weights, parts = torch.tensor(found, dtype=torch.float64).T
    return interval(value, parts, weights / weights.sum())


def _group_traces(matrix: Grouped, span: Tensor, layout: Mapping[str, Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """Return the share of each group (G,), and an estimate of its trace and of those of the parts (G, 1 + parts), with
    the space of the rows ``span`` treated exactly."""
    sums: list[Tensor] = []
    sizes: list[float] = []

    def add(left: Tensor, right: Tensor, scale: float) -> None:
        for place, (size, image) in enumerate(matrix.products_by_batch(right)):
            found = scale * _inner(left, image, layout)
            if place == len(sums):
                sums.append(found)
                sizes.append(size)
            else:
                sums[place] = sums[place] + found

    add(span, span, 1.0)
    generator = torch.Generator(device=matrix.device).manual_seed(seed)
    for _ in range(_PROBES):
        signs = random_signs(matrix, generator)
        outside = signs - (signs @ span.T) @ span
        add(signs[None], outside[None], 1 / _PROBES)
    weights = torch.tensor(sizes, dtype=torch.float64)
    return weights / weights.sum(), torch.stack(sums)


def _inner(left: Tensor, right: Tensor, layout: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the rows' inner products, and its parts (1 + parts,), float64."""
    products = (left * right).double().sum(dim=0)
    parts = [part.sum() for part in unflatten(products, layout).values()] if layout else []
    return torch.stack([products.sum(), *parts]).cpu()
