"""Trace and largest eigenvalue of the Hessian, minimised over the rescalings that leave the function as it is.

**The trace.** Multiplying a parameter block by c divides its diagonal block of the Hessian by c^2. With the traces h_t
of the blocks, the trace of the network rescaled by s (see :class:`Rescalings`) is

    F(s) = sum_t h_t exp(-2 E_t s).

In a chain W_1, b_1, ..., W_L, b_L with ``W_l -> c_l W_l`` and ``prod c_l = 1``, the bias of layer l is multiplied by
``c_1 ... c_l``, so that with s_l = log(c_1 ... c_l), s_0 = s_L = 0,

    F(s) = sum_l h_l exp(-2 (s_l - s_(l-1))) + sum_l k_l exp(-2 s_l).

F is a sum of exponentials of linear functions, so convex where all h, k >= 0: a geometric programme, solved by Newton
steps. Without biases its minimum is ``L (h_1 ... h_L)^(1/L)``: by the inequality of the means the sum is least where
its terms, whose product is fixed, are equal. Where a block's trace is negative there is no minimum, as shrinking the
block sends F to minus infinity; the Gauss-Newton matrix has no such block.

**The largest eigenvalue** of ``D(s) H D(s)``, D(s) = exp(-E s) block by block. Of a positive semi-definite
``H = J^T J`` it is that of ``J D^2 J^T``, the maximum over unit y of ``sum_t exp(-2 E_t s) |J_t^T y|^2``: a maximum of
convex functions of s. A top eigenvector v at s_i, with the masses m_t = |v_t|^2 of its blocks, gives one of these,

    f_i(s) = lambda(s_i) sum_t m_t exp(-2 E_t (s - s_i))  <=  lambda_max(s),

equal at s_i. So the least of the maximum over those seen is a lower bound of the minimum, and its place is where to
look next (Kelley's method, with cuts that are curved as the function is). A Hessian with negative eigenvalues is not of
this form: the value found is still one that a rescaling has, the bound then is none that is proven.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from alignscape.errors import InputError
from landscape.lanczos import Eigenpairs, extreme_eigenpairs
from landscape.operator import HessianOperator
from landscape.parameters import flatten
from landscape.sharpness.congruent import Congruent
from landscape.sharpness.rescaling import Rescalings

Vector = NDArray[np.float64]
Cut = tuple[Vector, Vector]  # exponents (T, K) and logarithms of coefficients (T,) of a sum of exponentials
_BOX = 3.0  # how far the next look may be from the best one, in s
_minimise: Any = optimize.minimize
_FARTHEST = 20.0  # |s|: factors of 5e8


@dataclass(frozen=True, kw_only=True)
class MinimalTrace:
    """The least of a sum of blocks' traces over rescalings.

    Attributes:
        value: of the sum.
        s: (K,), where it is.

    Example:
        >>> import torch
        >>> from landscape import MinimalTrace
        >>> MinimalTrace(value=8.0, s=torch.zeros(1)).value
        8.0
    """

    value: float
    s: Tensor


@dataclass(frozen=True, kw_only=True)
class MinimalEigenvalue:
    """The least largest eigenvalue over rescalings, as far as it was found.

    Attributes:
        value: the smallest found, that of the network rescaled by ``s``.
        bound: none is smaller, if the matrix is positive semi-definite, as far as ``tol`` lets its eigenvectors tell.
        s: (K,).
        pairs: the eigenpair of the rescaled matrix.
        n_problems: eigenproblems that it took.

    Example:
        >>> import torch
        >>> from landscape import Eigenpairs, MinimalEigenvalue
        >>> one = {"residuals": torch.zeros(1), "ends": "largest", "converged": True, "n_products": 1}
        >>> pairs = Eigenpairs(values=torch.tensor([16.0]), vectors=torch.ones(1, 1), **one)
        >>> MinimalEigenvalue(value=16.0, bound=15.9, s=torch.zeros(1), pairs=pairs, n_problems=3).bound
        15.9
    """

    value: float
    bound: float
    s: Tensor
    pairs: Eigenpairs
    n_problems: int


def minimal_trace(traces: Mapping[str, float], found: Rescalings) -> MinimalTrace:
    """Return the least trace over rescalings.

    Args:
        traces: of the diagonal block of each parameter, by name.
        found: the rescalings of the network.

    Raises:
        InputError: no rescaling, or a block's trace that is negative, or zero so that there is no minimum.

    Example:
        >>> import torch
        >>> from landscape import minimal_trace, rescalings
        >>> layers = torch.nn.Linear(4, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False)
        >>> found = rescalings(torch.nn.Sequential(*layers), (torch.randn(5, 4), torch.zeros(5)))
        >>> round(minimal_trace({"0.weight": 2.0, "2.weight": 8.0}, found).value, 6)  # 2 sqrt(2 * 8)
        8.0
    """
    if not found.pairs:
        raise InputError(f"no rescaling leaves the function as it is: {'; '.join(found.refused) or 'one layer only'}")
    concerned = {name: value for name, value in traces.items() if name in found.exponents}
    negative = [name for name, value in concerned.items() if not value >= 0]
    if negative:
        raise InputError(
            f"the Hessian's trace of {negative[0]} is {concerned[negative[0]]:.3g}: shrinking it sends the whole to "
            "minus infinity, so there is no least one; the Gauss-Newton matrix has one (hessian='ggn')"
        )
    fixed = sum(value for name, value in traces.items() if name not in found.exponents)
    rows = np.array([found.exponents[name].tolist() for name in concerned])
    sizes = np.array(list(concerned.values()))
    if not sizes.any():
        raise InputError("the trace of every block is zero, at any rescaling: the loss has no curvature here")
    s = _least((rows[sizes > 0], np.log(sizes[sizes > 0])), np.zeros(len(found.pairs)))
    if np.abs(s).max() > _FARTHEST:
        raise InputError("the trace falls without end as layers are scaled against each other: a block's trace is zero")
    value = fixed + float(sizes @ np.exp(-2 * rows @ s))
    return MinimalTrace(value=value, s=torch.from_numpy(s))


def minimal_eigenvalue(
    operator: HessianOperator,
    found: Rescalings,
    *,
    start: Tensor | None = None,
    gap: float = 0.01,
    tol: float = 1e-3,
    max_problems: int = 12,
    seed: int = 0,
) -> MinimalEigenvalue:
    """Return the least largest eigenvalue over rescalings.

    Args:
        operator: the curvature of the network as it is, over all of its parameters.
        found: its rescalings.
        start: (K,), where to look first, such as where the trace is least; zeros if None.
        gap: end where value and bound are this close, relative to the value.
        tol: residual of each eigenvalue, relative to it.
        max_problems: eigenproblems to solve at most, each from the eigenvector of the one before.
        seed: of the first one's start.

    Raises:
        InputError: no rescaling.

    Example:
        >>> import torch
        >>> from landscape import HessianOperator, minimal_eigenvalue, rescalings
        >>> layers = torch.nn.Linear(1, 1, bias=False), torch.nn.ReLU(), torch.nn.Linear(1, 1, bias=False)
        >>> net, data = torch.nn.Sequential(*layers).double(), (torch.ones(2, 1), torch.zeros(2, 1))
        >>> for layer, weight in ((layers[0], 8.0), (layers[2], 0.5)):
        ...     _ = torch.nn.init.constant_(layer.weight, weight)
        >>> operator = HessianOperator(net, torch.nn.MSELoss(), data, hessian="ggn")
        >>> found = minimal_eigenvalue(operator, rescalings(net, data), gap=1e-4, tol=1e-6)
        >>> round(found.value, 2), round(found.bound, 2)  # of 2 (w1^2 + w2^2), where w1 w2 = 4
        (16.0, 16.0)
    """
    if not found.pairs:
        raise InputError(f"no rescaling leaves the function as it is: {'; '.join(found.refused) or 'one layer only'}")
    names = list(operator.parameters)
    zero = torch.zeros(len(found.pairs), dtype=torch.float64)
    rows = torch.stack([found.exponents.get(name, zero) for name in names]).numpy()
    s = np.zeros(len(found.pairs)) if start is None else start.numpy()
    cuts: list[Cut] = []
    best: tuple[float, Vector, Eigenpairs] | None = None
    guess: Tensor | None = None
    bound, solved = 0.0, 0
    while solved < max_problems:
        scale = scale_of(operator, found, torch.from_numpy(s))
        pairs = extreme_eigenpairs(
            Congruent.scaled(operator, scale), 1, tol=tol, start=guess, confirm=guess is None, seed=seed
        )
        solved += 1
        value = float(pairs.values[0])
        if best is None or value < best[0]:
            best = value, s, pairs
        if not value > 0:
            break
        cuts.append(_cut(pairs, operator, rows, s))
        s, logarithm = _least_of_largest(cuts, best[1])
        bound = max(bound, math.exp(logarithm))  # a cut more can only raise it
        if best[0] - bound <= gap * best[0]:
            break
        moved = scale_of(operator, found, torch.from_numpy(s)) / scale
        guess = pairs.vectors * moved.to(pairs.vectors)  # what the eigenvector becomes where H is as good as rank one
    assert best is not None
    return MinimalEigenvalue(
        value=best[0], bound=min(bound, best[0]), s=torch.from_numpy(best[1]), pairs=best[2], n_problems=solved
    )


def scale_of(operator: HessianOperator, found: Rescalings, s: Tensor) -> Tensor:
    """Return the diagonal D (P,) with which ``D H D`` is the Hessian of the network rescaled by ``s``."""
    factors = (-found.logarithms(s, operator.parameters)).exp().tolist()
    parts = {n: torch.full_like(p, factor) for (n, p), factor in zip(operator.parameters.items(), factors, strict=True)}
    return flatten(parts)


def _cut(pairs: Eigenpairs, operator: HessianOperator, rows: Vector, s: Vector) -> Cut:
    """Return the exponents of the cut at ``s`` and the logarithms of its coefficients."""
    sizes = [p.numel() for p in operator.parameters.values()]
    masses = np.array([float(part.double().square().sum()) for part in pairs.vectors[0].split(sizes)])
    kept = masses > 0
    return rows[kept], np.log(float(pairs.values[0]) * masses[kept]) + 2 * rows[kept] @ s


def _least(cut: Cut, start: Vector) -> Vector:
    """Return where ``log sum_t exp(b_t - 2 E_t s)`` is least, by Newton steps in a trust region."""
    result = _minimise(
        lambda s: _logarithm(cut, s)[0],
        start,
        jac=lambda s: _logarithm(cut, s)[1],
        hess=lambda s: _logarithm(cut, s)[2],
        method="trust-exact",
        options={"gtol": 1e-10},
    )
    return np.asarray(result.x)


def _least_of_largest(cuts: Sequence[Cut], start: Vector) -> tuple[Vector, float]:
    """Return where the largest of the cuts' logarithms is least within a box about ``start``, and that logarithm; minus
    infinity where it is least at the box's edge, so that it may be less outside."""
    n = len(start)
    result = _minimise(
        lambda x: x[-1],
        np.append(start, max(_logarithm(cut, start)[0] for cut in cuts)),
        jac=lambda x: np.eye(n + 1)[-1],
        constraints=[
            {
                "type": "ineq",
                "fun": lambda x: x[-1] - np.array([_logarithm(cut, x[:-1])[0] for cut in cuts]),
                "jac": lambda x: np.array([np.append(-_logarithm(cut, x[:-1])[1], 1.0) for cut in cuts]),
            }
        ],
        bounds=[*((value - _BOX, value + _BOX) for value in start), (None, None)],
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 200},
    )
    s = np.asarray(result.x[:-1])
    inside = result.success and (np.abs(s - start) < 0.999 * _BOX).all()
    return s, max(_logarithm(cut, s)[0] for cut in cuts) if inside else -math.inf


def _logarithm(cut: Cut, s: Vector) -> tuple[float, Vector, Vector]:
    """Return ``log sum_t exp(b_t - 2 E_t s)`` with its gradient (K,) and its second derivatives (K, K)."""
    rows, offsets = cut
    powers = offsets - 2 * rows @ s
    top = powers.max()
    weights = np.exp(powers - top)
    shares = weights / weights.sum()
    slope = -2 * rows.T @ shares
    return float(top + math.log(weights.sum())), slope, 4 * (rows.T * shares) @ rows - np.outer(slope, slope)
