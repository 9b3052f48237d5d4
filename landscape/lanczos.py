"""The extreme eigenpairs of a symmetric operator: thick-restart block Lanczos with full reorthogonalisation.

The state is the Krylov-Schur relation (Stewart 2001; Wu and Simon 2000 for the thick restart)

    H V^T = V^T T + F^T B^T,    V F^T = 0,    the rows of V and of F orthonormal,

with T = V H V^T in float64. For a Ritz pair (theta, y) the residual norm is |y^T B|: it is known without a product.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Unpack

import pandas as pd
import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.memory import require_memory
from landscape.data import Data, Loss
from landscape.operator import HessianOperator, OperatorOptions
from landscape.symmetric import Method, SymmetricOperator, drive, tell

Ends = Literal["largest", "smallest", "magnitude"]

# Steps that a converged answer is confirmed with: a Krylov space grown from few vectors holds few copies of a repeated
# eigenvalue, one that a fresh random vector has joined finds the next. Five steps missed one in 15 of 864 searches, ten
# none, for 16 % more products.
_CONFIRMING_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Subspace:
    """Orthonormal rows, and what the search that made them knows without a product.

    Attributes:
        rows: V, (M, P), in the operator's dtype.
        trace: ``tr(V H V^T)``.

    Example:
        >>> import torch
        >>> from landscape import HessianOperator, krylov_subspace
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)))
        >>> space = krylov_subspace(hessian, 3)
        >>> space.rows.shape, round(space.trace, 4)  # the whole space, so the whole trace: 2/3 (1 + 4 + 9)
        (torch.Size([3, 3]), 9.3333)
    """

    rows: Tensor
    trace: float


@dataclass(frozen=True, kw_only=True)
class Eigenpairs:
    """The k wanted eigenpairs, most wanted first; made by :func:`top_eigenpairs` or :func:`extreme_eigenpairs`.

    Attributes:
        values: (k,) float64, Rayleigh quotients.
        vectors: (k, P), one unit vector a row, in the operator's dtype.
        residuals: (k,) float64, ``|H v - value v|`` from one further product each. An eigenvalue lies within the
            residual of the value (exactly: it is a bound, whatever the spectrum). That no other lies between or
            beyond those found is not certified: see ``Notes`` of :func:`extreme_eigenpairs`.
        ends: which end of the spectrum was asked for.
        converged: every residual is within tolerance.
        n_products: products spent, start and final check included.
        basis: the whole Krylov space, its Ritz vectors with the wanted ones first; None unless asked for.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> pairs = landscape.top_eigenpairs(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)), k=2)
        >>> pairs.converged, pairs.vectors.shape
        (True, torch.Size([2, 3]))
        >>> pairs.frame()[["index", "value"]].round(4)
           index   value
        0      1  6.0000
        1      2  2.6667
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    ends: Ends
    converged: bool
    n_products: int
    basis: "Subspace | None" = None

    def frame(self) -> pd.DataFrame:
        """Return one row per eigenvalue: quantity, index, value, ci_low, ci_high (value -+ residual), residual."""
        return pd.DataFrame(
            {
                "quantity": "eigenvalue",
                "index": range(1, len(self.values) + 1),
                "value": self.values.tolist(),
                "ci_low": (self.values - self.residuals).tolist(),
                "ci_high": (self.values + self.residuals).tolist(),
                "residual": self.residuals.tolist(),
            }
        )


def top_eigenpairs(
    model: nn.Module,
    loss: Loss,
    data: Data,
    k: int = 5,
    *,
    ends: Ends = "largest",
    tol: float = 1e-4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **operator: Unpack[OperatorOptions],
) -> Eigenpairs:
    """Return the ``k`` extreme eigenpairs of the Hessian of the mean loss of ``model`` over ``data``.

    See :func:`extreme_eigenpairs` for the method and its arguments, :class:`HessianOperator` for the data and for
    ``params, hessian, reduction, batch_size, memory_budget, transform, group``.

    Raises:
        InputError: as both.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> pairs = landscape.top_eigenpairs(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)), k=2)
        >>> pairs.values
        tensor([6.0000, 2.6667], dtype=torch.float64)
        >>> bool((pairs.residuals < 1e-4 * 6).all())
        True
    """
    hessian = HessianOperator(model, loss, data, **operator)
    return extreme_eigenpairs(hessian, k, ends=ends, tol=tol, seed=seed, progress=progress)


def extreme_eigenpairs(
    operator: SymmetricOperator,
    k: int = 5,
    *,
    ends: Ends = "largest",
    tol: float = 1e-4,
    block_size: int = 1,
    basis_size: int | None = None,
    max_products: int = 2000,
    start: Tensor | None = None,
    confirm: bool = True,
    keep_basis: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Eigenpairs:
    """Return the ``k`` eigenpairs at one end of the spectrum of ``operator``.

    Args:
        operator: the matrix (P, P), which is only ever multiplied.
        k: number of eigenpairs.
        ends: ``largest`` (algebraically), ``smallest`` (most negative first), ``magnitude`` (largest ``|lambda|``).
        tol: bound on every residual, relative to the largest ``|Ritz value|``.
        block_size: vectors multiplied at a time. Repeated eigenvalues are found with any: see ``Notes``.
        basis_size: rows of the basis at which it restarts; None means ``max(2 k + 30, 40)``. It sets the memory,
            ``basis_size * P`` numbers.
        max_products: give up after so many products, with a warning; the residuals say how far it came.
        start: (S, P) rows that span a guess, such as the eigenvectors of the epoch before. ``block_size`` sums of
            them start the search (measured from one epoch to the next: 34 products, 41 from a random vector, and 63
            where each of five rows started a chain of its own).
        confirm: search for copies of repeated eigenvalues that may have been missed (see ``Notes``).
        keep_basis: return the whole basis too (``M * P`` numbers): :func:`landscape.hutchinson_trace` and
            :func:`landscape.data_error` do better with it.
        seed: of the random start.
        progress: called with (converged pairs, k).

    Notes:
        When all pairs have converged, the search goes on for a few steps with one more, random direction, orthogonal
        to everything seen. If that changes the answer (a repeated eigenvalue had copies missing), it
        continues to convergence and confirms again.

        So each pair is certified, by its residual, and the *count* is not: no number of products shows that there is
        no further eigenvalue. Of 864 searches in clustered and repeated spectra (uniform, semicircle, clusters; 60 to
        300 values, k from 1 to 8, every end) none missed one with ten steps of confirmation, 15 with five.

    Raises:
        InputError: ``k < 1``, an unknown end, a tolerance that is not positive, or a basis that no memory holds.

    A ``k`` above P is cut to P, with a warning. References: Stewart 2001; Wu and Simon 2000.

    Example:
        >>> import torch
        >>> from landscape import HessianOperator, extreme_eigenpairs
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)))
        >>> extreme_eigenpairs(hessian, 1, ends="smallest").values
        tensor([0.6667], dtype=torch.float64)
    """
    if ends not in ("largest", "smallest", "magnitude"):
        raise InputError(f"unknown end {ends!r} of the spectrum; use 'largest', 'smallest' or 'magnitude'")
    if k < 1 or not tol > 0 or block_size < 1:
        raise InputError("k and block_size must be at least 1 and tol positive")
    if k > operator.dim:
        warnings.warn(
            f"{k} eigenvalues asked of {operator.dim} parameters: there are only {operator.dim}", stacklevel=2
        )
        k = operator.dim
    capacity = max(basis_size or max(2 * k + 30, 40), k + 2 * block_size + 2)
    needed = {"basis": min(capacity, operator.dim) * operator.dim * operator.dtype.itemsize}
    require_memory(needed, f"a search for {k:,} eigenvalues", "ask for fewer (--k)", device=operator.device)
    generator = torch.Generator(device=operator.device).manual_seed(seed)
    space = KrylovSpace(operator, capacity, generator)
    space.begin(start, block_size)
    search = _Search(space, k, ends, tol, max_products, progress)
    return drive(search.method(confirm=confirm, keep_basis=keep_basis), operator)


def eigenpairs_method(operator: SymmetricOperator, k: int, *, ends: Ends, tol: float, seed: int) -> Method[Eigenpairs]:
    """The method of :func:`extreme_eigenpairs`, which keeps the whole basis; ``k`` above P is cut without a word."""
    k = min(k, operator.dim)
    generator = torch.Generator(device=operator.device).manual_seed(seed)
    space = KrylovSpace(operator, max(2 * k + 30, 40), generator)
    space.begin(None, 1)
    return (yield from _Search(space, k, ends, tol, 2000, None).method(confirm=True, keep_basis=True))


def krylov_subspace(operator: SymmetricOperator, products: int, *, seed: int = 0) -> Subspace:
    """Return the Krylov space that ``products`` products span from a random vector: what a trace deflates best by.

    Args:
        operator: the matrix (P, P), which is only ever multiplied.
        products: rows of the space, P at most.
        seed: of the vector. A trace's probes need another one.

    Example:
        >>> import torch
        >>> from landscape import HessianOperator, hutchinson_trace, krylov_subspace
        >>> model = torch.nn.Linear(8, 1, bias=False).double()
        >>> inputs = torch.diag(torch.arange(8, dtype=torch.float64))
        >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(8, 1)))
        >>> space = krylov_subspace(hessian, 4, seed=1)
        >>> space.rows.shape
        torch.Size([4, 8])
        >>> found = hutchinson_trace(hessian, deflate=space, max_probes=12)
        >>> found.ci_low < 35 < found.ci_high  # (0 + 1 + ... + 49) / 4
        True
    """
    generator = torch.Generator(device=operator.device).manual_seed(seed)
    space = KrylovSpace(operator, products, generator)
    space.begin(None, 1)
    drive(space.filled(), operator)
    return space.rotated()


class KrylovSpace:
    """The relation in the module's first line, grown and restarted in place."""

    def __init__(self, operator: SymmetricOperator, capacity: int, generator: torch.Generator) -> None:
        self.operator = operator
        self.capacity = min(capacity, operator.dim)
        self._generator = generator
        self._rows = torch.empty(self.capacity, operator.dim, dtype=operator.dtype, device=operator.device)
        self.size = 0
        self.projected = torch.zeros(0, 0, dtype=torch.float64)  # T
        self.frontier = self._rows.new_empty(0, operator.dim)  # F
        self.coupling = torch.zeros(0, 0, dtype=torch.float64)  # B

    @property
    def basis(self) -> Tensor:
        """V, (size, P)."""
        return self._rows[: self.size]

    def begin(self, start: Tensor | None, block_size: int) -> None:
        """Put ``block_size`` sums of the start vectors, or random vectors, on the frontier."""
        width = min(block_size, self.capacity)
        if start is None:
            rows = self._random((width, self.operator.dim))
        else:
            rows = torch.stack([start[first::width].sum(dim=0) for first in range(min(width, len(start)))])
            rows = rows.to(self._rows)
        directions, _ = self._orthonormal(rows, 0.0)
        self.frontier = directions
        self.coupling = torch.zeros(0, len(directions), dtype=torch.float64)

    def add_random_direction(self) -> None:
        """Put one random unit vector, orthogonal to all there is, on the frontier; nothing if V spans the space."""
        if self.size + len(self.frontier) >= self.operator.dim:
            return
        _, _, rest = self._remainder(self._random((1, self.operator.dim)))
        direction, _ = self._orthonormal(rest, 0.0)
        self.frontier = torch.cat([self.frontier, direction])
        self.coupling = torch.nn.functional.pad(self.coupling, (0, len(direction)))

    def filled(self) -> Method[None]:
        """Expand until V is full, or spans all that the matrix makes of the start."""
        while self.size < self.capacity and len(self.frontier) > 0:
            yield from self.expand(1)

    def expand(self, width: int) -> Method[None]:
        """Move the last ``width`` directions of the frontier into V; their images are the new ones behind the rest."""
        first, old = len(self.frontier) - width, self.size
        block, waiting = self.frontier[first:], self.frontier[:first]
        self._rows[old : old + width] = block
        self.size = old + width
        self.frontier = waiting
        image = yield self.basis[old:].clone()
        against_basis, against_waiting, rest = self._remainder(image)
        grown = torch.zeros(self.size, self.size, dtype=torch.float64)
        grown[:old, :old] = self.projected
        grown[:, old:] = against_basis
        grown[old:, :old] = against_basis[:old].T
        grown[old:, old:] = (against_basis[old:] + against_basis[old:].T) / 2
        self.projected = grown
        scale = max(float(torch.linalg.matrix_norm(grown, ord=2)), float(_norms(rest).norm()))
        new, factors = self._orthonormal(rest, scale)
        below = torch.cat([against_waiting.T, factors], dim=1)
        self.coupling = torch.cat([torch.nn.functional.pad(self.coupling[:, :first], (0, len(new))), below])
        self.frontier = torch.cat([waiting, new])

    def restart(self, weights: Tensor) -> None:
        """Replace V by the combinations ``weights`` (size, L): Ritz vectors, which keep T diagonal."""
        kept = weights.shape[1]
        self._rows[:kept] = weights.T.to(self._rows) @ self.basis
        self.size = kept
        self.projected = weights.T @ self.projected @ weights
        self.coupling = weights.T @ self.coupling

    def rotated(self, weights: Tensor | None = None) -> "Subspace":
        """Return V with its trace, turned in place by the orthogonal ``weights`` (size, size)."""
        if weights is not None:
            self.restart(weights)
        return Subspace(rows=self.basis, trace=float(self.projected.trace()))

    def _remainder(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the coefficients of ``rows`` on V and on F (a column a row) and what is left.

        Gram-Schmidt twice, and again while a pass still takes away more than rounding would (Daniel et al. 1976).
        """
        on_basis = torch.zeros(self.size, len(rows), dtype=torch.float64)
        on_frontier = torch.zeros(len(self.frontier), len(rows), dtype=torch.float64)
        norms = _norms(rows)
        for sweep in range(4):
            for span, coefficients in ((self.basis, on_basis), (self.frontier, on_frontier)):
                if len(span):
                    part = span @ rows.T
                    rows = rows - part.T @ span
                    coefficients += part.double().cpu()
            before, norms = norms, _norms(rows)
            if sweep > 0 and bool((norms > 0.7 * before).all()):
                break
        return on_basis, on_frontier, rows

    def _orthonormal(self, rows: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return directions D and factors R with rows = R D, for rows that are orthogonal to V and F.

        A row that loses all but rounding error of ``scale`` to the directions before it adds none.
        """
        floor = 10 * torch.finfo(rows.dtype).eps * scale
        directions = rows.new_empty(0, rows.shape[1])
        factors = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        room = self.operator.dim - self.size - len(self.frontier)
        for index, row in enumerate(rows):
            whole = float(_norms(row))
            for _ in range(2):
                part = directions @ row
                row = row - part @ directions
                factors[index, : len(part)] += part.double().cpu()
            norm = float(_norms(row))
            if norm <= floor or norm == 0.0 or len(directions) == room:
                continue
            unit = row / norm
            if norm < 0.1 * whole:  # small against what was subtracted: make it orthogonal again at its own scale
                _, _, rest = self._remainder(unit[None])
                unit = rest[0] - (directions @ rest[0]) @ directions
                unit = unit / unit.norm()
            factors[index, len(directions)] = norm
            directions = torch.cat([directions, unit[None]])
        return directions, factors[:, : len(directions)]

    def _random(self, shape: tuple[int, int]) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=self._rows.dtype, device=self._rows.device)


def _norms(rows: Tensor) -> Tensor:
    """Return the norms of the rows, float64: in float32 the squares of a Hessian of scale 1e-25 would all be 0."""
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)


class _Search:
    """Grow, restart and confirm until the wanted Ritz pairs are good."""

    def __init__(
        self,
        space: KrylovSpace,
        k: int,
        ends: Ends,
        tol: float,
        max_products: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.space, self.k, self.ends, self.tol = space, k, ends, tol
        self.max_products, self.progress = max_products, progress
        self.ritz()

    def ritz(self) -> None:
        """Diagonalise T and order the pairs, most wanted first."""
        values, weights = torch.linalg.eigh(self.space.projected)
        order = {
            "largest": values.argsort(descending=True),
            "smallest": values.argsort(),
            "magnitude": values.abs().argsort(descending=True),
        }[self.ends]
        self.values, self.weights = values[order], weights[:, order]
        self.scale = float(values.abs().max()) if len(values) else 0.0
        self.residuals = (self.weights.T @ self.space.coupling).norm(dim=1)

    @property
    def n_converged(self) -> int:
        good = self.residuals[: self.k] <= self.tol * self.scale
        return int(good.sum())

    def method(self, *, confirm: bool, keep_basis: bool) -> Method[Eigenpairs]:
        """Search, and check what was found."""
        before = self.space.operator.n_products
        yield from self.run(confirm=confirm)
        return (yield from self.result(before, keep_basis=keep_basis))

    def run(self, *, confirm: bool) -> Method[None]:
        begun = self.space.operator.n_products
        while self.space.operator.n_products - begun < self.max_products:
            if self.n_converged < self.k:
                if not (yield from self.step()):
                    return
            elif not confirm or (yield from self.confirmed()):
                return
            if self.progress is not None:
                self.progress(self.n_converged, self.k)
                tell(self.progress, *self.standing(self.space.operator.n_products - begun))

    def standing(self, products: int) -> tuple[str, float]:
        """Return products and the largest residual of a wanted pair in words, and how far the latter has come on a
        logarithmic scale, a share."""
        worst = float(self.residuals[: self.k].max()) / self.scale if self.scale else 0.0
        share = -math.log(min(max(worst, self.tol), 1.0)) / -math.log(min(self.tol, 0.5))
        return f"{products} products, residual {worst:.1e} of {self.tol:.1e}", share

    def step(self) -> Method[bool]:
        """Expand once, restarting first where V is full; False when V spans the whole space."""
        space = self.space
        if len(space.frontier) == 0:
            space.add_random_direction()
        width = min(len(space.frontier), max(1, (space.capacity - self.k) // 2))
        if width == 0:
            return False
        if space.size + width > space.capacity and space.size + width <= space.operator.dim:
            self.restart(width)
        yield from space.expand(width)
        self.ritz()
        return True

    def restart(self, width: int) -> None:
        keep = min(self.k + (self.space.capacity - self.k) // 3, self.space.capacity - width)
        self.space.restart(self.weights[:, : max(keep, 1)])

    def confirmed(self) -> Method[bool]:
        """Search from a fresh random direction; True where the wanted values stay what they are."""
        space = self.space
        before = self.values[: self.k].clone()
        space.add_random_direction()
        for _ in range(_CONFIRMING_STEPS):
            if not (yield from self.step()):
                break
        changed = (self.values[: self.k] - before).abs().max() > self.tol * self.scale
        return not changed and self.n_converged == self.k

    def result(self, before: int, *, keep_basis: bool) -> Method[Eigenpairs]:
        """Multiply the wanted vectors once more: values and residuals that owe nothing to the recurrence."""
        space = self.space
        vectors = self.weights[:, : self.k].T.to(space.basis) @ space.basis
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        images = yield vectors
        values = (vectors * images).sum(dim=1, dtype=torch.float64)
        rest = images - values[:, None].to(images) * vectors
        residuals = rest.norm(dim=1, dtype=torch.float64).cpu()
        converged = bool((residuals <= self.tol * self.scale).all())
        pairs = Eigenpairs(
            values=values.cpu(),
            vectors=vectors,
            residuals=residuals,
            ends=self.ends,
            converged=converged,
            n_products=space.operator.n_products - before,
            basis=space.rotated(self.weights) if keep_basis else None,
        )
        if not converged:
            worst = float(residuals.max()) / self.scale
            # The recurrence says converged, the products say otherwise: more of them will not help.
            rough = self.n_converged == self.k
            advice = "products are no more accurate than that: take float64 weights" if rough else "allow more products"
            warnings.warn(
                f"the eigenvalues reached a relative residual of {worst:.1e}, not {self.tol:.1e}, in "
                f"{pairs.n_products} products; {advice}, or a larger tolerance",
                stacklevel=7,
            )
        return pairs
