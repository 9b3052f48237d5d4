"""Principal directions of the weights after every step, from the sketch that training kept of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from alignscape.errors import InputError
from alignscape.sketch import Sketch
from landscape.snapshots import Snapshots

Matrix = NDArray[np.float64]

_WIDTH = 2**15  # columns (weights) handled at a time


@dataclass(frozen=True, kw_only=True)
class SketchedPCA:
    """What a sketch says of the scatter sum_t (theta_t - c)(theta_t - c)^T over every step t.

    Attributes:
        origin: c (P,).
        directions: orthonormal eigenvectors of the sketched scatter (K, P), float32, largest first.
        eigenvalues: of the sketched scatter, (K,). The true ones lie between these and these + ``error``.
        total: trace of the true scatter, exact up to rounding.
        error: sum of shrinkages: 0 <= true - sketched scatter <= error x identity.
    """

    origin: torch.Tensor
    directions: torch.Tensor
    eigenvalues: Matrix
    total: float
    error: float


def sketched_pca(sketches: Sequence[Sketch], *, components: int = 2, mean: bool = False) -> SketchedPCA:
    """Return the leading directions of all steps of one run, or of several in common.

    A run's rows x_t = theta_t - theta_0 have the scatter ``X^T X - s d^T - d s^T + n d d^T`` about the point
    theta_0 + d, with s their sum: the sketch stands for the first term, the others are exact.

    Args:
        mean: the point c is the mean of all weights; otherwise the final weights of the first run.

    Raises:
        InputError: the runs differ in size, or have fewer directions than ``components``.
    """
    first = sketches[0]
    if any(one.start.shape != first.start.shape for one in sketches):
        raise InputError("these runs are of different networks; a common plane needs the same architecture")
    if mean:
        n = sum(one.count for one in sketches)
        parts = [one.count / n * one.start.astype(np.float64) + one.sum / n for one in sketches]
        centre = np.sum(parts, axis=0)
    else:
        centre = first.start.astype(np.float64) + first.last
    factor, core, total = _factors(sketches, centre)
    gram = np.zeros((len(core), len(core)))
    for start in range(0, len(centre), _WIDTH):
        block = factor(start, start + _WIDTH)
        gram += block @ block.T
    values, mix = _eigen(gram, core, components)
    directions = torch.empty(components, len(centre))
    for start in range(0, len(centre), _WIDTH):
        stop = min(start + _WIDTH, len(centre))
        directions[:, start:stop] = torch.from_numpy(mix.T @ factor(start, stop))
    return SketchedPCA(
        origin=torch.from_numpy(centre).float(),
        directions=directions,
        eigenvalues=values,
        total=total,
        error=sum(one.shrinkage for one in sketches),
    )


def _factors(sketches: Sequence[Sketch], centre: Matrix) -> tuple[Callable[[int, int], Matrix], Matrix, float]:
    """Return (columns of Z, C, trace) with the sketched scatter Z^T C Z; s and d scaled to like sizes."""

    def columns(start: int, stop: int) -> Matrix:
        parts = []
        for one in sketches:
            away = centre[start:stop] - one.start[start:stop]
            root = one.count**0.5
            parts += [one.rows[:, start:stop].astype(np.float64), one.sum[None, start:stop] / root, away[None] * root]
        return np.concatenate(parts)

    blocks = [scipy.linalg.block_diag(np.eye(len(one.rows)), np.array([[0.0, -1.0], [-1.0, 1.0]])) for one in sketches]
    total = 0.0
    for one in sketches:
        away = centre - one.start
        total += one.square_sum - 2 * float(one.sum @ away) + one.count * float(away @ away)
    return columns, scipy.linalg.block_diag(*blocks), total


def _eigen(gram: Matrix, core: Matrix, k: int) -> tuple[Matrix, Matrix]:
    """Return the ``k`` largest eigenvalues of Z^T C Z for ``gram`` Z Z^T and ``core`` C, and the coefficients (M, k) of
    its eigenvectors in the rows of Z."""
    lengths, basis = scipy.linalg.eigh(gram)
    kept = lengths > 1e-12 * lengths[-1]
    if kept.sum() < k:
        raise InputError(f"the sketch spans {kept.sum()} directions; train with --snapshot-sketch {k} or more")
    roots, basis = np.sqrt(lengths[kept]), basis[:, kept]
    values, vectors = scipy.linalg.eigh((basis * roots).T @ core @ (basis * roots))
    order = np.argsort(values)[::-1][:k]
    return values[order].clip(min=0), (basis / roots) @ vectors[:, order]


def project(snapshots: Sequence[Snapshots], found: SketchedPCA) -> tuple[Matrix, Matrix, Matrix]:
    """Return coordinates (R, K), distance from the origin (R,) and from the plane (R,) of stored snapshots."""
    axes = found.directions.double().numpy()
    origin = found.origin.double().numpy()
    count = sum(map(len, snapshots))
    coordinates, distance, off_plane = np.zeros((count, len(axes))), np.zeros(count), np.zeros(count)
    width = max(1, 2**25 // count)

    def blocks() -> Iterator[tuple[Matrix, Matrix]]:
        for start in range(0, len(origin), width):
            part = slice(start, min(start + width, len(origin)))
            rows = np.concatenate([one.columns(part.start, part.stop) for one in snapshots])
            yield axes[:, part], rows - origin[part]

    for here, rows in blocks():
        coordinates += rows @ here.T
        distance += np.einsum("tp,tp->t", rows, rows)
    for here, rows in blocks():
        rest = rows - coordinates @ here
        off_plane += np.einsum("tp,tp->t", rest, rest)
    return coordinates, np.sqrt(distance), np.sqrt(off_plane)
