"""What PCA finds in a random walk: the baseline for the explained variance of a trajectory.

A random walk in many dimensions also lies near a plane: with T snapshots and P >> T, the first principal component
about the mean explains 6/pi^2 = 61 % of its variance and the second 15 % (Antognini and Sohl-Dickstein, "PCA of
high dimensional random walks with comparison to neural network training", NeurIPS 2018). About the final weights
it is even 81 % and 9 %. An explained variance is evidence of a low-dimensional path only where it exceeds these.
"""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def expected_gram(gram: Matrix, runs: NDArray[np.int64], steps: NDArray[np.int64]) -> Matrix:
    """Return the Gram matrix (R, R) that random walks in place of the runs would have in the limit of large P.

    Every run starts where it did and takes independent isotropic steps as long, in the mean square, as the run's
    own. The inner products are about the start of the first run; see :func:`recentre`.

    Args:
        gram: inner products of all snapshots of all runs about any common point, (R, R).
        runs: index of the run that each row belongs to, (R,); the rows of a run are adjacent and in order.
        steps: optimiser step of each row, (R,).
    """
    starts = np.array([np.flatnonzero(runs == run)[0] for run in runs])
    about_start = recentre(gram, int(starts[0]))
    walk = about_start[np.ix_(starts, starts)].copy()
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        time = (steps[rows] - steps[rows[0]]).astype(np.float64)
        block = gram[np.ix_(rows, rows)]
        moves = np.diag(block)[1:] + np.diag(block)[:-1] - 2 * np.diag(block, 1)
        walk[np.ix_(rows, rows)] += moves.sum() / time[-1] * np.minimum.outer(time, time)
    return walk


def recentre(gram: Matrix, row: int | None) -> Matrix:
    """Return inner products about point ``row`` of the Gram matrix, or about the mean of all points if None."""
    towards = gram.mean(axis=0) if row is None else gram[row]
    square = float(gram.mean()) if row is None else float(gram[row, row])
    return gram - towards[None, :] - towards[:, None] + square
