"""Square in the L2 ball: what a query moves is where the length of the perturbation lies.

The perturbation is made of small bumps, each half up and half down. A query empties one window of the image and gives
what it held, and what is left of eps, to a bump in another (Andriushchenko et al. 2020, algorithm 3; details as in the
authors' code of AutoAttack).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustness.norms import per_image

SMALLEST = 3  # pixels on a side
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One query: windows are (rows, columns)."""

    filled: tuple[slice, slice]
    emptied: tuple[slice, slice]
    bump: Tensor  # of Euclidean length 1, shape (side, side)
    signs: Tensor  # of each channel, (C, 1, 1)


def exchanges(sides: Sequence[int], shape: Sequence[int], rng: np.random.Generator) -> Iterator[Exchange]:
    """Yield each query's exchange, for the sides that Square's schedule gives, made odd and at least 3."""
    channels, height, width = shape
    for wanted in sides:
        side = max(wanted, SMALLEST)
        side = min(side + 1 - side % 2, height, width)
        corners = [(int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))) for _ in range(2)]
        filled, emptied = ((slice(top, top + side), slice(left, left + side)) for top, left in corners)
        yield Exchange(
            filled=filled,
            emptied=emptied,
            bump=bump(side, across=bool(rng.integers(2))),
            signs=torch.from_numpy(rng.integers(0, 2, (channels, 1, 1)) * 2 - 1),
        )


def bump(side: int, *, across: bool = False) -> Tensor:
    """Return the pattern of a window: a peak in one half, a trough in the other; float64 of length 1, (side, side).

    >>> bump(3)
    tensor([[ 0.1361,  0.6804,  0.1361],
            [-0.1291, -0.1291, -0.1291],
            [-0.1291, -0.6455, -0.1291]], dtype=torch.float64)
    """
    half = side // 2
    found = torch.cat((_peak(half, side), -_peak(side - half, side)))
    found = found / found.norm()
    return found.T if across else found


def _peak(height: int, width: int) -> Tensor:
    """Return nested rectangles about the middle, each weighing 1 / rank^2, of length 1."""
    found = torch.zeros(height, width, dtype=torch.float64)
    top, left = height // 2, width // 2
    for rank in range(max(top, left) + 1):
        rows = slice(max(top - rank, 0), min(top + rank + 1, height))
        columns = slice(max(left - rank, 0), min(left + rank + 1, width))
        found[rows, columns] += 1 / (rank + 1) ** 2
    return found / found.norm().clamp_min(TINY)


def tiles(shape: Sequence[int], across: Sequence[bool], signs: Tensor) -> Tensor:
    """Return bumps side by side all over the image, of Euclidean length 1, shape (N, C, H, W).

    Args:
        shape: (C, H, W).
        across: of each of the tiles, which way its bump lies.
        signs: of each image, channel and tile, shape (N, C, T).
    """
    side = tile_side(shape)
    found = signs.new_zeros(len(signs), *shape)
    for tile, (top, left) in enumerate(_tile_corners(shape)):
        pattern = bump(side, across=across[tile]).to(signs)
        found[:, :, top : top + side, left : left + side] = pattern * signs[:, :, tile, None, None]
    return found / per_image(_length(found).clamp_min(TINY), found)


def tile_side(shape: Sequence[int]) -> int:
    """Return the side of the tiles: a fifth of the image's height."""
    return max(min(shape[1] // 5, shape[2]), 1)


def n_tiles(shape: Sequence[int]) -> int:
    """Return how many tiles there are."""
    return len(_tile_corners(shape))


def _tile_corners(shape: Sequence[int]) -> list[tuple[int, int]]:
    _, height, width = shape
    side = tile_side(shape)
    rows, columns = (range((size % side) // 2, size - side + 1, side) for size in (height, width))
    return [(top, left) for top in rows for left in columns]


def exchanged(images: Tensor, best: Tensor, eps_N: Tensor, move: Exchange) -> Tensor:
    """Return each image's point after one exchange, within eps and [0, 1], shape (N, C, H, W)."""
    delta = best - images
    filled, emptied = delta[..., *move.filled], delta[..., *move.emptied]
    unused = (eps_N.square() - delta.square().flatten(1).sum(1)).clamp_min(0)
    held = (_energy(filled) + _energy(emptied) - _energy(delta[..., *_common(move)])).clamp_min(0)
    new = filled / (_channel_length(filled) + TINY) + move.bump.to(delta) * move.signs.to(delta)
    new = new / (_channel_length(new) + TINY) * per_image((unused / delta.shape[1] + held).sqrt(), new)
    delta[..., *move.emptied] = 0
    delta[..., *move.filled] = new
    return (images + delta * per_image(eps_N / (_length(delta) + TINY), delta)).clamp_(0, 1)


def _common(move: Exchange) -> tuple[slice, slice]:
    """Return the window that two windows have in common, which may be empty."""
    rows, columns = (
        slice(max(one.start, other.start), max(min(one.stop, other.stop), one.start, other.start))
        for one, other in zip(move.filled, move.emptied, strict=True)
    )
    return rows, columns


def _energy(delta: Tensor) -> Tensor:
    return delta.square().flatten(1).sum(1)


def _length(delta: Tensor) -> Tensor:
    return _energy(delta).sqrt()


def _channel_length(delta: Tensor) -> Tensor:
    return delta.square().sum((-2, -1), keepdim=True).sqrt()
