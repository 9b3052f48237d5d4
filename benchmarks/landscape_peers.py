"""PyHessian, curvlinops and hessian-eigenthings behind one face: a product, the top eigenvalues, samples of a trace.

Each gets its fastest use: all samples as ready tensors in one batch, no loader, attention on the kernel that has a
second derivative. Where one must be told when to stop, it is told by an oracle, the residual of its own vectors.
"""

import importlib
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]

try:
    import pyhessian

    _PyHessian: Any = pyhessian.hessian
except ImportError:  # it is an extra
    _PyHessian = object


class Peer(Protocol):
    """A library on one network and batch; ``products`` counts what it multiplies."""

    name: str
    products: int

    def product(self, vector: Tensor) -> Tensor:
        """Return H v, (P,)."""

    def top(self, k: int, residual: float) -> list[float]:
        """Return the k largest eigenvalues to a relative residual."""

    def trace_samples(self, count: int) -> Tensor:
        """Return ``count`` samples of the trace, a product each."""


class CountedPyHessian(_PyHessian):
    """PyHessian over one batch as its data set, counting products and stopped by an oracle."""

    name = "PyHessian"

    def __init__(self, model: nn.Module, batch: Batch, *, residual: float = 0.0) -> None:
        super().__init__(model, nn.CrossEntropyLoss(), dataloader=[batch], cuda=batch[0].is_cuda)
        self.products = 0
        self.residual = residual
        self.largest = 0.0
        self._last = float("nan")
        self._stopped = False

    def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
        """Multiply; once the residual of ``v`` is good, repeat the value before, which ends PyHessian's loop."""
        value, image = super().dataloader_hv_product(v)
        self.products += 1
        if self._stopped:
            self._stopped, self._last = False, float("nan")
        if self.residual:
            rest = math.sqrt(sum(float(((h - value * x) ** 2).sum()) for h, x in zip(image, v, strict=True)))
            self.largest = max(self.largest, abs(value))
            if rest <= self.residual * self.largest and not math.isnan(self._last):
                self._stopped = True
                return self._last, image
            self._last = value
        return value, image

    def product(self, vector: Tensor) -> Tensor:
        """Return H v."""
        parts = vector.split([p.numel() for p in self.params])
        image = self.dataloader_hv_product([part.view_as(p) for part, p in zip(parts, self.params, strict=True)])[1]
        return torch.cat([part.flatten() for part in image])

    def top(self, k: int, residual: float) -> list[float]:
        """Return eigenvalues by power iteration; it seeks the largest magnitudes."""
        self.residual = residual
        torch.manual_seed(0)
        values: list[float] = self.eigenvalues(maxIter=1000, tol=1e-30, top_n=k)[0]
        self.residual = 0.0
        return values

    def trace_samples(self, count: int) -> Tensor:
        """Return PyHessian's own samples."""
        torch.manual_seed(0)
        return torch.tensor(self.trace(maxIter=count, tol=-1.0))


class Curvlinops:
    """curvlinops, with SciPy's ARPACK as its documentation has it."""

    name = "curvlinops"

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        linops = importlib.import_module("curvlinops")
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._matrix = linops.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, [batch], check_deterministic=False
        )
        self._hutchinson = linops.hutchinson_trace
        self._device = batch[0].device
        self.products = 0

    def product(self, vector: Tensor) -> Tensor:
        """Return H v."""
        self.products += 1
        return torch.as_tensor(self._matrix @ vector)

    def top(self, k: int, residual: float) -> list[float]:
        """Return eigenvalues by ARPACK, whose tolerance is relative to each of them."""
        from scipy.sparse.linalg import LinearOperator

        def multiply(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            moved = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float32).ravel()).to(self._device)
            return np.asarray(self.product(moved).cpu().numpy())

        size = self._matrix.shape[0]
        counted = LinearOperator((size, size), matvec=multiply, dtype=np.float32)
        start = np.random.default_rng(0).standard_normal(size).astype(np.float32)
        values: list[float] = eigsh(counted, k, which="LA", tol=residual, v0=start, return_eigenvectors=False).tolist()
        return values[::-1]

    def trace_samples(self, count: int) -> Tensor:
        """Return samples of its Hutchinson estimator."""
        torch.manual_seed(0)
        self.products += count
        return torch.tensor([float(self._hutchinson(self._matrix, num_matvecs=1)) for _ in range(count)])


class HessianEigenthings:
    """hessian-eigenthings, with its Lanczos at the fewest steps (20, 40, 80, ...) that give the residual."""

    name = "hessian-eigenthings"

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self._module = importlib.import_module("hessian_eigenthings")
        loss = self._module.supervised_loss(nn.CrossEntropyLoss())
        self._matrix = self._module.HessianOperator(model, [batch], loss)
        self._size = sum(p.numel() for p in model.parameters())
        self.products = 0

    def product(self, vector: Tensor) -> Tensor:
        """Return H v."""
        self.products += 1
        return torch.as_tensor(self._matrix.matvec(vector))

    def top(self, k: int, residual: float) -> list[float]:
        """Return eigenvalues; only the last try, the one that sufficed, is counted."""
        steps = 20
        while True:
            steps = min(steps, self._size)
            found = self._module.lanczos(
                self._matrix, k=k, max_iter=steps, which="LA", seed=0, reorthogonalize=True, tol=residual
            )
            self.products = steps
            if bool(torch.as_tensor(found.converged).all()) or steps >= min(640, self._size):
                return [float(value) for value in found.eigenvalues]
            steps *= 2

    def trace_samples(self, count: int) -> Tensor:
        """Return samples of its Hutchinson estimator."""
        self.products += count
        return torch.as_tensor(self._module.trace(self._matrix, num_matvecs=count, method="hutchinson", seed=0).samples)


PEERS: dict[str, tuple[str, type[Any]]] = {
    "PyHessian": ("pyhessian", CountedPyHessian),
    "curvlinops": ("curvlinops", Curvlinops),
    "hessian-eigenthings": ("hessian_eigenthings", HessianEigenthings),
}


def peers(model: nn.Module, batch: Batch) -> Iterator[Peer]:
    """Yield the libraries that are installed, and say which are not."""
    for name, (module, kind) in PEERS.items():
        try:
            importlib.import_module(module)
        except ImportError:
            print(f"  {name} is not installed: skipped")
            continue
        yield kind(model, batch)
