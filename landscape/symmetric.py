"""What a method asks of a symmetric matrix, and how it asks: the method yields vectors, whoever drives it multiplies.

So one method runs on one matrix (:func:`drive`), and many run beside each other on the blocks of one matrix with all of
their vectors in one pass over the data (:mod:`landscape.blocks`), by the same code.
"""

from collections.abc import Callable, Generator
from typing import Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Method: TypeAlias = Generator[Tensor, Tensor, T]
"""Yields rows (K, P), is sent the matrix times each of them (K, P), and returns what it found."""


class SymmetricOperator(Protocol):
    """What the eigenvalue, trace and density methods ask of a symmetric matrix (P, P): any object that has these.

    Attributes:
        dim: P.
        dtype: of the vectors.
        device: of the vectors.
        n_products: vectors multiplied so far; ``product`` counts them.

    Example:
        >>> import torch
        >>> from landscape import extreme_eigenpairs
        >>> class Diagonal:
        ...     dim, dtype, device, n_products = 4, torch.float64, torch.device("cpu"), 0
        ...     def product(self, vectors):
        ...         self.n_products += len(vectors)
        ...         return vectors * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
        >>> extreme_eigenpairs(Diagonal(), 2).values
        tensor([4., 3.], dtype=torch.float64)
    """

    dim: int
    dtype: torch.dtype
    device: torch.device
    n_products: int

    def product(self, vectors: Tensor) -> Tensor:
        """Return the matrix times each row of ``vectors`` (K, P), as rows (K, P)."""


def tell(progress: Callable[[int, int], None] | None, standing: str, share: float) -> None:
    """Say where a method stands, in words and as a share of the work, to a ``progress`` that has a method ``tell``."""
    if (told := getattr(progress, "tell", None)) is not None:
        told(standing, share)


class Run(Generic[T]):
    """A method under way.

    Attributes:
        rows: what it asks to be multiplied; None when it has ended.
        found: what it returned in the end.
    """

    def __init__(self, method: Generator[Tensor, Tensor, T]) -> None:
        self._method = method
        self.rows: Tensor | None = None
        self.found: T
        self._go_on(None)

    def answer(self, images: Tensor) -> None:
        """Give the matrix times each of the rows."""
        self._go_on(images)

    def _go_on(self, images: Tensor | None) -> None:
        try:
            self.rows = next(self._method) if images is None else self._method.send(images)
        except StopIteration as end:
            self.rows, self.found = None, end.value


def drive(method: Generator[Tensor, Tensor, T], operator: SymmetricOperator) -> T:
    """Run ``method`` to its end with the products of ``operator``, and return what it found."""
    run = Run(method)
    while run.rows is not None:
        run.answer(operator.product(run.rows))
    return run.found
