"""Principal components of a weight trajectory, in memory that does not grow with the number of snapshots times P.

The rows theta_t - theta_T (Li et al. 2018, section 7) are never held together: their T x T Gram matrix has the same
singular values, and one more pass turns its eigenvectors into directions.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignscape.errors import InputError
from alignscape.sketch import Sketch
from landscape.random_walk import expected_gram, recentre
from landscape.sketch import project, sketched_pca
from landscape.snapshots import Snapshots

Origin = Literal["final", "mean"]
Progress = Callable[[int, int], None]

_DENSE = 1500  # rows up to which all eigenvalues are computed; above, only the leading ones (Lanczos)
_REPORTED = 10  # components whose explained variance is reported
_RANK = 1e-12  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True, kw_only=True)
class TrajectoryPCA:
    """A plane (or line, or K-dimensional space) of weights and the trajectories seen in it.

    R is the number of snapshots of all runs, P of parameters, K of directions, E of explained variances. Made by
    :func:`trajectory_pca`.

    Attributes:
        runs: index of the run of each snapshot, (R,), int64.
        steps: optimiser step of each snapshot, (R,), int64.
        origin: the point of weight space that has coordinates 0, (P,).
        directions: orthonormal principal directions, largest variance first, (K, P).
        coordinates: projection of each snapshot, (R, K), float64, a distance in weight space.
        distance: ``|theta_t - origin|``, (R,), float64.
        off_plane: distance of each snapshot from its projection, (R,), float64.
        explained_variance_ratio: share of ``sum_t |theta_t - origin|^2`` along each of the leading E >= K components,
            (E,), float64.
        explained_variance_error: how much larger each share may be (from a sketch, by its certificate); 0 where the
            shares are exact.
        baseline: the same shares for a random walk of the same snapshots (P much larger than R), (E,), float64.

    Example:
        >>> import numpy as np
        >>> from landscape import Snapshots, trajectory_pca
        >>> weights = np.array([[4.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> pca = trajectory_pca(Snapshots(weights, steps=[0, 5, 10]))
        >>> pca.directions.shape, pca.coordinates.shape
        (torch.Size([2, 3]), torch.Size([3, 2]))
        >>> pca.frame()[["step", "distance"]].round(3)
           step  distance
        0     0     4.123
        1     5     2.000
        2    10     0.000
    """

    runs: Tensor
    steps: Tensor
    origin: Tensor
    directions: Tensor
    coordinates: Tensor
    distance: Tensor
    off_plane: Tensor
    explained_variance_ratio: Tensor
    explained_variance_error: float = 0.0
    baseline: Tensor

    def frame(self) -> pd.DataFrame:
        """Return one row per snapshot: ``run, step, alpha, beta, distance, off_plane`` (alpha, beta for K >= 2)."""
        names = ["alpha", "beta"] + [f"component_{k + 1}" for k in range(2, self.directions.shape[0])]
        axes = {name: self.coordinates[:, k].numpy() for k, name in enumerate(names[: len(self.directions)])}
        return pd.DataFrame(
            {
                "run": self.runs.numpy(),
                "step": self.steps.numpy(),
                **axes,
                "distance": self.distance.numpy(),
                "off_plane": self.off_plane.numpy(),
            }
        )

    def variance_frame(self) -> pd.DataFrame:
        """Return one row per component: ``component, explained_variance_ratio, baseline``."""
        return pd.DataFrame(
            {
                "component": np.arange(1, len(self.explained_variance_ratio) + 1),
                "explained_variance_ratio": self.explained_variance_ratio.numpy(),
                "baseline": self.baseline.numpy()[: len(self.explained_variance_ratio)],
            }
        )


def trajectory_pca(
    snapshots: Snapshots | Sequence[Snapshots],
    *,
    components: int = 2,
    origin: Origin = "final",
    sketches: Sequence[Sketch] | None = None,
    memory: int = 256 * 2**20,
    progress: Progress | None = None,
) -> TrajectoryPCA:
    """Find the ``components`` directions along which the weights moved most.

    Args:
        snapshots: one run, or several that share one set of directions.
        components: number of directions K.
        origin: ``"final"``: the directions minimise the squared distance of the snapshots from a plane *through the
            final weights* of the first run, so the end of the path lies on the plotted surface. ``"mean"``:
            ordinary PCA, about the mean of all snapshots.
        sketches: of each run, of the weights after every step: the directions and their explained variance then come
            from these, while coordinates and distances are those of the snapshots.
        memory: bytes for the block of columns in work. The peak is ``memory`` + 8 (K + 2) P + 48 R^2 bytes, with R
            snapshots in all.
        progress: called with (columns done, columns in all) over both passes.

    Raises:
        InputError: the runs differ in size, a weight is not finite, or the weights never move.

    Reference: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 7.

    Example:
        >>> import numpy as np
        >>> from landscape import Snapshots, trajectory_pca
        >>> weights = np.array([[4.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> pca = trajectory_pca(Snapshots(weights))
        >>> pca.explained_variance_ratio
        tensor([0.9908, 0.0092], dtype=torch.float64)
        >>> pca.off_plane.max() < 1e-12
        tensor(True)
    """
    series = [snapshots] if isinstance(snapshots, Snapshots) else list(snapshots)
    rows = _Rows(series, memory)
    if not 1 <= components <= rows.size:
        raise InputError(f"{components} components of {rows.size} weights; ask for 1 to {rows.size}")
    last = len(series[0]) - 1
    about_last = np.zeros((rows.count, rows.count))
    for start, block in rows.blocks():
        block -= block[last]
        about_last += block @ block.T
        if progress is not None:
            progress(start, 2 * rows.size)
    row = None if origin == "mean" else last
    gram = about_last if row == last else recentre(about_last, row)
    if not np.trace(gram) > 0:
        raise InputError(f"{series[0].name}: the weights never move; there is no trajectory to analyse")
    reported = min(max(_REPORTED, components), rows.count - 1)
    values, vectors = _leading_eigenpairs(gram, reported)
    walk = recentre(expected_gram(about_last, rows.runs, rows.steps), row)
    walk_values, _ = _leading_eigenpairs(walk, reported)
    if sketches is not None:
        found, shares, error = _of_sketches(sketches, series, components, origin)
        if progress is not None:
            progress(2 * rows.size, 2 * rows.size)
    else:
        found, shares, error = _project(rows, row, values, vectors, components, progress), values / np.trace(gram), 0.0
        found["distance"] = torch.from_numpy(np.sqrt(np.diag(gram).clip(min=0)))
    return TrajectoryPCA(
        runs=torch.from_numpy(rows.runs),
        steps=torch.from_numpy(rows.steps),
        explained_variance_ratio=torch.from_numpy(shares),
        explained_variance_error=error,
        baseline=torch.from_numpy(walk_values / np.trace(walk)),
        **found,
    )


def _of_sketches(
    sketches: Sequence[Sketch], series: Sequence[Snapshots], components: int, origin: Origin
) -> tuple[dict[str, Tensor], NDArray[np.float64], float]:
    """Return what :func:`_project` returns, the explained variance, and by how much it may be too small."""
    if len(sketches) != len(series):
        raise InputError(f"{len(series)} runs need as many sketches, not {len(sketches)}")
    if any(sketch.start.shape != (one.size,) for sketch, one in zip(sketches, series, strict=True)):
        raise InputError(f"{series[0].name}: sketch and snapshots are of different networks; train the run again")
    found = sketched_pca(sketches, components=components, mean=origin == "mean")
    coordinates, distance, off_plane = map(torch.from_numpy, project(series, found))
    tensors = {"origin": found.origin, "directions": found.directions, "coordinates": coordinates}
    shares = found.eigenvalues / found.total
    return {**tensors, "distance": distance, "off_plane": off_plane}, shares, found.error / found.total


class _Rows:
    """The snapshots of all runs as the rows of one matrix (R, P), read in blocks of columns."""

    def __init__(self, series: Sequence[Snapshots], memory: int) -> None:
        if not series:
            raise InputError("there is no trajectory; give at least one run")
        self.size = series[0].size
        for other in series[1:]:
            if other.size != self.size or (other.layout and series[0].layout and other.layout != series[0].layout):
                raise InputError(
                    f"{other.name} and {series[0].name} are trajectories of different networks; "
                    "a common plane needs the same architecture"
                )
        self.series = series
        self.count = sum(len(s) for s in series)
        self.runs = np.repeat(np.arange(len(series)), [len(s) for s in series])
        self.steps = np.concatenate([s.steps for s in series])
        self.double = any(s.dtype == np.float64 for s in series)
        self._width = max(1, int(memory // (self.count * 32)))

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield (columns read so far, rows (R, width) of the columns just read)."""
        for start in range(0, self.size, self._width):
            stop = min(start + self._width, self.size)
            yield stop, np.concatenate([s.columns(start, stop) for s in self.series])


def _leading_eigenpairs(gram: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ``k`` largest eigenvalues, descending and at least 0, and their eigenvectors as columns."""
    count = len(gram)
    if count <= _DENSE or k >= count - 1:
        values, vectors = scipy.linalg.eigh(gram, subset_by_index=[count - k, count - 1])
    else:
        start = np.random.default_rng(0).standard_normal(count)
        values, vectors = scipy.sparse.linalg.eigsh(gram, k, which="LA", v0=start)
    order = np.argsort(values)[::-1]
    return values[order].clip(min=0), vectors[:, order]


def _project(
    rows: _Rows,
    row: int | None,
    values: NDArray[np.float64],
    vectors: NDArray[np.float64],
    components: int,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """Turn eigenvectors of the Gram matrix into directions, coordinates and distances from the plane."""
    rank = int((values[:components] > _RANK * values[0]).sum())
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    vectors = (vectors * signs)[:, :rank]
    scale = np.sqrt(values[:rank])
    dtype = torch.float64 if rows.double else torch.float32
    centre = torch.empty(rows.size, dtype=dtype)
    directions = torch.zeros(components, rows.size, dtype=dtype)
    square_off_plane = np.zeros(rows.count)
    start = 0
    for stop, block in rows.blocks():
        middle = block.mean(axis=0) if row is None else block[row].copy()
        block -= middle
        here = (vectors / scale).T @ block
        block -= (vectors * scale) @ here
        square_off_plane += np.einsum("tp,tp->t", block, block)
        centre[start:stop] = torch.from_numpy(middle)
        directions[:rank, start:stop] = torch.from_numpy(here)
        start = stop
        if progress is not None:
            progress(rows.size + stop, 2 * rows.size)
    coordinates = np.zeros((rows.count, components))
    coordinates[:, :rank] = vectors * scale
    _complete(directions, rank)
    return {
        "origin": centre,
        "directions": directions,
        "coordinates": torch.from_numpy(coordinates),
        "off_plane": torch.from_numpy(np.sqrt(square_off_plane)),
    }


def _complete(directions: Tensor, rank: int) -> None:
    """Fill directions along which nothing moves with random ones, orthonormal to the others, so a plane is a plane."""
    if rank == len(directions):
        return
    warnings.warn(
        f"the trajectory spans {rank} direction{'s' * (rank != 1)} only; the other axes are random", stacklevel=4
    )
    generator = torch.Generator().manual_seed(0)
    for k in range(rank, len(directions)):
        new = torch.randn(directions.shape[1], generator=generator, dtype=directions.dtype)
        for _ in range(2):
            new -= directions[:k].T @ (directions[:k] @ new)
        directions[k] = new / new.norm()
