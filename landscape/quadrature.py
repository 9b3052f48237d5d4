"""Lanczos quadrature: what a few products with one probe tell about the whole spectrum.

m steps of Lanczos from a unit vector v give nodes theta_i and weights w_i with ``v^T f(H) v = sum_i w_i f(theta_i)``
exactly for polynomials f up to degree 2 m - 1 (Golub and Welsch 1969; Golub and Meurant 2010).
"""

from typing import TypeAlias

import torch
from torch import Tensor

from landscape.symmetric import Method, SymmetricOperator, drive

Quadrature: TypeAlias = list[tuple[Tensor, Tensor]]


def lanczos_quadrature(operator: SymmetricOperator, probes: Tensor, steps: int) -> Quadrature:
    """Return (nodes, weights), float64, for each of the unit rows of ``probes`` (K, P).

    Every new vector is orthogonalised twice against all before it: without that, a positive semidefinite matrix of
    rank 15 showed eigenvalues down to -2.5, and converged eigenvalues came in ghost copies. A probe whose Krylov
    space ends early (a matrix of low rank) has fewer nodes, and then they are exact. Memory: K * steps * P numbers.
    """
    return drive(quadrature(probes, steps), operator)


def quadrature(probes: Tensor, steps: int) -> Method[Quadrature]:
    """The method of :func:`lanczos_quadrature`."""
    count, steps = len(probes), min(steps, probes.shape[1])
    basis = probes.new_zeros(count, steps, probes.shape[1])
    diagonal = torch.zeros(count, steps, dtype=torch.float64)
    below = torch.zeros(count, steps, dtype=torch.float64)
    lengths = [steps] * count
    vectors = probes
    for step in range(steps):
        basis[:, step] = vectors
        images = yield vectors
        diagonal[:, step] = (vectors * images).sum(dim=1, dtype=torch.float64).cpu()
        span = basis[:, : step + 1]
        for _ in range(2):
            images = images - torch.einsum("ksp,ks->kp", span, torch.einsum("ksp,kp->ks", span, images))
        norms = images.norm(dim=1, dtype=torch.float64).cpu()
        below[:, step] = norms
        scale = torch.maximum(diagonal.abs().amax(dim=1), below.amax(dim=1))
        ended = norms <= 10 * torch.finfo(probes.dtype).eps * scale
        lengths = [min(n, step + 1) if end else n for n, end in zip(lengths, ended.tolist(), strict=True)]
        if max(lengths) <= step + 1:
            break
        safe = torch.where(ended, torch.ones_like(norms), norms)
        vectors = images / safe[:, None].to(images)
    return [_golub_welsch(diagonal[k, :n], below[k, : n - 1]) for k, n in enumerate(lengths)]


def _golub_welsch(diagonal: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    nodes, vectors = torch.linalg.eigh(torch.diag(diagonal) + torch.diag(below, 1) + torch.diag(below, -1))
    return nodes, vectors[0] ** 2
