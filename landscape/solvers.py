"""``A x = b`` from products alone: Newton steps and influence functions.

MINRES (Paige and Saunders 1975) makes the residual as small as any combination of the products seen, and takes
indefinite matrices, as Hessians are. CG (Hestenes and Stiefel 1952) is for positive definite ones, and says where a
matrix turns out not to be. Both run in rounds: what their recurrences call solved is multiplied once more, and what is
left of b is solved for in the next round, so that the residual told is the true one.
"""

import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from alignscape.errors import InputError
from landscape.symmetric import SymmetricOperator, drive

Solver = Literal["minres", "cg"]
_Steps: TypeAlias = Generator[Tensor, Tensor, tuple[Tensor, int]]
_Method: TypeAlias = Callable[[Tensor, Tensor, int], _Steps]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The solution of a linear system; made by :func:`solve`.

    Attributes:
        x: (P,), or (K, P) for K right-hand sides, in the operator's dtype.
        residual: ``|A x - b| / |b|``, from a product of its own: one number, or (K,) float64.
        iterations: of the method, over all rounds.
        n_products: products spent, the checks of the residual included.
        converged: every residual is within tolerance.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
        >>> hessian = landscape.HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> found = landscape.solve(hessian, torch.tensor([1.0, 9.0]))
        >>> found.x, found.iterations, found.converged
        (tensor([1.0000, 1.0000], dtype=torch.float64), 2, True)
    """

    x: Tensor
    residual: Tensor
    iterations: int
    n_products: int
    converged: bool


def solve(
    operator: SymmetricOperator,
    right: Tensor,
    *,
    method: Solver = "minres",
    tol: float = 1e-4,
    max_products: int = 1000,
) -> Solution:
    """Return x with ``A x = right``.

    Args:
        operator: the matrix A (P, P), which is only ever multiplied; ``hessian.shifted(s)`` adds a damping.
        right: b, (P,), or several, a row each, (K, P).
        method: ``minres`` for any symmetric matrix (a singular one where b lies in its range), ``cg`` for one that is
            positive definite.
        tol: the residual ``|A x - b| / |b|`` to reach.
        max_products: give up after so many products of each right-hand side, with a warning.

    Raises:
        InputError: an unknown method, a tolerance that is not positive, a right-hand side that does not fit, or a
            matrix that ``cg`` finds not to be positive definite.

    References: Paige and Saunders 1975; Hestenes and Stiefel 1952; Koh and Liang, "Understanding black-box predictions
    via influence functions", ICML 2017 (what it is for).

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
        >>> hessian = landscape.HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.ones(2, 1)))
        >>> step = landscape.solve(hessian, hessian.gradient).x  # of Newton: the loss is quadratic
        >>> (model.weight - step).detach()
        tensor([[1.0000, 0.3333]], dtype=torch.float64)
    """
    if method not in get_args(Solver):
        raise InputError(f"unknown method {method!r}; use 'minres' or 'cg'")
    if not tol > 0 or max_products < 2:
        raise InputError("the tolerance must be positive, and there must be 2 products or more")
    if right.ndim not in (1, 2) or right.shape[-1] != operator.dim:
        raise InputError(
            f"the right-hand side has shape {tuple(right.shape)}; it must be ({operator.dim},) or rows of it"
        )
    before = operator.n_products
    rows = right.detach().reshape(-1, operator.dim).to(dtype=operator.dtype, device=operator.device)
    rounds = _Rounds(operator, rows, _METHODS[method], tol, max_products)
    rounds.run()
    residual = rounds.residual.cpu()
    converged = bool((residual <= tol).all())
    if not converged:
        warnings.warn(
            f"the system was solved to a relative residual of {float(residual.max()):.1e}, not {tol:.1e}, in "
            f"{rounds.iterations} iterations; allow more products, a larger tolerance, or shift the matrix",
            stacklevel=2,
        )
    return Solution(
        x=rounds.x.reshape(right.shape),
        residual=residual if right.ndim == 2 else residual[0],
        iterations=rounds.iterations,
        n_products=operator.n_products - before,
        converged=converged,
    )


class _Rounds:
    """Solve for what is left until it is small, or a round makes it no smaller."""

    def __init__(self, operator: SymmetricOperator, right: Tensor, method: "_Method", tol: float, most: int) -> None:
        self.operator, self.right, self.method, self.tol, self.most = operator, right, method, tol, most
        self.x = torch.zeros_like(right)
        self.residual = (_norms(right) > 0).double()
        self.iterations = 0

    def run(self) -> None:
        size = _norms(self.right)
        left = self.right
        while bool((self.residual > self.tol).any()) and self.iterations + 2 <= self.most:
            step, iterations = drive(self.method(left, self.tol * size, self.most - self.iterations - 1), self.operator)
            self.iterations += iterations
            x = self.x + step
            now = self.right - self.operator.product(x)
            found = torch.where(size > 0, _norms(now) / size, 0.0)
            gained = bool((found < 0.5 * self.residual)[self.residual > self.tol].any())
            better = found < self.residual
            self.x, left = torch.where(better[:, None], x, self.x), torch.where(better[:, None], now, left)
            self.residual = torch.where(better, found, self.residual)
            if not gained:
                return


def _minres(right: Tensor, wanted: Tensor, most: int) -> _Steps:
    """Run MINRES from zero until the residuals (K,) that its rotations tell are as ``wanted``.

    Lanczos vectors v, the rotations (c, s) that make their tridiagonal matrix triangular, and the directions w that
    the solution is summed up of (Paige and Saunders 1975, section 6); a column a right-hand side.
    """
    x, v_old, w_old, w = (torch.zeros_like(right) for _ in range(4))
    size = _norms(right)
    v = right / _safe(size)[:, None].to(right)
    left, beta = size.clone(), torch.zeros_like(size)
    (c_old, s_old), (c, s) = _no_turn(size), _no_turn(size)
    floor, done = 10 * torch.finfo(right.dtype).eps, 0
    scale = torch.zeros_like(size)
    while done < most and bool((left.abs() > wanted).any()):
        image = yield v
        done += 1
        alpha = (v * image).sum(dim=1, dtype=torch.float64)
        image = image - alpha[:, None].to(right) * v - beta[:, None].to(right) * v_old
        beta_new = _norms(image)
        scale = torch.maximum(scale, torch.hypot(alpha, torch.hypot(beta, beta_new)))
        beta_new = torch.where(beta_new > floor * scale, beta_new, 0.0)
        delta, above, far = c * alpha - c_old * s * beta, s * alpha + c_old * c * beta, s_old * beta
        rho = torch.hypot(delta, beta_new)
        live = (rho > floor * scale) & (left.abs() > wanted)
        w_old, w = (
            w,
            (v - far[:, None].to(right) * w_old - above[:, None].to(right) * w) / _safe(rho)[:, None].to(right),
        )
        (c_old, s_old), (c, s) = (c, s), (delta / _safe(rho), beta_new / _safe(rho))
        x = torch.where(live[:, None], x + (c * left)[:, None].to(right) * w, x)
        ended = (beta_new == 0) | (rho <= floor * scale)  # the Krylov space is whole: what is left stays
        left = torch.where(ended, 0.0, torch.where(live, -s * left, left))
        v_old, v, beta = v, image / _safe(beta_new)[:, None].to(right), beta_new
    return x, done


def _cg(right: Tensor, wanted: Tensor, most: int) -> _Steps:
    """Run conjugate gradients from zero until the residuals (K,) of the recurrence are as ``wanted``.

    Raises:
        InputError: a direction along which the matrix is not positive.
    """
    x, left, done = torch.zeros_like(right), right.clone(), 0
    direction, square = right.clone(), _norms(right) ** 2
    while done < most and bool((square.sqrt() > wanted).any()):
        image = yield direction
        done += 1
        curvature = (direction * image).sum(dim=1, dtype=torch.float64)
        live = square.sqrt() > wanted
        if bool((curvature <= 0)[live].any()):
            raise InputError(
                "the matrix is not positive definite: use minres, shift the matrix, or take the Gauss-Newton matrix"
            )
        length = torch.where(live, square / _safe(curvature), 0.0)[:, None].to(right)
        x, left = x + length * direction, left - length * image
        before, square = square, _norms(left) ** 2
        direction = left + (square / _safe(before))[:, None].to(right) * direction
    return x, done


_METHODS: dict[str, "_Method"] = {"minres": _minres, "cg": _cg}


def _no_turn(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(like), torch.zeros_like(like)


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)


def _safe(values: Tensor) -> Tensor:
    """Return ``values`` with 1 in place of 0, to divide by."""
    return torch.where(values == 0, 1.0, values)
