"""What a matrix that is only ever multiplied can do: ``A @ v``, ``A - B``, ``2 * A``, ``A + s I``, ``A x = b``.

Sums and multiples are matrices of the same kind: every method takes them (eigenpairs, trace, density, SciPy's).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from landscape.solvers import Solution, Solver, solve


class OperatorAlgebra:
    """The operations of a symmetric matrix (P, P) that has ``dim, dtype, device, n_products`` and ``product``."""

    dim: int
    dtype: torch.dtype
    device: torch.device
    n_products: int

    def product(self, vectors: Tensor) -> Tensor:
        """Return the matrix times each row of ``vectors`` (K, P), as rows (K, P)."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return self.dim, self.dim

    def __matmul__(self, other: Tensor) -> Tensor:
        """Return ``A v`` of a vector (P,), ``A V`` of a matrix (P, K) whose *columns* are vectors, and that of each
        matrix of a tensor (..., P, K), as ``torch.matmul`` does.

        Raises:
            ValueError: sizes that do not fit.
        """
        if not isinstance(other, Tensor):
            return NotImplemented
        if other.ndim == 0 or other.shape[0 if other.ndim == 1 else -2] != self.dim:
            raise ValueError(f"a matrix {self.shape} does not multiply a tensor {tuple(other.shape)}")
        if other.ndim == 1:
            return self.product(other[None])[0]
        columns = other.mT
        images = self.product(columns.reshape(-1, self.dim).contiguous())
        return images.view(columns.shape).mT

    def __add__(self, other: "OperatorAlgebra") -> "OperatorAlgebra":
        return Combined([(1.0, self), (1.0, other)]) if isinstance(other, OperatorAlgebra) else NotImplemented

    def __sub__(self, other: "OperatorAlgebra") -> "OperatorAlgebra":
        return Combined([(1.0, self), (-1.0, other)]) if isinstance(other, OperatorAlgebra) else NotImplemented

    def __mul__(self, factor: float) -> "OperatorAlgebra":
        return Combined([(float(factor), self)]) if isinstance(factor, (int, float)) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> "OperatorAlgebra":
        return -1.0 * self

    def shifted(self, shift: float) -> "OperatorAlgebra":
        """Return ``A + shift I``.

        Example:
            >>> import torch
            >>> from landscape import HessianOperator
            >>> model = torch.nn.Linear(2, 1, bias=False).double()
            >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (torch.eye(2).double(), torch.zeros(2, 1)))
            >>> damped = hessian.shifted(0.5)
            >>> damped @ torch.eye(2, dtype=torch.float64)
            tensor([[1.5000, 0.0000],
                    [0.0000, 1.5000]], dtype=torch.float64)
        """
        return Combined([(1.0, self)], shift)

    def solve(
        self, right: Tensor, *, method: Solver = "minres", tol: float = 1e-4, max_products: int = 1000
    ) -> Solution:
        """Return x with ``A x = right`` (P,), or of each row of (K, P): see :func:`landscape.solve`."""
        return solve(self, right, method=method, tol=tol, max_products=max_products)

    def to_scipy(self) -> "LinearOperator[np.float32 | np.float64]":
        """Return the matrix for ``scipy.sparse.linalg`` (``eigsh``, ``cg``, ``minres``, ...): NumPy arrays in and out,
        in float64 if the model is and else in float32, products wherever the model is.

        Example:
            >>> import torch
            >>> from scipy.sparse.linalg import eigsh
            >>> from landscape import HessianOperator
            >>> model = torch.nn.Linear(3, 1, bias=False).double()
            >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
            >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)))
            >>> eigsh(hessian.to_scipy(), 1, return_eigenvectors=False).round(6)
            array([6.])
        """
        dtype = np.float64 if self.dtype == torch.float64 else np.float32

        def multiply(columns: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
            moved = torch.from_numpy(np.ascontiguousarray(columns)).to(device=self.device, dtype=self.dtype)
            return np.asarray((self @ moved).cpu().to(torch.float64).numpy(), dtype=dtype)

        return LinearOperator(
            self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, rmatmat=multiply, dtype=np.dtype(dtype)
        )


class Combined(OperatorAlgebra):
    """``sum_i c_i A_i + shift I`` of matrices of one size.

    Raises:
        ValueError: the sizes differ.
    """

    def __init__(self, terms: Sequence[tuple[float, OperatorAlgebra]], shift: float = 0.0) -> None:
        first = terms[0][1]
        if any(one.dim != first.dim for _, one in terms):
            raise ValueError(f"matrices of {', '.join(str(one.dim) for _, one in terms)} rows do not add up")
        self._terms, self._shift = list(terms), float(shift)
        self.dim, self.dtype, self.device = first.dim, first.dtype, first.device
        self.n_products = 0

    def product(self, vectors: Tensor) -> Tensor:
        """Return the combination times each row of ``vectors``: (K, P) -> (K, P)."""
        rows = vectors.reshape(-1, self.dim).to(self.dtype)
        total = self._shift * rows
        for factor, one in self._terms:
            total = total + factor * one.product(rows)
        self.n_products += len(rows)
        return total.view(vectors.shape)
